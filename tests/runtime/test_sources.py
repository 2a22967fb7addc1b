"""Sources on real clips and on files made for the purpose."""

import random
import struct
from contextlib import suppress
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import SourceError, open_source
from velatura.runtime.frame import PixelFormat
from velatura.runtime.media.decode import Clock
from velatura.runtime.sources import Deinterlace

from ..own_data import CLIPS
from . import videos

INTACT = [
    "crystal.mp4", "rabbit320.mp4", "bigbuckbunny.mp4", "shooter_gameplay.mp4", "edge/SAR-2by3.mp4",
    "edge/bitmap.mp4", "edge/bt709_full_range.mp4", "edge/fire2.mp4", "edge/h264-png.mp4",
    "edge/h264_10bits.mp4", "edge/mov_text.mp4", "edge/no_duration.webm",
    "edge/testsrc_with_attachment.mkv", "edge/video_with_failing_audio.mp4", "edge/webvtt.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_comes_as_pyav_has_it(own_clips: Path, name: str) -> None:
    gives_every_frame(own_clips / name)


@pytest.mark.soak
@pytest.mark.parametrize("name", INTACT)
def test_real_clips_give_every_frame_as_pyav_does(clips: Path, name: str) -> None:
    gives_every_frame(clips / name)


def gives_every_frame(path: Path) -> None:
    expected = videos.read(path)
    with open_source(path) as source:
        frames = [(f.seconds, f.planes[0].copy(), f.rotation, f.index) for f in source]
        assert not source.damage, source.damage
        start = source.info.start
    assert [index for *_, index in frames] == list(range(len(frames)))
    assert [s for s, *_ in frames] == pytest.approx([s - start for s in expected.seconds], abs=1e-6)
    for (_, found, *_), luma in zip(frames[::10], expected.luma[::10], strict=True):
        np.testing.assert_array_equal(found, luma)
    assert frames[0][2] % 360 == expected.rotation % 360


def test_what_a_clip_says_about_itself(own_clips: Path) -> None:
    with open_source(own_clips / "wide_pixels.mp4") as source:
        assert source.info.aspect == Fraction(2, 3)
        assert source.info.audio == ("aac",)
    with open_source(own_clips / "full_range.mp4") as source:
        colour = source.info.colour
        assert (colour.matrix, colour.range, colour.primaries) == ("bt709", "full", 1)
        assert not source.info.notes
    with open_source(own_clips / "ten_bits.mp4") as source:
        assert source.info.format == PixelFormat("yuv", 10, (2, 2))
    with open_source(own_clips / "cover.mp4") as source:
        assert (source.info.codec, source.info.width) == ("h264", 320), "not the cover picture"
    with open_source(own_clips / "words.mp4") as source:
        assert any("BT601" in note for note in source.info.notes)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "expected"),
    [
        ("ffv1", "yuv420p", ".mkv", PixelFormat("yuv", 8, (2, 2))),
        ("ffv1", "yuv422p10le", ".mkv", PixelFormat("yuv", 10, (2, 1))),
        ("ffv1", "yuv444p12le", ".mkv", PixelFormat("yuv", 12)),
        ("ffv1", "gray", ".mkv", PixelFormat("gray")),
        ("ffv1", "gray10le", ".mkv", PixelFormat("gray", 10)),
        ("ffv1", "bgr0", ".mkv", PixelFormat("rgb")),
        ("ffv1", "gbrp16le", ".mkv", PixelFormat("rgb", 16)),
        ("mjpeg", "yuvj420p", ".avi", PixelFormat("yuv", 8, (2, 2))),
        ("libx264", "nv12", ".mp4", PixelFormat("yuv", 8, (2, 2))),
        ("ffv1", "yuva420p", ".mkv", PixelFormat("yuv", 8, (2, 2))),
        ("gif", "rgb8", ".gif", PixelFormat("rgb")),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (63, 41)])
def test_pixel_formats_and_odd_sizes(
    codec: str, pix_fmt: str, suffix: str, expected: PixelFormat, size: tuple[int, int], tmp_path: Path
) -> None:
    if codec == "libx264" and size[0] % 2:
        size = (62, 42)  # H.264 in 4:2:0 has no odd sizes
    path = videos.make(tmp_path / f"clip{suffix}", codec=codec, pix_fmt=pix_fmt, size=size, frames=4)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.format == expected
        assert source.info.alpha == (pix_fmt == "yuva420p" or codec == "gif")
    assert len(frames) == 4
    assert all((f.width, f.height, f.format) == (*size, expected) for f in frames)
    assert all((f.alpha is not None) == source.info.alpha for f in frames)
    if expected.family == "rgb" and codec == "ffv1":
        wanted = videos.drawing(size, 2).astype(float) / 255
        found = frames[2].planes[0] / expected.peak
        assert np.abs(found - wanted).max() < 0.01


