"""Encoders by name: qualities, options, depths, opacity, GIF, and what is refused before work."""

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from velatura.runtime import Encoding, Frame, Pump, SinkError, open_sink, open_source
from velatura.runtime.backends.precision_choice import psnr
from velatura.runtime.frame import Array, Colour, Hdr, PixelFormat, VideoInfo
from velatura.runtime.media import codecs
from velatura.runtime.media.codecs import Codec, encoder_of, merged
from velatura.runtime.media.encode import Coding, VideoEncoder
from velatura.runtime.media.matroska import state
from velatura.runtime.media.pixel_format import fill, in_depth, layout_of, picture_of
from velatura.runtime.media.timestamps import Clock
from velatura.runtime.sinks import segmented_file, why_no_journal

from . import videos

SIZE = (64, 48)
QUALITIES: Any = ("draft", "good", "archive")


@dataclass
class Given:
    """A source of frames made here."""

    info: VideoInfo
    frames: list[Frame]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)


def given(
    format: PixelFormat,
    *,
    alpha: bool = False,
    size: tuple[int, int] = SIZE,
    count: int = 3,
    colour: Colour | None = None,
    times: Sequence[int] | None = None,
    **info: Any,
) -> Given:
    """Noise in all planes, in the whole of the depth."""
    width, height = size
    frames: list[Frame] = []
    colour = colour or Colour(matrix="bt601")
    for index in range(count):
        rng = np.random.default_rng(index)
        planes = tuple(
            rng.integers(0, format.peak + 1, shape).astype(format.dtype)
            for shape in format.plane_shapes(width, height)
        )
        opacity: Array | None = None
        if alpha:
            opacity = rng.integers(0, format.peak + 1, (height, width)).astype(format.dtype)
        frames.append(
            Frame(
                planes=planes,
                format=format,
                pts=(times or range(0, 40 * count, 40))[index],
                time_base=Fraction(1, 1000),
                colour=colour,
                index=index,
                alpha=opacity,
            )
        )
    about = VideoInfo(
        width=width,
        height=height,
        format=format,
        rate=Fraction(25),
        time_base=Fraction(1, 1000),
        colour=colour,
        alpha=alpha,
        **info,
    )
    return Given(about, frames)


def write(source: Given, target: Path, encoding: Encoding) -> tuple[str, ...]:
    """The notes said before the first frame."""
    with open_sink(target, like=source, encoding=encoding, overwrite=True) as sink:
        before = sink.notes
        for frame in source:
            sink.write(frame)
    return before


def decoded(path: Path, decoder: str | None = None) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if decoder is None:
            return list(container.decode(stream))
        context = av.CodecContext.create(decoder, "r")
        return [f for packet in container.demux(stream) for f in context.decode(packet)]


def samples(frame: av.VideoFrame, index: int) -> np.ndarray:
    return videos.plane(frame, index)


