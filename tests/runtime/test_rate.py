"""A video at another rate, on purpose: every frame of the result is the one that was shown then."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import Damage, Frame, SourceError, VideoInfo, open_source
from velatura.runtime.frame import GRAY
from velatura.runtime.sources import Source
from velatura.runtime.sources.constant_rate import RateSource

from . import videos


class Clip(Source):
    """Frames of one pixel that holds their number, at given times."""

    def __init__(
        self, ticks: Sequence[int], base: Fraction, *, end: Fraction | None = None, rate: int = 25
    ) -> None:
        self.uri = "clip"
        self.info = VideoInfo(width=1, height=1, format=GRAY, rate=Fraction(rate), time_base=base)
        self.ticks = ticks
        self.last = end
        self.closed = False

    def __iter__(self) -> Any:
        for index, pts in enumerate(self.ticks):
            pixel = np.full((1, 1), index, np.uint8)
            yield Frame(
                planes=(pixel,), format=GRAY, pts=pts, time_base=self.info.time_base, index=index
            )

    @property
    def end(self) -> Fraction | None:
        return self.last

    @property
    def damage(self) -> Damage:
        return Damage(2, "two are gone")

    def close(self) -> None:
        self.closed = True


def numbers(source: Source) -> list[int]:
    return [int(frame.planes[0][0, 0]) for frame in source]


def by_ffmpeg(ticks: Sequence[int], base: Fraction, rate: Fraction, last: int) -> list[tuple[int, int]]:
    """(place, number) of each frame that FFmpeg's `fps` gives; the last one lasts `last` ticks."""
    graph = Graph()
    entry = graph.add_buffer(width=16, height=16, format=av.VideoFormat("gray"), time_base=base)
    graph.link_nodes(
        entry, graph.add("fps", f"fps={rate}:round=near"), graph.add("buffersink")
    ).configure()
    found: list[tuple[int, int]] = []

    def drain() -> None:
        while True:
            try:
                out = graph.vpull()
            except (BlockingIOError, EOFError):
                return
            found.append((int(out.pts or 0), bytes(out.planes[0])[0]))

    for index, pts in enumerate(ticks):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), index, np.uint8), format="gray")
        frame.pts, frame.time_base = pts, base
        frame.duration = last if index == len(ticks) - 1 else 0
        graph.vpush(frame)
        drain()
    graph.vpush(None)
    drain()
    return found


RATES = [Fraction(25), Fraction(30000, 1001), Fraction(10), Fraction(60), Fraction(3, 2)]


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.integers(1, 400), min_size=1, max_size=25),
    begin=st.integers(0, 3000),
    rate=st.sampled_from(RATES),
    last=st.integers(1, 900),
)
def test_the_same_frames_as_ffmpeg_gives(
    steps: list[int], begin: int, rate: Fraction, last: int
) -> None:
    base = Fraction(1, 1000)
    ticks = [begin + sum(steps[:index]) for index in range(len(steps))]
    clip = Clip(ticks, base, end=(ticks[-1] + last) * base)
    with RateSource(clip, rate) as source:
        frames = list(source)
    found = [(frame.pts, int(frame.planes[0][0, 0])) for frame in frames]
    expected = by_ffmpeg(ticks, base, rate, last)
    if expected:
        assert found == expected
    else:
        assert len(found) == 1  # FFmpeg leaves nothing of a film shorter than half a frame
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert {frame.time_base for frame in frames} == {1 / rate}


def test_what_the_wrapper_says_of_itself() -> None:
    clip = Clip([0, 1, 2], Fraction(1, 25), end=Fraction(3, 25))
    source = RateSource(clip, Fraction(30000, 1001))
    assert source.info.rate == Fraction(30000, 1001)
    assert source.info.time_base == Fraction(1001, 30000)
    assert source.info.notes == ("converted from 25 to 29.970 frames a second",)
    assert len(numbers(source)) == 4
    assert source.damage == Damage(2, "two are gone")
    source.close()
    assert clip.closed


def test_halves_and_doubles() -> None:
    base = Fraction(1, 25)
    assert numbers(RateSource(Clip(range(5), base, end=Fraction(5, 25)), Fraction(50))) == [
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4,
    ]  # fmt: skip
    halved = numbers(RateSource(Clip(range(8), base, end=Fraction(8, 25)), Fraction(25, 2)))
    assert len(halved) == 4
    assert np.diff(halved).tolist() == [2, 2, 2]


def test_the_end_is_guessed_from_the_rate_where_nothing_states_it() -> None:
    assert numbers(RateSource(Clip([0, 1], Fraction(1, 5), rate=5), Fraction(25))) == [0] * 5 + [1] * 5


def test_a_clip_without_a_frame_stays_without() -> None:
    assert numbers(RateSource(Clip([], Fraction(1, 25)), Fraction(50))) == []


def test_variable_to_constant_keeps_sync_to_the_end(tmp_path: Path) -> None:
    """A slide show of phone-like times; the last frame stands as long as the file says."""
    times = [0, 40, 130, 135, 400, 1000]
    # Without B-frames: MP4's stated length is that of the times of decoding.
    path = videos.make(tmp_path / "in.mp4", codec="libx264", frames=6, pts=times, options={"bf": "0"})
    plain = videos.read(path)
    with open_source(path) as source:
        list(source)
        end = source.end
        assert end is not None
        assert end > 1
    with open_source(path, rate=Fraction(25)) as source:
        frames = list(source)
        assert source.info.rate == 25
        assert any("frames a second" in note for note in source.info.notes)
        assert source.info.frames is not None
        assert abs(source.info.frames - len(frames)) <= 1
    assert [frame.pts for frame in frames] == list(range(len(frames)))
    assert len(frames) == round(float(end) * 25)
    for place, frame in enumerate(frames):
        shown = max(i for i, t in enumerate(times) if np.floor(t * 25 / 1000 + 0.5) <= place)
        np.testing.assert_array_equal(frame.planes[0], plain.luma[shown])


def test_a_film_at_another_rate_lasts_as_long(own_clips: Path) -> None:
    with open_source(own_clips / "film.mp4") as source:
        list(source)
        end, before = source.end, source.info.rate
    with open_source(own_clips / "film.mp4", rate=Fraction(24)) as source:
        frames = list(source)
    assert end is not None
    assert before == 30
    assert abs(Fraction(len(frames), 24) - end) <= Fraction(1, 24)


def test_patterns_are_converted_too() -> None:
    with open_source("pattern:16x16@10?frames=4", rate=Fraction(20)) as source:
        frames = list(source)
    assert len(frames) == 8
    np.testing.assert_array_equal(frames[0].planes[0], frames[1].planes[0])


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-5), Fraction(1001), Fraction(10**9)])
def test_rates_that_are_none(rate: Fraction, tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=2)
    for uri in (str(path), "pattern:16x16", "none/*.png"):
        with pytest.raises(SourceError, match="is no frame rate: it must be above 0 and at most 1000"):
            open_source(uri, rate=rate)
