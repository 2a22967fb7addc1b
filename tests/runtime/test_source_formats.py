"""Pixel formats without a lost bit, opacity, HDR metadata, and what cannot be decoded."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.format import names
from velatura.runtime import SourceError, open_source
from velatura.runtime.frame import Hdr, PixelFormat
from velatura.runtime.media.pixel_format import read_planes, reading_of

from . import videos

WIDTH, HEIGHT = 62, 41

UNREADABLE = {
    "bgr4",
    "rgb4",
    "v30xbe",
    "xv30be",
    "x2bgr10be",
    "x2rgb10be",
    "y210be",
    "y212be",
    "y216be",
}
"""What FFmpeg's scaler does not read, beside samples of 32 bits; no decoder of its own gives them."""
UNWRITTEN = {"uyyvyy411"}
"""What it reads only."""


def samples(frame: av.VideoFrame, index: int, count: int = 1) -> np.ndarray:
    """(H, W * count): one plane, without the padding."""
    plane = frame.planes[index]
    deep = max(part.bits for part in frame.format.components) > 8
    rows = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)
    return rows[:, : plane.width * count] >> raised(frame)


def raised(frame: av.VideoFrame) -> int:
    """By how many bits samples stand above their place."""
    return 16 - frame.format.components[0].bits if "msb" in frame.format.name else 0


def noise(name: str, seed: int = 1) -> av.VideoFrame:
    """A frame of one of FFmpeg's planar or plainly packed formats, every sample random."""
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(WIDTH, HEIGHT, name)
    bits = max(part.bits for part in frame.format.components)
    for plane in frame.planes:
        size = plane.buffer_size // (1 if bits == 8 else 2)
        values = rng.integers(0, 1 << bits, size).astype(np.uint8 if bits == 8 else "<u2")
        plane.update((values << raised(frame)).tobytes())
    return frame


def made_of(name: str) -> list[str]:
    """The formats that are read by way of this one and lose nothing on the way to them and back."""
    found: list[str] = []
    for other in sorted(names):
        format = av.VideoFormat(other)
        if not format.components or format.is_bayer or format.has_palette:
            continue
        # XYZ is another space, 4:1:0 has less chroma, and these names change the range with them.
        if other.startswith(("xyz", "yuvj", "yuv410")):
            continue
        layout = reading_of(other)
        same = max(part.bits for part in format.components) == max(
            part.bits for part in av.VideoFormat(name).components
        )
        if layout.name == name and same and not layout.lossy and other not in UNREADABLE | UNWRITTEN:
            found.append(other)
    return found


PLANAR = sorted({reading_of(name).name for name in names if av.VideoFormat(name).components})
KIN = {name: made_of(name) for name in PLANAR}


@pytest.mark.parametrize("name", PLANAR)
@pytest.mark.parametrize("said", [0, 1, 2])
def test_no_format_loses_a_bit(name: str, said: int) -> None:
    """Samples known in one format are the same when they are read from all others of its kind."""
    frame = noise(name)
    frame.color_range = said
    planes, alpha, layout = read_planes(frame)
    bits = layout.format.bits
    count = len(frame.format.components)
    if layout.way == "planes":
        for index, plane in enumerate(planes):
            np.testing.assert_array_equal(plane, samples(frame, index))
        if alpha is not None:
            np.testing.assert_array_equal(alpha, samples(frame, count - 1))
    elif layout.way == "packed":
        given = samples(frame, 0, count).reshape(HEIGHT, WIDTH, count)
        np.testing.assert_array_equal(
            planes[0].reshape(HEIGHT, WIDTH, -1), given[..., : count - layout.alpha]
        )
        if alpha is not None:
            np.testing.assert_array_equal(alpha, given[..., -1])
    else:
        peak = (1 << frame.format.components[0].bits) - 1
        for index, colour in ((2, 0), (0, 1), (1, 2)):
            exact = samples(frame, index) * (layout.format.peak / peak)
            assert np.abs(planes[0][..., colour] - exact).max() <= 0.5
        if alpha is not None:
            assert np.abs(alpha - samples(frame, 3) * (layout.format.peak / peak)).max() <= 0.5
    assert (alpha is None) != layout.alpha
    assert bits in (8, 9, 10, 12, 14, 16)
    for other in KIN[name]:
        again, opacity, _ = read_planes(frame.reformat(format=other))
        for one, two in zip(planes, again, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=f"{other} by way of {name}")
        if alpha is not None:
            np.testing.assert_array_equal(alpha, opacity)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p010le", PixelFormat("yuv", 10, (2, 2))), ("p012be", PixelFormat("yuv", 12, (2, 2))),
        ("p210le", PixelFormat("yuv", 10, (2, 1))), ("p416le", PixelFormat("yuv", 16)),
        ("nv16", PixelFormat("yuv", 8, (2, 1))), ("yuyv422", PixelFormat("yuv", 8, (2, 1))),
        ("uyvy422", PixelFormat("yuv", 8, (2, 1))), ("yuv440p12be", PixelFormat("yuv", 12, (1, 2))),
        ("yuvj411p", PixelFormat("yuv", 8, (4, 1))), ("uyyvyy411", PixelFormat("yuv", 8, (4, 1))),
        ("yuv410p", PixelFormat("yuv", 8, (2, 2))), ("yuv420p14be", PixelFormat("yuv", 14, (2, 2))),
        ("gray14be", PixelFormat("gray", 14)), ("monow", PixelFormat("gray")),
        ("pal8", PixelFormat("rgb")), ("gbrp9le", PixelFormat("rgb", 16)),
        ("x2rgb10le", PixelFormat("rgb", 16)), ("rgb565le", PixelFormat("rgb")),
        ("bayer_rggb16le", PixelFormat("rgb", 16)), ("gbrpf32le", PixelFormat("rgb", 16)),
        ("ayuv64le", PixelFormat("yuv", 16)), ("grayf32le", PixelFormat("gray", 16)),
    ],
)  # fmt: skip
def test_the_layout_is_the_nearest(name: str, expected: PixelFormat) -> None:
    layout = reading_of(name)
    assert layout.format == expected
    assert layout.alpha == (name in ("pal8", "ayuv64le"))
    assert layout.lossy == ("f32" in name)
    planes, _, _ = read_planes(av.VideoFrame(WIDTH, HEIGHT, name))
    assert tuple(plane.shape for plane in planes) == expected.plane_shapes(WIDTH, HEIGHT)