YUV = {
    f"yuv{name} {bits}": PixelFormat("yuv", bits, subsample)
    for name, subsample in (("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1)))
    for bits in (8, 9, 10, 12, 14, 16)
}
LOSSLESS = {
    "ffv1": Encoding(codec="ffv1"),
    "hevc": Encoding(codec="hevc", options=(("x265-params", "lossless=1"),)),
    "h264": Encoding(codec="h264", options=(("qp", "0"),)),
}
MOST_BITS = {"ffv1": 16, "hevc": 12, "h264": 10}


@pytest.mark.quick_rows(18)
@pytest.mark.parametrize("codec", LOSSLESS)
@pytest.mark.parametrize("name", YUV)
def test_every_depth_and_layout_is_kept_exactly_where_the_encoder_has_it(
    codec: str, name: str, tmp_path: Path
) -> None:
    format = YUV[name]
    source = given(format)
    notes = write(source, tmp_path / "o.mkv", LOSSLESS[codec])
    found = decoded(tmp_path / "o.mkv")
    got = layout_of(found[0].format.name)
    assert got is not None
    assert got.format.subsample == format.subsample
    if format.bits > MOST_BITS[codec]:
        assert got.format.bits == MOST_BITS[codec]
        assert [note for note in notes if f"{format.bits} bit becomes {got.format.bits} bit" in note]
        return
    assert not notes
    assert got.format.bits >= format.bits
    up = got.format.bits - format.bits
    assert up <= 1
    for frame, picture in zip(source, found, strict=True):
        for index in range(3):
            np.testing.assert_array_equal(samples(picture, index), frame.planes[index] << up)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("quality", ["good", "archive"])
@pytest.mark.parametrize("alpha", [False, True])
def test_rgb_stays_exact_in_ffv1(bits: int, quality: Any, alpha: bool, tmp_path: Path) -> None:
    source = given(PixelFormat("rgb", bits), alpha=alpha)
    assert not write(source, tmp_path / "o.mkv", Encoding(codec="ffv1", quality=quality))
    for frame, picture in zip(source, decoded(tmp_path / "o.mkv"), strict=True):
        assert picture.format.is_rgb
        name = {(8, False): "rgb24", (8, True): "rgba", (16, False): "gbrp16le"}.get((bits, alpha))
        if bits == 8:
            pixels = picture.to_ndarray(format=name)
            red, opacity = pixels[..., :3], pixels[..., 3:]
        else:
            order = (2, 0, 1)  # planes of GBR
            red = np.stack([samples(picture, index) for index in order], axis=-1)
            opacity = samples(picture, 3)[..., None] if alpha else red[..., :0]
        np.testing.assert_array_equal(red, frame.planes[0])
        if alpha:
            np.testing.assert_array_equal(opacity[..., 0], frame.alpha)


def test_rgb_becomes_420_elsewhere_and_444_on_request(tmp_path: Path) -> None:
    source = given(PixelFormat("rgb"))
    notes = write(source, tmp_path / "o.mp4", Encoding())
    assert any("RGB becomes 4:2:0" in note for note in notes)
    assert decoded(tmp_path / "o.mp4")[0].format.name == "yuv420p"
    assert not write(source, tmp_path / "o.mp4", Encoding(pix_fmt="yuv444p"))
    assert decoded(tmp_path / "o.mp4")[0].format.name == "yuv444p"
    write(source, tmp_path / "o.mp4", Encoding(codec="hevc", pix_fmt="gbrp"))
    assert decoded(tmp_path / "o.mp4")[0].format.name == "gbrp"


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", ".mp4"), ("hevc", ".mp4"), ("ffv1", ".mkv"), ("vp9", ".webm"), ("av1", ".mp4"),
     ("prores", ".mov")],
)  # fmt: skip
def test_grey_has_no_colour(codec: str, suffix: str, tmp_path: Path) -> None:
    source = given(PixelFormat("gray"), size=(128, 96))
    assert not write(source, tmp_path / f"o{suffix}", Encoding(codec=codec))
    picture = decoded(tmp_path / f"o{suffix}")[0]
    if codec in ("hevc", "ffv1"):
        assert picture.format.name == "gray"
        return
    neutral = 1 << (max(c.bits for c in picture.format.components) - 1)
    assert np.abs(samples(picture, 1).astype(int) - neutral).max() <= neutral // 64


ALPHA = [
    ("ffv1", ".mkv", None),
    ("prores", ".mov", None),
    ("vp9", ".webm", "libvpx-vp9"),
    ("vp9", ".mkv", "libvpx-vp9"),
]


@pytest.mark.parametrize(("codec", "suffix", "decoder"), ALPHA)
@pytest.mark.parametrize("bits", [8, 10])
def test_opacity_is_kept(
    codec: str, suffix: str, decoder: str | None, bits: int, tmp_path: Path
) -> None:
    source = given(PixelFormat("yuv", bits, (2, 2)), alpha=True)
    # Something that a lossy encoder keeps.
    slope = np.linspace(0, (1 << bits) - 1, SIZE[0]).astype(np.uint16 if bits > 8 else np.uint8)
    flat = [replace(f, alpha=np.tile(slope, (SIZE[1], 1))) for f in source]
    notes = write(Given(source.info, flat), tmp_path / f"o{suffix}", Encoding(codec=codec))
    assert not [note for note in notes if "opacity" in note]
    picture = decoded(tmp_path / f"o{suffix}", decoder)[0]
    depth = max(c.bits for c in picture.format.components)
    assert any(c.is_alpha for c in picture.format.components)
    error = samples(picture, 3) / ((1 << depth) - 1) - slope / ((1 << bits) - 1)
    assert np.abs(error).max() < (1e-6 if codec == "ffv1" else 0.05)


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("hevc", ".mkv"), ("av1", ".mkv"),
                                               ("vp9", ".mp4"), ("gif", ".gif")])  # fmt: skip