def test_frames_outlive_the_decoder(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "clip.mkv", frames=40)
    expected = videos.read(path).luma
    with open_source(path) as source:
        frames = list(source)
    for frame, luma in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.planes[0], luma)


@pytest.mark.parametrize("pattern", ["%03d.png", "%d.png", "*.png"])
def test_sequences_in_order(pattern: str, tmp_path: Path) -> None:
    numbers = [8, 9, 10, 11] if pattern == "%d.png" else [0, 1, 2, 10]
    for number in numbers:
        name = f"{number}.png" if pattern == "%d.png" else f"{number:03d}.png"
        cv2.imwrite(str(tmp_path / name), np.full((6, 8, 3), number, np.uint8))
    with open_source(tmp_path / pattern, rate=Fraction(24)) as source:
        frames = list(source)
        assert source.info.frames == 4
    assert [int(f.planes[0][0, 0, 0]) for f in frames] == numbers
    assert frames[3].seconds == pytest.approx(3 / 24)


def test_a_sequence_of_deep_pictures_is_rgb_in_order(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint16)
    pixels[..., 0] = 50_000  # OpenCV writes BGR: this is blue
    cv2.imwrite(str(tmp_path / "1.png"), pixels)
    with open_source(tmp_path / "*.png") as source:
        (frame,) = source
    assert frame.format == PixelFormat("rgb", 16)
    assert frame.planes[0][0, 0].tolist() == [0, 0, 50_000]


def test_a_broken_picture_in_a_sequence_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no")
    with (
        pytest.raises(SourceError, match=r"2\.png is not a picture"),
        open_source(tmp_path / "*.png") as source,
    ):
        list(source)


def test_the_pattern_moves() -> None:
    with open_source("pattern:65x33@24?frames=5") as source:
        frames = list(source)
        assert source.info.rate == 24
    assert len(frames) == 5
    assert (frames[0].width, frames[0].height) == (65, 33)
    assert (frames[0].planes[0] != frames[1].planes[0]).mean() > 0.5


@pytest.mark.parametrize("uri", ["pattern:", "pattern:0x5", "pattern:64", "pattern:64x64?frames=x"])
def test_a_bad_pattern_says_how_to_write_one(uri: str) -> None:
    with pytest.raises(SourceError, match="640x360"):
        open_source(uri)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "100%done [x] *.mkv", frames=3)
    with open_source(path) as source:
        assert len(list(source)) == 3


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 40, 130, 135, 400, 1000]
    path = videos.make(tmp_path / "clip.mkv", frames=6, pts=times)
    with open_source(path) as source:
        assert [round(frame.seconds * 1000) for frame in source] == times


