"""Makes and reads video files with PyAV alone, so that the tests do not check velatura with itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


@dataclass(frozen=True)
class Read:
    """All that a file holds."""

    luma: list[np.ndarray]
    seconds: list[float]
    width: int
    height: int
    pix_fmt: str
    rotation: int
    aspect: Fraction
    matrix: int
    range: int
    primaries: int
    transfer: int
    codec: str
    audio: list[tuple[float, bytes]]
    """(seconds, packet) of the first audio stream."""


def make(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    codec: str = "ffv1",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    tone: bool = False,
    audio_codec: str = "aac",
    seconds: float | None = None,
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """A clip of moving noise bands; every frame differs. `pts` in units of 1/1000 s."""
    with av.open(str(path), "w", options=container or {}) as out:
        video = out.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        if pts is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        sound = None
        if tone:
            sound = out.add_stream(audio_codec, rate=48_000, layout="stereo")
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(drawing(size, index), format="rgb24")
            picture = picture.reformat(format=pix_fmt)
            if pts is not None:
                picture.pts, picture.time_base = pts[index], Fraction(1, 1000)
            else:
                picture.pts, picture.time_base = index, Fraction(1, rate)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        if sound is not None:
            add_tone(out, sound, seconds or frames / rate)
    return path


def drawing(size: tuple[int, int], index: int) -> np.ndarray:
    """A picture that tells its index: a bright column that moves over noise."""
    rng = np.random.default_rng(index)
    picture = rng.integers(40, 120, (size[1], size[0], 3), np.uint8)
    picture[:, index * 3 % size[0]] = 230
    return picture


def add_tone(out: Any, stream: Any, seconds: float) -> None:
    t = np.arange(round(seconds * 48_000)) / 48_000
    wave = (0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    name = stream.codec_context.format.name
    for start in range(0, len(wave), 960):
        part = np.stack([wave[start : start + 960]] * 2)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        if name != "fltp":
            frame = av.AudioResampler(format=name, layout="stereo", rate=48_000).resample(frame)[0]
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def read(path: Path) -> Read:
    """Decode everything."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = list(container.decode(stream))
        start = (container.start_time or 0) / av.time_base
        # Some of the stream's fields are gone once its container is closed.
        aspect = stream.sample_aspect_ratio or Fraction(1)
        luma = [plane(frame, 0) for frame in frames]
        seconds = [float(frame.pts * frame.time_base) for frame in frames]
    return Read(
        luma=luma,
        seconds=seconds,
        width=context.width,
        height=context.height,
        pix_fmt=frames[0].format.name,
        rotation=frames[0].rotation,
        aspect=aspect,
        matrix=int(frames[0].colorspace),
        range=int(frames[0].color_range),
        primaries=int(frames[0].color_primaries),
        transfer=int(frames[0].color_trc),
        codec=context.codec.canonical_name,
        audio=audio_packets(path, start=max(start, 0.0)),
    )


def plane(frame: Any, index: int) -> np.ndarray:
    """A copy of one plane."""
    deep = max(c.bits for c in frame.format.components) > 8
    found = frame.planes[index]
    samples = np.frombuffer(found, np.uint16 if deep else np.uint8)
    rows = samples.reshape(found.height, -1)
    return rows[:, : found.width].copy()


def audio_packets(path: Path, *, start: float = 0.0) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [
            (float(packet.pts * packet.time_base) - start, bytes(packet))
            for packet in container.demux(container.streams.audio[0])
            if packet.pts is not None and packet.size
        ]


def remux(source: Path, target: Path, **options: str) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=options) as out:
        kept = {
            stream.index: out.add_stream_from_template(stream)
            for stream in given.streams
            if stream.type in ("video", "audio")
        }
        for packet in given.demux():
            if packet.dts is not None and packet.stream.index in kept:
                packet.stream = kept[packet.stream.index]
                out.mux(packet)
    return target