def test_opacity_that_is_left_out_is_said(codec: str, suffix: str, tmp_path: Path) -> None:
    source = given(PixelFormat("yuv", 8, (2, 2)), alpha=True)
    notes = write(source, tmp_path / f"o{suffix}", Encoding(codec=codec))
    assert sum("the opacity is left out: --codec ffv1" in note for note in notes) == 1
    assert len(decoded(tmp_path / f"o{suffix}")) == 3


def test_a_pixel_format_without_opacity_drops_it(tmp_path: Path) -> None:
    source = given(PixelFormat("yuv", 8, (2, 2)), alpha=True)
    encoding = Encoding(codec="ffv1", pix_fmt="yuv420p")
    assert any("opacity" in note for note in write(source, tmp_path / "o.mkv", encoding))
    assert decoded(tmp_path / "o.mkv")[0].format.name == "yuv420p"


def test_webm_says_that_there_is_opacity(tmp_path: Path) -> None:
    write(given(PixelFormat("yuv", 8, (2, 2)), alpha=True), tmp_path / "o.webm", Encoding())
    with av.open(str(tmp_path / "o.webm")) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"


@pytest.mark.parametrize(
    ("codec", "suffix", "encoder"),
    [("auto", ".mp4", "libx264"), ("auto", ".webm", "libvpx-vp9"), ("auto", ".gif", "gif"),
     ("auto", ".WEBM", "libvpx-vp9"), ("auto", ".y4m", "rawvideo"), ("auto", ".ts", "libx264"),
     ("prores", ".mov", "prores_ks"), ("hevc_nvenc", ".mp4", "hevc_nvenc"), ("dnxhd", ".mov", "dnxhd")],
)  # fmt: skip
def test_the_kind_of_file_chooses(codec: str, suffix: str, encoder: str) -> None:
    assert encoder_of(Encoding(codec=codec), suffix) == encoder


