"""Trial encoding: a few small frames show what an output's encoder and container keep."""

import io
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import av
import av.logging
import numpy as np
from av.error import FFmpegError

from ..errors import SinkError, SourceError
from ..frame import Frame, PixelFormat
from ..media.codecs import CODECS, codec_of, spoken
from ..media.encode import Coding, Kept, VideoEncoder, encode
from ..media.matroska import KINDS, reserve, state
from ..media.timestamps import Clock
from .compare import Check, examine
from .expected import Tally
from .inspect import inspect_file

SIDE = 64
"""Pixels of the pictures' sides."""
HARDWARE_SIDE = 256
"""Pixels of the sides for NVENC, which takes no smaller pictures."""
FRAMES = 3
TOLD = 4
"""Lines of a library's error message that are shown: some list everything they accept."""
SETTLE = 0.002
"""Seconds in which other threads may finish their log messages."""
_TICK = Fraction(1, 1000)

_DISLIKE = ("error parsing option", "unknown option", "error setting option")
"""Warnings of FFmpeg's wrappers where a library does not know an option."""


def rehearse(encoder: VideoEncoder, coding: Coding, *, kind: str, suffix: str) -> Kept:
    """Encodes a few frames in memory and reads them again; returns what the container keeps.

    `kind` is FFmpeg's name of the container, and `suffix` that of its files. Raises SinkError where the
    encoder refuses its options, the container the stream, or where colours would be stated wrongly:
    before work starts, rather than in the verification at the end.
    """
    small, tally, file = _alike(encoder, coding), Tally(), io.BytesIO()
    with _heard() as logs:
        try:
            duration = _write(encoder, small, file, kind, tally)
        except (FFmpegError, ValueError) as error:
            raise SinkError(_refusal(encoder, coding, suffix, error, _lines(logs))) from error
    said = [line for line in _lines(logs) if any(d in line.lower() for d in _DISLIKE)]
    if said:
        raise SinkError(f"{spoken(encoder.name)} does not know an option: {'; '.join(said)}")
    file.seek(0)
    unplayable = f"{suffix} files cannot hold {encoder.canonical} in {coding.pix_fmt} so that it plays"
    try:
        found = inspect_file(file, suffix)
    except SourceError as error:
        raise SinkError(f"{unplayable}: use .mkv") from error
    wrong = [c for c in examine(tally.promise(duration=duration), found) if not c.holds]
    kinds = {c.kind for c in wrong}
    altered = codec_of(encoder.name).lossless and found.pixels != coding.pix_fmt
    if altered or kinds & {"frames", "tail", "size"}:
        raise SinkError(f"{unplayable}: use .mkv, or --codec ffv1")
    _refuse_colours(wrong, encoder, suffix)
    return Kept(aspect="aspect" not in kinds, rotation="rotation" not in kinds)


def rehearsed(encoder: VideoEncoder, coding: Coding, *, kind: str, suffix: str) -> Kept:
    """Returns the result of `rehearse`, which runs once for all streams that are alike."""
    alike = _alike(encoder, coding)
    if alike not in encoder.kept:
        encoder.kept[alike] = rehearse(encoder, coding, kind=kind, suffix=suffix)
    return encoder.kept[alike]


def _alike(encoder: VideoEncoder, coding: Coding) -> Coding:
    """Returns the same parameters for small pictures; unknown encoders may not take every size."""
    if encoder.name not in CODECS:
        return coding
    side = HARDWARE_SIDE if codec_of(encoder.name).software else SIDE
    return replace(coding, width=side, height=side)


def _write(encoder: VideoEncoder, coding: Coding, file: io.BytesIO, kind: str, tally: Tally) -> float:
    clock = Clock(coding.rate)
    step = max(round(1 / coding.rate / coding.time_base), 1)
    with av.open(file, "w", format=kind) as container:
        stream = encoder.add_stream(container, coding)
        # The codec's own threads, which log while PyAV ends them, can wait for it for ever: their
        # messages are received in Python, where it holds the interpreter's lock.
        stream.codec_context.thread_count = 1
        stretched = coding.aspect != 1 and kind in KINDS
        if stretched:
            reserve(stream)
        container.start_encoding()
        for index in range(FRAMES):
            picture = encoder.picture(_noise(index, coding.width, coding.height), coding)
            clock.stamp(picture, index * step, coding.time_base)
            tally.frame(float(clock.last * coding.time_base))
            container.mux(list(clock.timed(encode(stream, picture), end=False)))
        container.mux(list(clock.timed(encode(stream, None), end=True)))
    if stretched:
        state(file, coding.aspect, (coding.width, coding.height))
    tally.picture(
        width=coding.width,
        height=coding.height,
        aspect=coding.aspect,
        rotation=coding.rotation,
        matrix=coding.matrix,
        range=coding.range,
        primaries=coding.primaries,
        transfer=coding.transfer,
    )
    return clock.duration


def _noise(index: int, width: int, height: int) -> Frame:
    """Returns a noisy picture, which gives some bytes: FFmpeg does not recognise a shorter MPEG-TS."""
    pixels = np.random.default_rng(index).integers(110, 140, (height, width), np.uint8)
    format = PixelFormat("gray")
    return Frame(planes=(pixels,), format=format, pts=index, time_base=_TICK)


def _refuse_colours(wrong: list[Check], encoder: VideoEncoder, suffix: str) -> None:
    colours = [c for c in wrong if c.kind in ("matrix", "range", "primaries", "transfer")]
    if colours:
        told = ", ".join(f"{c.kind} {c.found} instead of {c.promised}" for c in colours)
        use = "--codec h264 or hevc" if suffix == ".mkv" else ".mkv, or --codec h264 or hevc"
        raise SinkError(
            f"{suffix} files with {encoder.canonical} tell players the wrong colours ({told}): "
            f"use {use}"
        )


def _refusal(
    encoder: VideoEncoder, coding: Coding, suffix: str, error: Exception, said: list[str]
) -> str:
    if software := codec_of(encoder.name).software:
        return (
            f"{encoder.name} found no NVIDIA GPU that encodes, or no driver for it "
            f"({'; '.join(said) or error}): --codec {software} encodes without"
        )
    why = f": {'; '.join(said)}" if said else ""
    options = " ".join(f"{key}={value}" for key, value in coding.options)
    return (
        f"{encoder.name} or the container refuse {coding.pix_fmt} at {float(coding.rate):.4g} frames a "
        f"second in a {suffix} file with {options or 'no options'}{why}. Try .mkv or other options"
    )


@contextmanager
def _heard() -> Generator[list[tuple[int, str, str]]]:
    """Log messages of FFmpeg's libraries in the meantime, which PyAV otherwise discards."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs:
            yield logs
    finally:
        av.logging.set_level(level)
        # Any thread that is about to log gets the interpreter's lock here and finishes.
        time.sleep(SETTLE)


def _lines(logs: list[tuple[int, str, str]]) -> list[str]:
    return [text.strip().rstrip(".") for _, _, text in logs][:TOLD]