def test_odd_semi_planar_frames_are_read_right() -> None:
    rng = np.random.default_rng(2)
    frame = av.VideoFrame(63, 41, "p010le")
    given = []
    for plane in frame.planes:
        values = rng.integers(0, 1024, plane.buffer_size // 2).astype(np.uint16)
        plane.update((values << 6).tobytes())
        given.append(values.reshape(plane.height, -1))
    planes, _, _ = read_planes(frame)
    np.testing.assert_array_equal(planes[0], given[0][:, :63])
    np.testing.assert_array_equal(planes[1], given[1][:, 0:64:2])
    np.testing.assert_array_equal(planes[2], given[1][:, 1:64:2])


def test_white_is_white_in_every_depth_of_rgb() -> None:
    for name in ("rgb24", "gbrp9le", "gbrp10le", "gbrp12le", "gbrp14le", "gbrp16le", "rgb48be"):
        frame = av.VideoFrame(8, 8, name)
        bits = frame.format.components[0].bits
        kind = "u1" if bits == 8 else ">u2" if name.endswith("be") else "<u2"
        for plane in frame.planes:
            whole = np.full(plane.buffer_size // np.dtype(kind).itemsize, (1 << bits) - 1, kind)
            plane.update(whole.tobytes())
        planes, _, layout = read_planes(frame)
        assert int(planes[0].min()) == layout.format.peak, name


def test_pixels_that_nothing_converts_are_refused() -> None:
    with pytest.raises(
        SourceError, match="format gray32le cannot be read; convert the video to gray16le"
    ):
        read_planes(av.VideoFrame(8, 8, "gray32le"))


def with_opacity(path: Path, codec: str, pix_fmt: str, **options: str) -> tuple[Path, np.ndarray]:
    """A film whose left half is see-through in steps; and the opacity in 8 bits."""
    opacity = np.full((48, 64), 255, np.uint8)
    opacity[:, :32] = np.arange(32, dtype=np.uint8) * 8
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 64, 48, pix_fmt
        for index in range(5):
            pixels = np.dstack([videos.drawing((64, 48), index), opacity])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path, opacity


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "bits"),
    [
        ("ffv1", "yuva420p", ".mkv", 8),
        ("ffv1", "yuva422p10le", ".mkv", 10),
        ("ffv1", "bgra", ".mkv", 8),
        ("ffv1", "gbrap12le", ".mkv", 16),
        ("ffv1", "ya8", ".mkv", 8),
        ("png", "rgba", ".mov", 8),
        ("qtrle", "argb", ".mov", 8),
        ("prores_ks", "yuva444p10le", ".mov", 12),
    ],
)
def test_opacity_comes_with_the_frames(
    codec: str, pix_fmt: str, suffix: str, bits: int, tmp_path: Path
) -> None:
    path, opacity = with_opacity(tmp_path / f"in{suffix}", codec, pix_fmt)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.alpha
        assert source.info.format.bits == bits
        assert not any("transparen" in note for note in source.info.notes)
    assert len(frames) == 5
    for frame in frames:
        assert frame.alpha is not None
        assert frame.alpha.dtype == frame.format.dtype
        found = frame.alpha.astype(float) * (255 / frame.format.peak)
        assert np.abs(found - opacity).max() <= 1.01  # FFmpeg's way there rounds


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_opacity_of_webm_is_decoded(codec: str, tmp_path: Path) -> None:
    """FFmpeg's own decoders of these give the picture only."""
    path, opacity = with_opacity(
        tmp_path / "in.webm", codec, "yuva420p", **{"b": "4M", "auto-alt-ref": "0"}
    )
    with open_source(path) as source:
        frames = list(source)
        assert source.info.alpha
        assert not source.damage
        assert not any("transparen" in note for note in source.info.notes)
    assert len(frames) == 5
    plain = videos.read(path)
    assert [f.seconds for f in frames] == pytest.approx(plain.seconds)
    for frame, luma in zip(frames, plain.luma, strict=True):
        assert frame.alpha is not None
        assert np.abs(frame.alpha.astype(int) - opacity).mean() < 4
        np.testing.assert_array_equal(frame.planes[0], luma)