def film(tmp_path: Path, size: tuple[int, int] = (320, 240), frames: int = 12) -> Path:
    """Something like a picture: smooth, with noise that the eye does not miss."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        y, x = np.mgrid[: size[1], : size[0]]
        for index in range(frames):
            wave = 128 + 60 * np.sin((x + 4 * index) / 23) + 30 * np.cos((y - 3 * index) / 17)
            noise = np.random.default_rng(index).normal(0, 4, wave.shape)
            picture = np.clip(wave + noise, 16, 235).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.dstack([picture] * 3), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize(
    ("codec", "suffix", "near_lossless"),
    [("h264", ".mp4", 46), ("hevc", ".mp4", 46), ("av1", ".mp4", 44), ("vp9", ".webm", 44)],
)
def test_a_better_quality_is_nearer_and_larger(
    codec: str, suffix: str, near_lossless: float, tmp_path: Path
) -> None:
    source = film(tmp_path)
    before = np.stack(videos.read(source).luma)
    sizes: list[int] = []
    likeness: list[float] = []
    for quality in QUALITIES:
        target = tmp_path / f"{quality}{suffix}"
        with (
            open_source(source) as given,
            open_sink(target, like=given, encoding=Encoding(codec=codec, quality=quality)) as sink,
        ):
            Pump(given, [], sink).run()
        sizes.append(target.stat().st_size)
        likeness.append(psnr(before, np.stack(videos.read(target).luma)))
    assert sizes[0] < sizes[1] < sizes[2]
    assert likeness[0] < likeness[1] < likeness[2]
    assert likeness[2] > near_lossless


@pytest.mark.parametrize(
    ("format", "quality", "preset", "profile"),
    [("422", "draft", None, "apcs"), ("422", "good", None, "apcn"), ("422", "archive", None, "apch"),
     ("444", "good", None, "ap4h"), ("444", "archive", None, "ap4x"), ("422", "good", "proxy", "apco"),
     ("444", "good", "hq", "apch"), ("422", "good", "4444", "ap4h")],
)  # fmt: skip
def test_prores_has_profiles(
    format: str, quality: Any, preset: str | None, profile: str, tmp_path: Path
) -> None:
    source = given(YUV[f"yuv{format} 10"])
    encoding = Encoding(codec="prores", quality=quality, preset=preset)
    write(source, tmp_path / "o.mov", encoding)
    with av.open(str(tmp_path / "o.mov")) as container:
        assert container.streams.video[0].codec_context.codec_tag == profile


# ---------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("encoding", "suffix", "complaint"),
    [
        (Encoding(codec="h265000"), ".mp4", "there are: auto, h264, hevc, av1, vp9, ffv1, prores, gif"),
        (Encoding(options=(("crff", "20"),)), ".mp4", "no option 'crff'; near are: .*crf"),
        (Encoding(options=(("crff", "20"),)), ".mp4", "--enc x264-params=KEY=VALUE"),
        (Encoding(codec="hevc", options=(("x265-params", "foo=1"),)), ".mp4", "Unknown option: foo"),
        (Encoding(options=(("x264-params", "foo=1"),)), ".mp4", "does not know an option.*foo"),
        (Encoding(codec="av1", options=(("svtav1-params", "foo=1"),)), ".mp4", "option foo"),
        (Encoding(codec="av1", options=(("crf", "99"),)), ".mp4", "--enc crf=99: av1 takes 0 to 63"),
        (Encoding(options=(("tune", "grains"),)), ".mp4", "tune=grains: h264 takes film, animation"),
        (Encoding(crf=52), ".mp4", r"takes 0 \(best\) to 51 \(worst\)"),
        (Encoding(codec="av1", crf=64), ".mp4", "takes 0 .* to 63"),
        (Encoding(codec="av1", preset="slow"), ".mp4", "--preset slow: av1 takes -2 to 13"),
        (Encoding(codec="prores", crf=3), ".mov", "goes by profiles"),
        (Encoding(codec="prores", preset="best"), ".mov", "it takes proxy, lt, standard"),
        (Encoding(codec="ffv1", preset="slow"), ".mkv", "has no presets"),
        (Encoding(codec="mpeg4", crf=3), ".mp4", "takes no --crf"),
        (Encoding(codec="h264_nvenc"), ".mp4", "no NVIDIA GPU.*--codec h264 encodes without"),
        (Encoding(codec="hevc_nvenc", quality="archive"), ".mp4", "--codec hevc encodes without"),
        (Encoding(codec="av1_nvenc", crf=20, preset="p2"), ".mkv", "--codec av1 encodes without"),
        (Encoding(codec="av1"), ".ts", "so that it plays"),
        (Encoding(codec="h264"), ".gif", "cannot hold h264"),
        (Encoding(codec="rawvideo", pix_fmt="yuv444p"), ".avi", "so that it plays"),
        (Encoding(pix_fmt="yuv420p12le"), ".mp4", "does not take yuv420p12le; it takes yuv420p"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_work(
    encoding: Encoding, suffix: str, complaint: str, tmp_path: Path
) -> None:
    source = given(PixelFormat("yuv", 8, (2, 2)))
    with pytest.raises(SinkError, match=complaint):
        open_sink(tmp_path / f"o{suffix}", like=source, encoding=encoding)
    assert not list(tmp_path.iterdir())


def test_options_of_the_library_are_put_together() -> None:
    ours = {"x264-params": "asm=AVX2:threads=2", "crf": "18"}
    theirs = {"x264-params": "threads=4:bframes=0", "crf": "20"}
    assert merged("libx264", ours, theirs) == {
        "x264-params": "asm=AVX2:threads=4:bframes=0",
        "crf": "20",
    }


def test_an_option_reaches_the_encoder(tmp_path: Path) -> None:
    source = given(PixelFormat("yuv", 8, (2, 2)), count=12)
    write(source, tmp_path / "o.mp4", Encoding(options=(("g", "4"), ("x264-params", "scenecut=0"))))
    with av.open(str(tmp_path / "o.mp4")) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert sum(keys) == 3


# ---------------------------------------------------------------------------- times


VFR = [0, 40, 60, 200, 240, 500, 540, 580, 1000, 1040]


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("h264", ".mkv"), ("hevc", ".mp4"),
                                               ("av1", ".mp4"), ("vp9", ".mp4"), ("ffv1", ".mp4"),
                                               ("prores", ".mov")])  # fmt: skip
def test_every_frame_stands_until_the_next(codec: str, suffix: str, tmp_path: Path) -> None:
    """The last one as long as the rate says; a player shows none of no length."""
    source = given(PixelFormat("yuv", 8, (2, 2)), count=len(VFR), times=VFR)
    write(source, tmp_path / f"o{suffix}", Encoding(codec=codec))
    with av.open(str(tmp_path / f"o{suffix}")) as container:
        stream = container.streams.video[0]
        times = sorted(float(p.pts * p.time_base) for p in container.demux(stream) if p.size)
        total = (container.duration or 0) / av.time_base
    assert times == pytest.approx([ms / 1000 for ms in VFR], abs=0.0011)
    # FFmpeg reads the sum of the decoding times out of MP4; players go by what the header says.
    stated = total if suffix == ".mkv" else movie_seconds(tmp_path / f"o{suffix}")
    assert stated == pytest.approx(1.08, abs=2e-3)


def movie_seconds(path: Path) -> float:
    """The duration in an MP4 file's header."""
    data = path.read_bytes()
    place = data.index(b"mvhd")
    scale, duration = struct.unpack(">II", data[place + 16 : place + 24])
    return duration / scale


