"""Sources on real clips and on files made for the purpose."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.runtime import SourceError, open_source
from velatura.runtime.frame import PixelFormat

from . import videos

INTACT = [
    "crystal.mp4", "rabbit320.mp4", "bigbuckbunny.mp4", "shooter_gameplay.mp4", "edge/SAR-2by3.mp4",
    "edge/bitmap.mp4", "edge/bt709_full_range.mp4", "edge/fire2.mp4", "edge/h264-png.mp4",
    "edge/h264_10bits.mp4", "edge/mov_text.mp4", "edge/no_duration.webm",
    "edge/testsrc_with_attachment.mkv", "edge/video_with_failing_audio.mp4", "edge/webvtt.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", INTACT)
def test_real_clips_give_every_frame_as_pyav_does(clips: Path, name: str) -> None:
    expected = videos.read(clips / name)
    with open_source(clips / name) as source:
        frames = [(f.seconds, f.planes[0].copy(), f.rotation, f.index) for f in source]
        assert not source.damage, source.damage
        start = source.info.start
    assert [index for *_, index in frames] == list(range(len(frames)))
    assert [s for s, *_ in frames] == pytest.approx([s - start for s in expected.seconds], abs=1e-6)
    for (_, found, *_), luma in zip(frames[::10], expected.luma[::10], strict=True):
        np.testing.assert_array_equal(found, luma)
    assert frames[0][2] % 360 == expected.rotation % 360


def test_what_a_clip_says_about_itself(clips: Path) -> None:
    with open_source(clips / "edge/SAR-2by3.mp4") as source:
        assert source.info.aspect == Fraction(2, 3)
        assert source.info.audio == ("aac",)
    with open_source(clips / "edge/bt709_full_range.mp4") as source:
        colour = source.info.colour
        assert (colour.matrix, colour.range, colour.primaries) == ("bt709", "full", 1)
        assert not source.info.notes
    with open_source(clips / "edge/h264_10bits.mp4") as source:
        assert source.info.format == PixelFormat("yuv", 10, (2, 2))
    with open_source(clips / "edge/h264-png.mp4") as source:
        assert (source.info.codec, source.info.width) == ("h264", 640), "not the cover picture"
    with open_source(clips / "edge/mov_text.mp4") as source:
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
        pytest.skip("H.264 4:2:0 has no odd sizes")
    path = videos.make(tmp_path / f"clip{suffix}", codec=codec, pix_fmt=pix_fmt, size=size, frames=4)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.format == expected
        assert any("transparency" in note for note in source.info.notes) == (
            pix_fmt in ("yuva420p",) or codec == "gif"
        )
    assert len(frames) == 4
    assert all((f.width, f.height, f.format) == (*size, expected) for f in frames)
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