@pytest.mark.quick_rows(16)
@pytest.mark.parametrize("rate", [24, 25, 30, Fraction(24000, 1001), Fraction(30000, 1001)])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *((suffix, "libx264") for suffix in (".mp4", ".mkv", ".ts", ".avi", ".h264", ".mov", ".nut")),
        *((suffix, "mpeg4") for suffix in (".mp4", ".mkv", ".ts", ".avi", ".mov", ".nut")),
    ],
)
def test_b_frames_come_in_order_and_on_time(
    suffix: str, rate: Fraction, codec: str, tmp_path: Path
) -> None:
    """AVI has no times of display, a bare H.264 stream has none at all."""
    path = videos.make(
        tmp_path / f"in{suffix}", codec=codec, frames=30, options={"bf": "3", "b": "2M"}, rate=rate
    )
    plain = videos.read(path) if suffix != ".h264" else None
    with open_source(path) as source:
        frames = [(frame.seconds, frame.planes[0].copy()) for frame in source]
        assert not source.damage
        assert not source.notes
        assert source.info.rate == pytest.approx(rate, rel=1e-4)
        assert source.info.frames in (None, 30)
    assert len(frames) == 30
    seconds = np.array([s for s, _ in frames]) - frames[0][0]
    # Matroska counts in milliseconds.
    assert np.abs(seconds - np.arange(30) / float(rate)).max() < 0.0011
    if suffix == ".avi":
        assert frames[0][0] == 0
    # The bright column tells the number of each.
    columns = [int(np.argmax(luma.astype(float).mean(0))) // 3 for _, luma in frames]
    assert columns[:20] == list(range(20))
    if plain is not None:
        for (_, luma), expected in zip(frames, plain.luma, strict=True):
            np.testing.assert_array_equal(luma, expected)


def test_ticks_of_avi_that_show_no_frame_are_no_damage(tmp_path: Path) -> None:
    times = [0, 40, 80, 120, 360, 400, 440, 600]
    path = videos.make(tmp_path / "in.avi", codec="mpeg4", frames=8, rate=25)
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for index, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(videos.drawing((64, 48), index), format="rgb24")
            picture = picture.reformat(format="yuv420p")
            picture.pts, picture.time_base = time // 40, Fraction(1, 25)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
    with open_source(path) as source:
        assert [round(frame.seconds * 1000) for frame in source] == times
        assert not source.damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(path) as source:
        assert 0 < len(list(source)) < 8
        assert source.damage


def joined(target: Path, *parts: Path) -> Path:
    """MPEG-TS files, one behind the other, each with its own clock."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def test_clocks_that_fall_back_are_repaired_and_said(tmp_path: Path) -> None:
    one = videos.make(tmp_path / "a.ts", codec="libx264", frames=14, options={"bf": "2"})
    two = videos.make(tmp_path / "b.ts", codec="libx264", frames=20, options={"bf": "2"})
    lumas = [*videos.read(one).luma, *videos.read(two).luma, *videos.read(one).luma]
    with open_source(joined(tmp_path / "in.ts", one, two, one)) as source:
        frames = list(source)
        assert not source.damage
        assert len(source.notes) == 1
        assert "falls back 2 times" in source.notes[0]
    assert [frame.seconds for frame in frames] == pytest.approx([k / 25 for k in range(48)])
    for frame, luma in zip(frames, lumas, strict=True):
        np.testing.assert_array_equal(frame.planes[0], luma)


def test_a_clock_that_wraps_goes_on(tmp_path: Path) -> None:
    """MPEG-TS counts 33 bits: every 26.5 hours it begins anew."""
    plain = videos.make(tmp_path / "plain.ts", codec="libx264", frames=40)
    path = tmp_path / "in.ts"
    with av.open(str(plain)) as given, av.open(str(path), "w", options={"copyts": "1"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                moved = (1 << 33) - 20 * 3600 - 126_000
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = stream
                out.mux(packet)
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
        assert not source.damage
    assert np.diff(seconds) == pytest.approx(0.04)
    assert len(seconds) == 40


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.one_of(st.none(), st.integers(-(10**6), 10**10)), max_size=30),
    durations=st.lists(st.integers(0, 5000), min_size=30, max_size=30),
    step=st.integers(1, 4000),
    counting=st.booleans(),
)
def test_times_strictly_increase_whatever_a_file_says(
    times: list[int | None], durations: list[int], step: int, counting: bool
) -> None:
    clock = Clock(start=0, step=step, counting=counting)
    for time in times[::2]:
        clock.sent(time)
    found = [clock.time(time, duration) for time, duration in zip(times, durations, strict=False)]
    assert all(b > a for (a, _), (b, _) in pairwise(found))
    assert all(duration >= 1 for _, duration in found)


@given(times=st.lists(st.integers(-1000, 10**6), min_size=1, max_size=30, unique=True))
def test_times_in_order_stand_as_they_are(times: list[int]) -> None:
    clock = Clock(start=100, step=40)
    for time in sorted(times):
        assert clock.time(time, 0)[0] == time - 100
    assert not clock.repairs()


def test_a_time_that_comes_twice_is_moved_by_a_tick() -> None:
    clock = Clock(start=0, step=40)
    assert [clock.time(t, 40)[0] for t in (0, 40, 40, 80, None, 160)] == [0, 40, 41, 80, 120, 160]
    assert clock.repairs() == (
        "1 frame was timed before the frame before: shown a moment after it instead",
    )


def test_a_file_goes_back_to_its_own_times_where_they_are_later_again() -> None:
    clock = Clock(start=0, step=40)
    assert [clock.time(t, 40)[0] for t in (1000, 0, 40, 2000, 2040)] == [1000, 1040, 1080, 2000, 2040]
    assert "falls back once" in clock.repairs()[0]


@pytest.mark.parametrize("how", ["auto", "force"])
def test_a_size_that_changes_in_mid_stream(how: Deinterlace, tmp_path: Path) -> None:
    kinds = [
        ((64, 48), "yuv420p"),
        ((98, 62), "yuv420p"),
        ((98, 62), "yuv422p10le"),
        ((64, 48), "yuv420p"),
    ]
    parts = [
        videos.make(tmp_path / f"{i}.ts", codec="libx264", frames=12, size=size, pix_fmt=pix_fmt)
        for i, (size, pix_fmt) in enumerate(kinds)
    ]
    expected = [luma for part in parts for luma in videos.read(part).luma]
    with open_source(joined(tmp_path / "in.ts", *parts), deinterlace=how) as source:
        frames = list(source)
        assert (source.info.width, source.info.height) == (64, 48)
        assert not source.damage
    assert len(frames) == 48
    assert [frame.seconds for frame in frames] == pytest.approx([k / 25 for k in range(48)])
    for frame, luma in zip(frames, expected, strict=True):
        assert frame.planes[0].shape == luma.shape
        if how == "auto":
            np.testing.assert_array_equal(frame.planes[0], luma)
        else:
            np.testing.assert_array_equal(frame.planes[0][::2], luma[::2])
        width, height = frame.format.chroma_size(frame.width, frame.height)
        assert frame.planes[1].shape == (height, width)


def test_colour_tags_that_change_in_mid_stream(tmp_path: Path) -> None:
    tags = [("bt709", "off"), ("smpte170m", "on")]
    said = "colormatrix={0}:colorprim={0}:transfer={0}:fullrange={1}"
    parts = [
        videos.make(
            tmp_path / f"{tag[0]}.ts", codec="libx264", frames=4,
            options={"x264-params": said.format(*tag)},
        )
        for tag in tags
    ]  # fmt: skip
    with open_source(joined(tmp_path / "in.ts", *parts)) as source:
        colours = [frame.colour for frame in source]
        assert source.info.colour == colours[0]
    assert [(c.matrix, c.range, c.primaries, c.transfer) for c in colours] == [
        *[("bt709", "limited", 1, 1)] * 4,
        *[("bt601", "full", 6, 6)] * 4,
    ]


def test_an_edit_list_cuts_the_beginning_and_is_no_damage(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mp4", codec="libx264", frames=30, options={"bf": "0", "g": "30"})
    whole = videos.read(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 16
    (begin,) = struct.unpack_from(">i", data, at)
    struct.pack_into(">i", data, at, begin + 10 * 512)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.time_base == Fraction(1, 12800)
        assert not source.damage
    # Nine of the ten are before a key frame: they are not even read.
    assert len(frames) == 20
    assert [frame.seconds for frame in frames] == pytest.approx([k / 25 for k in range(20)])
    for frame, luma in zip(frames, whole.luma[10:], strict=True):
        np.testing.assert_array_equal(frame.planes[0], luma)


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_what_was_looked_at_before_is_not_lost(suffix: str, tmp_path: Path) -> None:
    path = videos.make(tmp_path / f"in{suffix}", codec="mpeg2video", frames=25)
    expected = videos.read(path).luma
    with open_source(path) as source:
        for frame, luma in zip(source, expected, strict=True):
            np.testing.assert_array_equal(frame.planes[0], luma)


def test_one_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=1)
    with open_source(path) as source:
        assert len(list(source)) == 1
        assert not source.damage
        assert source.end is not None
        assert source.end > 0


@pytest.mark.parametrize("cut", [300, 1500, 6000])
def test_a_cut_avi_is_damage_to_the_frame(cut: int, tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.avi", frames=20)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"idx1") - cut])
    with open_source(path) as source:
        came = len(list(source))
        assert 0 < came < 20
        assert source.damage.lost == 20 - came


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".ts", "mpeg2video"), (".avi", "mpeg4"), (".mkv", "ffv1"), (".y4m", "")],
)
@pytest.mark.parametrize("how", ["auto", "fields"])
def test_broken_files_give_frames_in_order_or_a_reason(
    suffix: str, codec: str, how: Deinterlace, tmp_path: Path
) -> None:
    whole = videos.make(
        tmp_path / f"in{suffix}", codec=codec or "wrapped_avframe", frames=10, options={}
    ).read_bytes()
    draw = random.Random(f"{suffix}{how}")
    path = tmp_path / f"broken{suffix}"
    opened = 0
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 30)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data[: draw.randrange(len(data) // 2, len(data) + 1)])
        with suppress(SourceError), open_source(path, deinterlace=how) as source:
            times = [frame.pts for frame in islice(source, 100)]
            assert all(b > a for a, b in pairwise(times))
            opened += 1
    assert opened or suffix == ".mp4"  # whose index is at the end: cut, it is refused