def test_the_clock_gives_lengths() -> None:
    clock, base = Clock(Fraction(25)), Fraction(1, 1000)
    pictures = [av.VideoFrame(16, 16, "yuv420p") for _ in range(4)]
    packets = []
    for number, (picture, pts) in enumerate(zip(pictures, (0, 40, 40, 120), strict=True)):
        clock.stamp(picture, pts, base)
        packet = av.Packet(b"x")
        packet.pts, packet.time_base = picture.pts, base
        ready = list(clock.timed([packet], end=False))
        assert len(ready) == (number > 0)
        packets += ready
    packets += clock.timed([], end=True)
    assert [p.pts for p in packets] == [0, 40, 41, 120]
    assert [p.duration for p in packets] == [40, 1, 79, 40]
    assert clock.duration == pytest.approx(0.16)


# ---------------------------------------------------------------------------- AVI


@pytest.mark.parametrize(("late", "part"), [("video", "picture"), ("audio", "sound")])
def test_avi_refuses_what_begins_late(late: str, part: str, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    plain = videos.make(tmp_path / "plain.mkv", tone=True, audio_codec="libmp3lame", frames=20)
    with av.open(str(plain)) as before, av.open(str(source), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in before.streams}
        for packet in before.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == late:
                packet.pts, packet.dts = packet.pts + 500, packet.dts + 500
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    with open_source(source) as given:
        with pytest.raises(SinkError, match=rf"the {part} of this source begins 0\.\d+ s late"):
            open_sink(tmp_path / "out.avi", like=given)
        open_sink(tmp_path / "out.mkv", like=given).abort()
    with open_source(plain) as given:
        open_sink(tmp_path / "out.avi", like=given).abort()


def test_avi_refuses_full_range_that_it_would_forget(tmp_path: Path) -> None:
    source = given(PixelFormat("yuv", 8, (2, 2)), colour=Colour(matrix="bt601", range="full"))
    with pytest.raises(SinkError, match="range limited instead of full"):
        open_sink(tmp_path / "o.avi", like=source, encoding=Encoding(codec="ffv1"))
    write(source, tmp_path / "o.avi", Encoding())  # H.264 says it itself
    assert int(decoded(tmp_path / "o.avi")[0].color_range) == 2


# ---------------------------------------------------------------------------- GIF


def test_a_gif_keeps_times_without_drift_and_loops(tmp_path: Path) -> None:
    target = tmp_path / "o.gif"
    times = [round(1000 * n / 30) for n in range(31)]
    write(given(PixelFormat("rgb"), count=31, times=times), target, Encoding())
    with av.open(str(target)) as container:
        found = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size]
    assert found == pytest.approx([ms / 1000 for ms in times], abs=0.0051)
    data = target.read_bytes()
    place = data.index(b"NETSCAPE2.0")
    assert data[place + 13 : place + 15] == b"\0\0"  # for ever


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_gif_looks_like_its_source(quality: Any, tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", pix_fmt="bgr0", frames=6)
    with (
        open_source(source) as given,
        open_sink(tmp_path / "o.gif", like=given, encoding=Encoding(quality=quality)) as sink,
    ):
        Pump(given, [], sink).run()
    for index, picture in enumerate(decoded(tmp_path / "o.gif")):
        pixels = picture.to_ndarray(format="rgb24").astype(float)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) <= 256
        smooth = cv2.blur(pixels - videos.drawing(SIZE, index), (5, 5))
        assert np.abs(smooth).mean() < 6
        assert pixels[:, index * 3 % SIZE[0]].mean() > 200


def test_a_fast_gif_is_noted(tmp_path: Path) -> None:
    source = given(PixelFormat("rgb"))
    source.info = replace(source.info, rate=Fraction(60))
    notes = write(source, tmp_path / "o.gif", Encoding())
    assert any("no more than 50" in note for note in notes)


# ---------------------------------------------------------------------------- pictures in memory


