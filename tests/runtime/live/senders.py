"""Senders of real streams, each in a process of its own that a test may kill."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SECONDS = 30


def drawing(index: int, size: tuple[int, int]) -> np.ndarray:
    """Two greys that tell the number of the picture: units of 16 above, the rest below."""
    picture = np.full((size[1], size[0], 3), 40 + index % 16 * 12, np.uint8)
    picture[size[1] // 2 :] = 40 + index // 16 % 16 * 12
    return picture


def number(luma: np.ndarray) -> int:
    """Of the picture, modulo 256, from its luma in limited range."""
    middle = luma.shape[0] // 2
    above, below = float(luma[4 : middle - 4].mean()), float(luma[middle + 4 : -4].mean())
    low, high = (round(((grey - 16) * 255 / 219 - 40) / 12) for grey in (above, below))
    return high * 16 + low


def send(
    url: str,
    format: str,
    *,
    size: tuple[int, int] = (160, 120),
    rate: int = 30,
    seconds: float = SECONDS,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    change: float = 0.0,
    tone: bool = False,
    **options: str,
) -> None:
    """Send in real time; after `change` seconds go on with pictures of twice the size."""
    begin = time.monotonic()
    index = 0
    with av.open(url, "w", format=format, options=options) as out:
        video = out.add_stream(codec, rate=rate, options=_fast(codec))
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.codec_context.gop_size = 10
        sound = out.add_stream("aac", rate=48_000, layout="stereo") if tone else None
        encoder, heard = video.codec_context, 0
        other = None
        while index < seconds * rate:
            if change and index == round(change * rate):
                size = (size[0] * 2, size[1] * 2)
                out.mux([_moved(packet, video) for packet in encoder.encode(None)])
                other = av.CodecContext.create(codec, "w")
                other.width, other.height, other.pix_fmt = *size, "yuv420p"
                other.time_base = Fraction(1, rate)
                other.options = _fast(codec)
                other.gop_size = 10
                encoder = other
            picture = av.VideoFrame.from_ndarray(drawing(index, size), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, rate)
            made = encoder.encode(picture.reformat(format=pix_fmt if other is None else "yuv420p"))
            out.mux([_moved(packet, video) for packet in made])
            while sound is not None and heard < (index + 1) / rate * 48_000:
                out.mux(sound.encode(_beep(heard)))
                heard += 1024
            index += 1
            time.sleep(max(begin + index / rate - time.monotonic(), 0))
        if other is None:
            out.mux(encoder.encode(None))


def insist(url: str, format: str, **options: object) -> None:
    """`send`, again and again while nobody listens yet."""
    while True:
        try:
            send(url, format, **options)
            return
        except ConnectionRefusedError:
            time.sleep(0.1)


def _moved(packet: "av.Packet", stream: "av.VideoStream") -> "av.Packet":
    packet.stream = stream
    return packet


def _fast(codec: str) -> dict[str, str]:
    return {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}


def _beep(start: int) -> av.AudioFrame:
    """A tone for the first tenth of every second, silence for the rest."""
    at = np.arange(start, start + 1024)
    wave = (0.5 * np.sin(2 * np.pi * 1000 * at / 48_000) * (at % 48_000 < 4800)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
    return frame


@contextmanager
def sending(url: str, format: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """`send` in another process, until the block ends."""
    code = f"import senders; senders.insist({url!r}, {format!r}, **{options!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