def test_opaque_video_has_none(tmp_path: Path) -> None:
    with open_source(videos.make(tmp_path / "in.mkv", frames=2)) as source:
        assert not source.info.alpha
        assert all(frame.alpha is None for frame in source)


def test_hdr_metadata_of_hevc(tmp_path: Path) -> None:
    parameters = (
        "hdr10=1:log-level=error:max-cll=1000,400:master-display="
        "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    )
    path = videos.make(
        tmp_path / "in.mkv", codec="libx265", pix_fmt="yuv420p10le", frames=3,
        options={"x265-params": parameters},
    )  # fmt: skip
    with open_source(path) as source:
        assert len(list(source)) == 3
        unit = 50_000
        assert source.info.hdr == Hdr(
            red=(Fraction(34000, unit), Fraction(16000, unit)),
            green=(Fraction(13250, unit), Fraction(34500, unit)),
            blue=(Fraction(7500, unit), Fraction(3000, unit)),
            white=(Fraction(15635, unit), Fraction(16450, unit)),
            luminance=(Fraction(50, 10_000), Fraction(1000)),
            max_cll=1000,
            max_fall=400,
        )


def test_light_without_a_display(tmp_path: Path) -> None:
    path = videos.make(
        tmp_path / "in.mkv", codec="libx265", pix_fmt="yuv420p10le", frames=3,
        options={"x265-params": "log-level=error:max-cll=600,200"},
    )  # fmt: skip
    with open_source(path) as source:
        assert source.info.hdr == Hdr(max_cll=600, max_fall=200)


def test_no_hdr_where_none_is_stated(own_clips: Path) -> None:
    with open_source(own_clips / "ten_bits.mp4") as source:
        assert source.info.hdr is None


def test_dynamic_metadata_is_said_to_be_left_out(tmp_path: Path) -> None:
    """HDR10+ as SMPTE ST 2094-40 has it, in a message before each picture."""
    plain = videos.make(
        tmp_path / "plain.hevc", codec="libx265", pix_fmt="yuv420p10le", frames=3,
        options={"x265-params": "log-level=error:repeat-headers=1"},
    )  # fmt: skip
    bits = "".join(
        f"{value:0{size}b}"
        for value, size in (
            (4, 8), (1, 8), (1, 2), (400, 27), (0, 1),  # application, version, windows, target
            (5000, 17), (5000, 17), (5000, 17), (900, 17), (0, 4), (0, 10),  # maxscl, average
            (0, 1), (0, 1), (0, 1),
        )
    )  # fmt: skip
    bits += "0" * (-len(bits) % 8)
    body = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    payload = b"\xb5\x00\x3c\x00\x01" + body
    message = bytes([4, len(payload)]) + payload + b"\x80"
    escaped = message.replace(b"\x00\x00\x01", b"\x00\x00\x03\x01").replace(
        b"\x00\x00\x00", b"\x00\x00\x03\x00"
    )
    unit = b"\x00\x00\x00\x01\x4e\x01" + escaped
    path = tmp_path / "in.hevc"
    with av.open(str(plain)) as given, path.open("wb") as out:
        for packet in given.demux():
            data = bytes(packet)
            # Before the first slice, after the parameter sets.
            at = next(
                (i - (data[i - 1] == 0) for i in range(len(data) - 4)
                 if data[i : i + 3] == b"\x00\x00\x01" and (data[i + 3] >> 1) < 32), 0
            )  # fmt: skip
            out.write(data[:at] + unit + data[at:] if data else b"")
    with open_source(plain) as source:
        assert not any("HDR10+" in note for note in source.info.notes)
    with open_source(path) as source:
        assert any("HDR10+ metadata is left out" in note for note in source.info.notes)
        assert len(list(source)) == 3


@pytest.mark.parametrize(
    ("suffix", "old", "new", "name"),
    [
        (".mkv", b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/AVC", ""),
        (".avi", b"H264", b"ZQ4X", " (ZQ4X)"),
        (".mp4", b"avc1", b"evc1", " (evc, evc1)"),
    ],
)
def test_a_codec_without_a_decoder_is_named(
    suffix: str, old: bytes, new: bytes, name: str, tmp_path: Path
) -> None:
    path = videos.make(tmp_path / f"in{suffix}", codec="libx264", frames=3)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    words = f"there is no decoder for its video{name}; convert it to H.264 or FFV1"
    with pytest.raises(SourceError, match=re.escape(words)):
        open_source(path)
