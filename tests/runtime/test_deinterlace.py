"""Interlaced video: combs go, detail that stands still stays, and every frame keeps its time."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from velatura.runtime import Frame, open_source
from velatura.runtime.media import deinterlace as module
from velatura.runtime.media.deinterlace import Picture, deinterlaced, plan
from velatura.runtime.sources import Deinterlace

from . import videos

SIZE = (96, 64)
BAR = slice(8, 40)
"""Rows of the moving bar; static detail is below it."""
ILDCT = {"flags": "+ildct+ilme"}
CODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", ".mp4", ILDCT | {"crf": "4", "x264-params": "tff=1"}),
    "h264 bottom first": ("libx264", ".mkv", ILDCT | {"crf": "4", "x264-params": "bff=1"}),
    "mpeg2": ("mpeg2video", ".ts", ILDCT | {"qmin": "1", "qmax": "2", "b": "20M"}),
}


def scene(time: float) -> np.ndarray:
    """(H, W) luma at a time in fields: a bar that moves 3 pixels a field, above static columns."""
    picture = np.full((SIZE[1], SIZE[0]), 60, np.uint8)
    left = 6 + round(3 * time)
    picture[BAR, left : left + 10] = 200
    picture[48:60, ::4] = 180
    return picture


def limited(time: float) -> np.ndarray:
    """The same as video stores it."""
    return 16 + scene(time) * (219 / 255)


def woven(index: int, *, bottom_first: bool = False) -> np.ndarray:
    """Two fields in one frame."""
    picture = scene(2 * index)
    later = slice(0, None, 2) if bottom_first else slice(1, None, 2)
    picture[later] = scene(2 * index + 1)[later]
    return picture


def film(
    path: Path,
    pictures: Iterable[np.ndarray],
    codec: str,
    options: dict[str, str],
    *,
    pix_fmt: str = "yuv420p",
    field: str = "prog",
) -> Path:
    """Grey pictures at 25 frames a second; `field` is what frames say: `prog`, `tff` or `bff`."""
    said = Graph()
    source = said.add_buffer(
        width=SIZE[0], height=SIZE[1], format=av.VideoFormat(pix_fmt), time_base=Fraction(1, 25)
    )
    said.link_nodes(source, said.add("setfield", field), said.add("buffersink")).configure()
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = *SIZE, pix_fmt
        for index, luma in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.dstack([luma] * 3), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            said.vpush(frame)
            out.mux(video.encode(said.vpull()))
        out.mux(video.encode(None))
    return path


def interlaced(folder: Path, name: str = "h264", frames: int = 12) -> Path:
    codec, suffix, options = CODERS[name]
    bottom = "bottom" in name
    pictures = (woven(index, bottom_first=bottom) for index in range(frames))
    field = "bff" if bottom else "tff"
    return film(folder / f"in{suffix}", pictures, codec, options, field=field)


def progressive(folder: Path, frames: int = 12) -> Path:
    pictures = (scene(2 * index) for index in range(frames))
    return film(folder / "whole.mkv", pictures, "libx264", {"crf": "4"})


def read(path: Path, deinterlace: Deinterlace = "auto") -> tuple[list[Frame], Any]:
    with open_source(path, deinterlace=deinterlace) as source:
        frames = list(source)
        assert not source.damage
        late = sum("though the first ones are not" in note for note in source.notes)
        assert len(source.notes) == late
        assert late == (path.name == "late.ts")
        return frames, source.info


def comb(frame: Frame) -> float:
    """How far rows stand from the mean of their neighbours, on the average, where the bar moves."""
    luma = frame.planes[0][BAR].astype(float)
    return float(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean())


def seconds(frames: list[Frame]) -> list[float]:
    return [round(frame.seconds - frames[0].seconds, 6) for frame in frames]


@pytest.mark.parametrize("name", list(CODERS))
def test_combs_go_and_what_stands_still_stays(name: str, tmp_path: Path) -> None:
    path = interlaced(tmp_path, name)
    combed, info = read(path, "no")
    assert info.interlaced
    assert any("left as it is" in note for note in info.notes)
    frames, info = read(path)
    assert not info.interlaced
    order = "bottom" if "bottom" in name else "top"
    assert any(f"interlaced, {order} field first: deinterlaced by bwdif" in n for n in info.notes)
    assert len(frames) == len(combed) == 12
    assert seconds(frames) == pytest.approx([index / 25 for index in range(12)], abs=1e-5)
    assert [f.pts for f in frames] == [f.pts for f in combed]
    before, after = np.mean([comb(f) for f in combed]), np.mean([comb(f) for f in frames])
    assert before > 4
    assert after < before / 5
    for index, frame in enumerate(frames):
        columns = frame.planes[0][49:59].astype(int)
        assert columns[:, ::4].min() - columns[:, 2::4].max() > 90
        assert np.abs(frame.planes[0][10:38] - limited(2 * index)[10:38]).mean() < 2.5


def test_each_field_becomes_a_frame_of_its_own_time(tmp_path: Path) -> None:
    frames, info = read(interlaced(tmp_path), "fields")
    assert (info.rate, info.frames, info.interlaced) == (50, 24, False)
    assert seconds(frames) == pytest.approx([index / 50 for index in range(24)], abs=1e-5)
    assert [frame.index for frame in frames] == list(range(24))
    for index, frame in enumerate(frames):
        found = frame.planes[0][10:38].astype(float)
        # The others are 3 pixels away at both edges of the bar, which is 9 on the average.
        assert np.abs(found - limited(index)[10:38]).mean() < 4


def test_one_frame_has_two_fields(tmp_path: Path) -> None:
    frames, _ = read(interlaced(tmp_path, frames=1), "fields")
    assert seconds(frames) == pytest.approx([0, 0.02], abs=1e-5)


@pytest.mark.parametrize("how", ["auto", "fields", "no"])
def test_a_progressive_film_never_meets_the_filter(
    how: Deinterlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the filter was started")

    monkeypatch.setattr(module, "Graph", refuse)
    path = progressive(tmp_path)
    frames, info = read(path, how)
    expected = videos.read(path)
    assert info.rate == 25
    assert not info.interlaced
    assert not any("interlaced" in note for note in info.notes)
    for frame, luma in zip(frames, expected.luma, strict=True):
        np.testing.assert_array_equal(frame.planes[0], luma)


def test_force_takes_frames_that_do_not_say_what_they_are(tmp_path: Path) -> None:
    """As from a capture whose flags were lost."""
    path = film(tmp_path / "in.mkv", map(woven, range(8)), "ffv1", {})
    combed, info = read(path)
    assert not info.interlaced
    frames, info = read(path, "force")
    assert any("every frame is deinterlaced" in note for note in info.notes)
    assert len(frames) == 8
    assert seconds(frames) == seconds(combed)
    assert np.mean([comb(f) for f in frames]) < np.mean([comb(f) for f in combed]) / 5


@pytest.mark.parametrize(
    "pix_fmt", ["yuv422p10le", "yuv444p16le", "gray", "gray12le", "bgr0", "gbrp10le", "gbrap16le",
                "yuva420p", "bgra", "yuv440p12le", "rgb48le"]
)  # fmt: skip
def test_every_kind_of_pixels_is_deinterlaced_in_its_own_depth(pix_fmt: str, tmp_path: Path) -> None:
    path = film(tmp_path / "in.mkv", map(woven, range(5)), "ffv1", {}, pix_fmt=pix_fmt)
    combed, _ = read(path)
    frames, info = read(path, "force")
    assert len(frames) == 5
    for frame, before in zip(frames, combed, strict=True):
        assert frame.format == info.format == before.format
        peak = frame.format.peak
        plane, was = (
            f.planes[0][..., 0] if f.planes[0].ndim == 3 else f.planes[0] for f in (frame, before)
        )
        rows = plane[BAR].astype(float) / peak, was[BAR].astype(float) / peak
        combs = [np.abs(r[1:-1] - (r[:-2] + r[2:]) / 2).mean() for r in rows]
        assert combs[0] < combs[1] / 4
        # Rows of the field that is kept are the source's, bit for bit.
        np.testing.assert_array_equal(plane[::2], was[::2])
        assert (frame.alpha is None) == (before.alpha is None)
        if frame.alpha is not None:
            assert frame.alpha.min() == peak


def joined(first: Path, second: Path, target: Path) -> Path:
    """Two MPEG-TS files, one after the other on one clock."""
    with av.open(str(target), "w") as out:
        stream: Any = None
        end = 0
        for path in (first, second):
            with av.open(str(path)) as given:
                video = given.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                packets: Any = [packet for packet in given.demux(video) if packet.dts is not None]
            offset = end - min(packet.pts for packet in packets)
            for packet in packets:
                packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                end = max(end, packet.pts + 3600)
                packet.stream = stream
                out.mux(packet)
    return target


@pytest.mark.parametrize("how", ["auto", "fields"])
@pytest.mark.parametrize("order", ["whole first", "fields first"])
def test_mixed_films_keep_their_progressive_frames_bit_for_bit(
    how: Deinterlace, order: str, tmp_path: Path
) -> None:
    first = film(
        tmp_path / "a.ts", map(woven, range(14)), "mpeg2video", CODERS["mpeg2"][2], field="tff"
    )
    second = film(tmp_path / "b.ts", map(scene, range(0, 28, 2)), "mpeg2video", {"b": "20M"})
    if order == "whole first":
        first, second = second, first
    late = order == "whole first"
    path = joined(first, second, tmp_path / ("late.ts" if late else "in.ts"))
    plain, _ = read(path, "no")
    frames, info = read(path, how)
    assert len(plain) == 28
    twice = how == "fields" and order == "fields first"
    assert info.rate == (50 if twice else 25)
    assert len(frames) == len(plain) * (2 if twice else 1)
    assert np.diff([f.seconds for f in frames]) == pytest.approx(1 / float(info.rate), abs=1e-4)
    singles = frames[::2] if twice else frames
    whole = range(14) if order == "whole first" else range(15, 28)
    for index in whole:
        np.testing.assert_array_equal(singles[index].planes[0], plain[index].planes[0])
    woven_ones = [f for i, f in enumerate(singles) if (i >= 14) == (order == "whole first")]
    assert np.mean([comb(f) for f in woven_ones]) < 2


def test_the_smallest_pictures_are_left_alone(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", size=(4, 4), frames=3)
    with open_source(path, deinterlace="force") as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize(("order", "parity"), [(2, "tff"), (3, "bff"), (4, "bff"), (5, "tff")])
def test_what_only_the_container_says_is_believed(order: int, parity: str, tmp_path: Path) -> None:
    """FFV1 frames cannot say that they are interlaced; Matroska and QuickTime can."""
    bottom = parity == "bff"
    pictures = (woven(index, bottom_first=bottom) for index in range(6))
    path = film(tmp_path / "in.mkv", pictures, "ffv1", {})
    with av.open(str(path)) as container:
        images = list(container.decode(video=0))
    assert not images[0].interlaced_frame
    for asked in ("auto", "fields"):
        made = plan(asked, order, "ffv1", images)
        assert (made.how, made.every, made.parity, made.interlaced) == (asked, True, parity, False)
        given = (Picture(image, index, 1) for index, image in enumerate(images))
        found = list(deinterlaced(given, made, Fraction(1, 25)))
        assert len(found) == (12 if asked == "fields" else 6)
        for index, picture in enumerate(found):
            luma = videos.plane(picture.image, 0)[10:38].astype(float)
            assert picture.pts == index
            time = index if asked == "fields" else 2 * index
            assert np.abs(luma - limited(time)[10:38]).mean() < 2
    assert plan("no", order, "ffv1", images).interlaced


def test_whole_frames_in_a_stream_that_may_hold_fields_are_whole() -> None:
    """H.264 says it of each frame: what its header allows is not what it holds."""
    image = av.VideoFrame(64, 48, "yuv420p")
    assert plan("auto", 2, "h264", [image]).note == ""
    assert not plan("no", 2, "h264", [image]).interlaced