@pytest.mark.parametrize(
    ("name", "plain"),
    [("nv12", "yuv420p"), ("p010le", "yuv420p10le"), ("p210le", "yuv422p10le"), ("bgra", "rgba"),
     ("rgb0", "rgb24"), ("bgr24", "rgb24"), ("gbrp", "rgb24"), ("yuva420p", "yuva420p"),
     ("rgb48le", "gbrp16le"), ("gbrap10le", "gbrap10le"), ("ya8", "ya8"), ("argb", "rgba")],
)  # fmt: skip
def test_layouts_are_filled_as_ffmpeg_reads_them(name: str, plain: str) -> None:
    layout = layout_of(name)
    assert layout is not None
    frame = given(layout.format, alpha=layout.alpha, count=1).frames[0]
    picture = av.VideoFrame(*SIZE, name)
    fill(picture, picture_of(frame, layout, (0, 0, 0)), layout)
    seen = picture.reformat(format=plain)
    if layout.format.family == "yuv":
        for index in range(3):
            np.testing.assert_array_equal(samples(seen, index), frame.planes[index])
        if layout.alpha:
            np.testing.assert_array_equal(samples(seen, 3), frame.alpha)
    elif plain.startswith("gbr"):
        for index, channel in enumerate((1, 2, 0)):
            np.testing.assert_array_equal(samples(seen, index), frame.planes[0][..., channel])
    elif plain == "ya8":
        pixels = np.frombuffer(seen.planes[0], np.uint8).reshape(SIZE[1], -1)[:, : 2 * SIZE[0]]
        np.testing.assert_array_equal(pixels[:, ::2], frame.planes[0])
        np.testing.assert_array_equal(pixels[:, 1::2], frame.alpha)
    else:
        pixels = seen.to_ndarray(format=plain)
        np.testing.assert_array_equal(pixels[..., :3], frame.planes[0])
        if layout.alpha:
            np.testing.assert_array_equal(pixels[..., 3], frame.alpha)


def test_the_upper_bits_of_a_sample() -> None:
    layout = layout_of("yuv444p10msble")
    assert layout is not None
    frame = given(PixelFormat("yuv", 10), count=1).frames[0]
    picture = av.VideoFrame(*SIZE, "yuv444p10msble")
    fill(picture, picture_of(frame, layout, (0, 0, 0)), layout)
    np.testing.assert_array_equal(samples(picture, 0), frame.planes[0] << 6)


@pytest.mark.parametrize("range_", ["limited", "full"])
@pytest.mark.parametrize(("before", "after"), [(8, 10), (10, 8), (12, 10), (9, 16), (16, 8)])
def test_a_depth_is_changed_about_grey(range_: Any, before: int, after: int) -> None:
    """Black, white and the middle of chroma are what they were."""
    format = PixelFormat("yuv", before)
    scale = 1 << (before - 8)
    low, high = (0, format.peak) if range_ == "full" else (16 * scale, 235 * scale)
    luma = np.array([[low, high]], format.dtype)
    chroma = np.array([[128 * scale, 128 * scale]], format.dtype)
    frame = Frame(
        planes=(luma, chroma, chroma), format=format, pts=0, time_base=Fraction(1),
        colour=Colour(range=range_), alpha=np.array([[0, format.peak]], format.dtype),
    )  # fmt: skip
    found = in_depth(frame, after)
    peak, unit = (1 << after) - 1, 1 << (after - 8)
    ends = [0, peak] if range_ == "full" else [16 * unit, 235 * unit]
    assert found.planes[0].tolist() == [ends]
    assert found.planes[1].tolist() == [[128 * unit] * 2]
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, peak]]


def test_draft_searches_less(tmp_path: Path) -> None:
    """x264 writes into the film how hard it looks: reference frames, moving blocks, and the like."""
    source = given(PixelFormat("yuv", 8, (2, 2)), size=(64, 48), count=3)

    def effort(quality: Any) -> list[int]:
        target = tmp_path / f"{quality}.mp4"
        write(source, target, Encoding(quality=quality))
        told = re.search(rb"x264 - core .*?\0", target.read_bytes())
        assert told is not None
        words = dict(word.split(b"=", 1) for word in told[0].split() if b"=" in word)
        return [int(words[name]) for name in (b"ref", b"subme", b"trellis", b"me_range")]

    draft, good, archive = (effort(quality) for quality in QUALITIES)
    assert all(less <= more for less, more in zip(draft, good, strict=True))
    assert draft != good
    assert all(less <= more for less, more in zip(good, archive, strict=True))


