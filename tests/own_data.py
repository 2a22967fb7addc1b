"""The tests' own small data: clips and pictures made of the sample clip, with PyAV and OpenCV alone."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition

from .runtime import filming, videos
from .runtime.matrix import Clip

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "clip.mp4"


def clips(folder: Path) -> Path:
    """Every clip of `CLIPS`."""
    for name, maker in CLIPS.items():
        maker(folder / name)
    return folder


# ---- clips ----------------------------------------------------------------------------------------


@cache
def scenes(count: int, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """The first frames of the sample clip, in RGB."""
    found: list[np.ndarray] = []
    with av.open(str(SAMPLE)) as container:
        for frame in container.decode(video=0):
            found.append(frame.reformat(*size).to_ndarray(format="rgb24"))
            if len(found) == count:
                break
    return tuple(found)


def shoot(
    path: Path, *, frames: int, size: tuple[int, int] = (320, 180), codec: str = "libx264",
    pix_fmt: str = "yuv420p", rate: int = 30, times: Callable[[int], int] | None = None,
    sound: str | None = "aac", options: dict[str, str] | None = None,
    container: dict[str, str] | None = None, **tags: Any,
) -> Path:  # fmt: skip
    """The sample clip as another file; `times` in milliseconds, `tags` set on the encoder."""
    rotation = tags.pop("rotation", 0)
    with av.open(str(path), "w", options=container or {}) as out:
        video: Any = out.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        unit = Fraction(1, 1000) if times is not None else Fraction(1, rate)
        video.codec_context.time_base = unit
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        if rotation:
            video.set_display_rotation(rotation)
        track = out.add_stream(sound, rate=48_000, layout="stereo") if sound is not None else None
        for index, pixels in enumerate(scenes(frames, size)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format=pix_fmt, dst_color_range=tags.get("color_range", 1)
            )
            picture.pts, picture.time_base = times(index) if times is not None else index, unit
            if "color_range" in tags:
                picture.color_range, picture.colorspace = tags["color_range"], tags["colorspace"]
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        if track is not None:
            videos.add_tone(out, track, (times(frames) / 1000) if times is not None else frames / rate)
    return path


def with_words(path: Path, *, home: str, words: str) -> None:
    filming.make(
        path,
        Clip(
            codec="h264b", home=home, pixels="yuv420p", size="96x64", rate="25", rotation=0,
            shape="square", colour="unset", full=False, sound="aac", sync="even", words=words,
            target="mp4",
        ),
    )  # fmt: skip


def with_more(path: Path, add: Callable[[Any], Callable[[Any], None]]) -> None:
    """A film to which `add` gives another stream, and afterwards what belongs in it."""
    plain = shoot(path.with_name(f"plain{path.suffix}"), frames=20)
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        kept = [out.add_stream_from_template(stream) for stream in given.streams]
        fill = add(out)
        packets = [packet for packet in given.demux() if packet.size]
        for packet in packets:
            packet.stream = kept[packet.stream.index]
        fill(out)
        for packet in packets:
            out.mux(packet)
    plain.unlink()


def with_cover(path: Path) -> None:
    def add(out: Any) -> Callable[[Any], None]:
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 48, "rgb24"
        cover.disposition = Disposition.attached_pic

        def fill(out: Any) -> None:
            picture = av.VideoFrame.from_ndarray(np.full((48, 48, 3), 90, np.uint8), format="rgb24")
            out.mux([*cover.encode(picture), *cover.encode(None)])

        return fill

    with_more(path, add)


def with_attachment(path: Path) -> None:
    def add(out: Any) -> Callable[[Any], None]:
        out.add_attachment("notes.txt", "text/plain", b"what was filmed")
        return lambda _: None

    with_more(path, add)


def with_failing_sound(path: Path) -> None:
    """Every fifth packet of its sound is noise that no decoder reads."""
    plain = shoot(path.with_name("plain.mp4"), frames=60, sound="libmp3lame")
    rng = np.random.default_rng(0)
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        kept = [out.add_stream_from_template(stream) for stream in given.streams]
        for number, packet in enumerate(p for p in given.demux() if p.size):
            sent = packet
            if packet.stream.type == "audio" and number % 5 == 0:
                sent = av.Packet(rng.integers(0, 256, packet.size, np.uint8).tobytes())
                sent.pts, sent.dts, sent.time_base = packet.pts, packet.dts, packet.time_base
                sent.duration, sent.is_keyframe = packet.duration, True
            sent.stream = kept[packet.stream.index]
            out.mux(sent)
    plain.unlink()


def uneven(index: int) -> int:
    """Frames of 20, 40, 60 and 80 ms."""
    return 200 * (index // 4) + (0, 20, 60, 120)[index % 4]


CLIPS: dict[str, Callable[[Path], object]] = {
    "film.mp4": lambda path: shoot(path, frames=120, options={"bf": "2", "g": "30"}),
    "turned.mp4": lambda path: shoot(path, frames=60, times=uneven, rotation=180),
    "wide_pixels.mp4": lambda path: shoot(
        path, frames=20, sample_aspect_ratio=Fraction(2, 3), options={"bf": "2"}
    ),
    "one_pixel.mp4": lambda path: shoot(
        path, frames=5, size=(1, 1), pix_fmt="yuv444p", rate=1, sound=None
    ),
    "full_range.mp4": lambda path: shoot(
        path, frames=10, pix_fmt="yuvj420p", sound=None, color_range=2, colorspace=1,
        color_primaries=1, color_trc=1,
    ),
    "ten_bits.mp4": lambda path: shoot(
        path, frames=12, size=(200, 112), pix_fmt="yuv420p10le", sound=None
    ),
    "no_duration.webm": lambda path: shoot(
        path, frames=40, codec="libvpx-vp9", sound="libopus", container={"live": "1"},
        options={"deadline": "realtime", "cpu-used": "8"},
    ),
    "words.mp4": lambda path: with_words(path, home="mp4", words="mov_text"),
    "words.mkv": lambda path: with_words(path, home="mkv", words="webvtt"),
    "cover.mp4": with_cover,
    "attachment.mkv": with_attachment,
    "failing_sound.mp4": with_failing_sound,
}  # fmt: skip


# ---- pictures -------------------------------------------------------------------------------------


def pictures(root: Path) -> Path:
    """Pictures out of the sample clip, and pairs of large and small, laid out as the data folder."""
    rng = np.random.default_rng(0)
    # The sample is rendered: it lacks the noise of a camera's sensor.
    shown = [
        np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
        for picture in scenes(180, (640, 360))[::2]
    ]
    for number in range(1, 6):
        write(root / f"eval/kodak24/kodim{number:02d}.png", shown[(number - 1) * 22])
        write(root / f"photos/bsds500/{number}.png", shown[(number - 1) * 20 + 5])
    for name, scale, number in (("set5", 2, 1), ("set14", 2, 2), ("set5", 4, 1), ("set14", 4, 2)):
        large = shown[number * 30][:320, :480]
        small = cv2.resize(large, (480 // scale, 320 // scale), interpolation=cv2.INTER_AREA)
        write(root / f"eval/{name}/x{scale}/hr/001.png", large)
        write(root / f"eval/{name}/x{scale}/lr/001.png", small)
    return root


def small_pictures(given: Path, root: Path) -> Path:
    """The data of `pictures` with two small ones to measure agreement on: a network of random weights
    agrees with its conversion, or does not, on any."""
    for part in ("photos", "eval/set5", "eval/set14"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (root / part).symlink_to(given / part)
    for number in (1, 4):
        picture = cv2.imread(str(given / f"eval/kodak24/kodim{number:02d}.png"))
        write(root / f"eval/kodak24/kodim{number:02d}.png", picture[120:232, 200:392, ::-1])
    return root


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[:, :, ::-1])