def test_an_encoder_of_one_size_is_tried_in_that_size(tmp_path: Path) -> None:
    options = (("b", "36M"),)
    colour = Colour(matrix="bt709")
    source = given(YUV["yuv422 8"], size=(1920, 1080), count=2, colour=colour)
    write(source, tmp_path / "o.mov", Encoding(codec="dnxhd", options=options))
    assert len(decoded(tmp_path / "o.mov")) == 2
    small = given(YUV["yuv422 8"], size=(128, 96), count=2, colour=colour)
    with pytest.raises(SinkError, match="incompatible with DNxHD"):
        write(small, tmp_path / "p.mov", Encoding(codec="dnxhd", options=options))


# ---------------------------------------------------------------------------- segments


@pytest.mark.parametrize(("codec", "suffix"), [("prores", ".mov"), ("hevc", ".mp4"), ("av1", ".mkv")])
def test_segments_are_what_one_encoder_would_make(
    codec: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames at their times with their lengths, and a film's metadata in every segment."""
    monkeypatch.setattr(segmented_file, "SEGMENT", 10)
    source = videos.make(tmp_path / "in.mkv", frames=25, pix_fmt="yuv420p10le", size=(96, 64))
    encoding = Encoding(codec=codec)
    hdr = Hdr(max_cll=1000, max_fall=400)
    with open_source(source) as given:
        colour = replace(given.info.colour, matrix="bt2020", primaries=9, transfer=16)
        given.info = replace(given.info, hdr=hdr, colour=colour)
        assert not why_no_journal(str(tmp_path / f"o{suffix}"), like=given.info, encoding=encoding)
        with open_sink(tmp_path / f"o{suffix}", like=given, encoding=encoding, journal={}) as sink:
            for frame in given:
                sink.write(replace(frame, colour=colour))
    frames = decoded(tmp_path / f"o{suffix}")
    found = [float(frame.pts * frame.time_base) for frame in frames]
    assert found == pytest.approx([n / 25 for n in range(25)], abs=0.0011)
    if codec != "prores":
        assert all(f.side_data.get(Type.CONTENT_LIGHT_LEVEL) is not None for f in frames)
    if suffix != ".mkv":
        assert movie_seconds(tmp_path / f"o{suffix}") == pytest.approx(1.0, abs=2e-3)


def test_segments_hold_no_opacity_of_vp9() -> None:
    info = replace(given(PixelFormat("yuv", 8, (2, 2)), alpha=True).info, files=("in.mkv",))
    webm = why_no_journal("o.webm", like=info, encoding=Encoding())
    assert webm == "segments of VP9 do not hold the opacity"
    assert not why_no_journal("o.mkv", like=info, encoding=Encoding(codec="ffv1"))
    for name in ("-", "o.y4m", "o.gif", "%d.png"):
        assert "no video file" in why_no_journal(name, like=info, encoding=Encoding())


def test_how_a_stream_is_set_up_survives_the_journal() -> None:
    encoder = VideoEncoder(Encoding(), suffix=".mp4", like=given(PixelFormat("yuv", 8, (2, 2))).info)
    coding = encoder.coding(given(PixelFormat("yuv", 8, (2, 2))).frames[0])
    assert Coding.from_json(json.loads(json.dumps(coding.to_json()))) == coding
    assert dict(coding.options)["crf"] == "18"


def test_a_gif_leaves_the_sound_out_and_says_so(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", tone=True, frames=3)
    with open_source(source) as given, open_sink(tmp_path / "o.gif", like=given) as sink:
        assert any("the sound is left out" in note for note in sink.notes)
        Pump(given, [], sink).run()
    assert len(decoded(tmp_path / "o.gif")) == 3


# ---------------------------------------------------------------------------- Matroska


@pytest.mark.parametrize("title", ["", "Película n.º 1"])
@pytest.mark.parametrize(
    ("aspect", "rotation"), [(Fraction(16, 15), 0), (Fraction(2, 3), 90), (Fraction(1, 7), 0)]
)
def test_matroska_states_the_shape_of_pixels_and_nothing_else_changes(
    title: str, aspect: Fraction, rotation: int, tmp_path: Path
) -> None:
    def written(aspect: Fraction, name: str) -> Path:
        source = given(YUV["yuv420 8"], colour=Colour(matrix="bt709", range="full", primaries=1))
        source.info = replace(
            source.info, path=str(before), files=(str(before),), aspect=aspect, audio=("aac",)
        )
        source.frames = [replace(f, aspect=aspect, rotation=rotation) for f in source]
        write(source, tmp_path / name, Encoding(codec="ffv1"))
        return tmp_path / name

    before = tmp_path / "in.mkv"
    videos.make(tmp_path / "plain.mkv", frames=3, tone=True)
    with av.open(str(tmp_path / "plain.mkv")) as plain, av.open(str(before), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in plain.streams}
        if title:
            streams[0].metadata["title"] = title
        for packet in plain.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    found, square = (contents(written(a, f"{n}.mkv")) for n, a in enumerate((aspect, Fraction(1))))
    assert found.pop("aspect") == pytest.approx(float(aspect), rel=2e-3)
    assert square.pop("aspect") == 1
    assert found == square
    assert found["title"] == (title or None)
    assert found["rotation"] % 360 == rotation
    assert checked_tracks((tmp_path / "0.mkv").read_bytes())


def contents(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [(p.stream.index, p.pts, bytes(p)) for p in container.demux() if p.size]
        found = {
            "aspect": float(stream.sample_aspect_ratio or 1),
            "title": stream.metadata.get("title"),
            "size": (stream.codec_context.width, stream.codec_context.height),
            "streams": [s.type for s in container.streams],
            "packets": packets,
        }
    frame = decoded(path)[0]
    return {
        **found,
        "rotation": frame.rotation,
        "colours": (frame.colorspace, frame.color_range, frame.color_primaries),
        "luma": samples(frame, 0).tobytes(),
    }


def checked_tracks(data: bytes) -> bool:
    """Whether the sum over the element of all tracks is right."""
    name = bytes.fromhex("1654ae6b")
    place = data.index(name, data.index(name) + 4) + 4  # the first is in the table of contents
    width = 9 - data[place].bit_length()
    length = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    tracks = data[place + width : place + width + length]
    assert tracks[:2] == b"\xbf\x84"
    return zlib.crc32(tracks[6:]) == int.from_bytes(tracks[2:6], "little")


def test_a_file_without_room_is_left_as_it_is(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=2)
    data = path.read_bytes()
    file = io.BytesIO(data)
    state(file, Fraction(16, 15), SIZE)
    assert file.getvalue() == data


def test_a_new_encoder_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its files, options, journal and errors go by the entry; what it takes is asked of FFmpeg."""
    entry = Codec(
        plain="cineform",
        joins=True,
        shows_alpha=False,
        qualities={"good": {"quality": "film2"}},
        preset="quality",
        presets=("low", "film2"),
    )
    monkeypatch.setitem(codecs.CODECS, "cfhd", entry)
    monkeypatch.setitem(codecs.ENCODERS, "cineform", "cfhd")
    source, encoding = given(YUV["yuv422 10"], alpha=True), Encoding(codec="cineform")
    notes = write(source, tmp_path / "o.mov", encoding)
    assert any("the opacity is left out" in note for note in notes)
    assert decoded(tmp_path / "o.mov")[0].format.name == "yuv422p10le"
    info = replace(source.info, files=("in.mov",))
    assert why_no_journal("o.mov", like=info, encoding=encoding) == ""
    for wrong, words in (
        (replace(encoding, crf=3), "cineform has no constant quality and takes no --crf"),
        (replace(encoding, preset="x"), "cineform refuses it; it takes low, film2"),
    ):
        with pytest.raises(SinkError, match=words):
            write(source, tmp_path / "o2.mov", wrong)
    with pytest.raises(SinkError, match=r"\.mp4 files cannot hold cfhd: use \.mkv"):
        write(source, tmp_path / "o.mp4", encoding)


def test_an_encoder_that_this_ffmpeg_lacks_is_not_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(codecs.ENCODERS, "vvc", "libimagined")
    with pytest.raises(SinkError) as refused:
        write(given(YUV["yuv422 10"]), tmp_path / "o.mkv", Encoding(codec="vvc"))
    told, _, there = str(refused.value).partition("; there are: ")
    assert told == "no encoder 'vvc' (this FFmpeg has no libimagined)"
    assert "h264" in there.split(", ")
    assert "vvc" not in there.split(", ")


def test_colours_that_matroska_cannot_tell_are_not_mended_by_matroska(tmp_path: Path) -> None:
    """The bitstream of VP8 has one matrix only."""
    source = given(YUV["yuv420 8"], colour=Colour(matrix="bt709"))
    with pytest.raises(SinkError, match=r"wrong colours \(matrix.*\): use --codec h264 or hevc$"):
        write(source, tmp_path / "o.mkv", Encoding(codec="libvpx"))
