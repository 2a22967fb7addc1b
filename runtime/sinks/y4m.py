"""Frames without a codec: YUV4MPEG2 or bare planes, to standard output or into a file."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import SinkError
from ..frame import Frame, PixelFormat, Siting, VideoInfo
from ..media.encode import LAID
from ..media.hdr import check_hdr, hdr_note, refuse_hdr
from ..media.pixel_format import BARE, Y4M, Layout, layouts_of, nearest_layout, picture_of, samples_of
from ..media.side_data import unheld
from ..resume.output_lock import partial_path
from ..verify.expected import Tally
from .base import Delivery, Encoding, Sink
from .kind import Writing
from .output_file import claim_target, prove, publish, reporting

STANDARD_OUTPUT = "-"

# As FFmpeg and mjpegtools name them; `left` is MPEG-2's and H.264's siting.
_SITINGS: dict[Siting, str] = {"center": "jpeg", "left": "mpeg2", "topleft": "paldv"}


LONGEST = 2
"""Seconds without a frame that are filled with the last one; a longer gap restarts the count."""
WAITING = 8
"""Frames of a live run that wait for who reads the pipe."""


class RawSink(Sink):
    """Writes uncompressed frames: `-` is standard output, anything else a file that is verified.

    YUV4MPEG2 states size, rate, shape of pixels, siting of chroma and range; bare planes nothing at
    all. Sound and all else of the source is left out.
    """

    def __init__(self, uri: str, writing: Writing) -> None:
        """Check everything that can be checked before work starts. Raises SinkError."""
        like, encoding = writing.like, writing.encoding
        self.uri = uri
        self.overwrite = writing.overwrite
        self._like = like
        self._background = encoding.background
        self._bare = uri == STANDARD_OUTPUT and encoding.codec == "rawvideo"
        _check_encoding(uri, encoding)
        names = BARE if self._bare else Y4M
        if encoding.pix_fmt is not None and encoding.pix_fmt not in names:
            raise SinkError(
                f"{self._kind} does not hold {encoding.pix_fmt}; it holds {', '.join(names)}"
            )
        wanted = names if encoding.pix_fmt is None else (encoding.pix_fmt,)
        self._layouts = layouts_of(wanted)
        if not self._bare:
            refuse_hdr(like.colour.transfer, "YUV4MPEG2 cannot say")
        self.notes = tuple(self._losses(like, audio=writing.audio))
        self._layout: Layout | None = None
        self._size = (0, 0)
        self._first = 0
        self._tally = Tally()
        self._path = None if uri == STANDARD_OUTPUT else Path(uri)
        if self._path is not None:
            self._claim = claim_target(self._path, like=like, overwrite=self.overwrite)
            self._partial = partial_path(self._path)
            self.notes += self._claim.notes
        try:
            self._file = self._open()
        except BaseException:
            self._release()
            raise

    def write(self, frame: Frame) -> None:
        alpha = frame.alpha is not None
        if self._layout is None:
            self._layout = nearest_layout(self._layouts, frame.format, alpha=alpha, rgb=self._bare)
            self._size = (frame.width, frame.height)
            self._put(b"" if self._bare else self._header(frame, self._layout))
            self._describe(frame)
            self._first = round(frame.pts * frame.time_base * self._like.rate)
        if (frame.width, frame.height) != self._size:
            raise SinkError(
                f"frame {frame.index} is {frame.width}x{frame.height} in a stream of "
                f"{self._size[0]}x{self._size[1]}: add a resize to one size"
            )
        self._keep_time(frame)
        if not self._bare:
            self._put(b"FRAME\n")
        coded = picture_of(frame, self._layout, self._background)
        for samples in samples_of(coded, self._layout):
            self._put(np.ascontiguousarray(samples).data)
        self._tally.frame(float(self.frames / self._like.rate))
        self.frames += 1
        self.duration = float(self.frames / self._like.rate)

    def close(self) -> None:
        """End the stream; a file is verified and gets its name."""
        if not self.frames:
            self.abort()
            raise SinkError(f"{self.uri}: no frame came, so nothing was written")
        try:
            with self._reporting():
                self._file.close()
            if self._path is not None:
                promise = self._tally.promise(duration=self.duration)
                with reporting(self._path):
                    prove(promise, self._partial, self._path, frames=self.frames)
                    if self.ready is not None:
                        self.ready(self._partial)
                    publish(self._partial, self._path, overwrite=self.overwrite)
        except BaseException:
            self.abort()
            raise
        self._release()

    def abort(self) -> None:
        # What went into a pipe is gone; a file leaves no trace.
        with suppress(OSError):  # it was said already
            self._file.close()
        if self._path is not None:
            self._partial.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self._path is not None:
            self._claim.release()

    @property
    def _kind(self) -> str:
        return "rawvideo" if self._bare else "YUV4MPEG2"

    def _losses(self, like: VideoInfo, *, audio: bool) -> list[str]:
        alpha = like.alpha
        layout = nearest_layout(self._layouts, like.format, alpha=alpha, rgb=self._bare)
        check_hdr(like.colour, "rawvideo", layout)
        notes = [*hdr_note(like.colour.transfer), *unheld(like, f"{self._kind} frames")]
        if audio and like.audio:
            notes.append(f"{self._kind} holds pictures only: the sound is left out")
        if like.format.family == "rgb" and not layout.rgb:
            notes.append(f"{self._kind} holds no RGB: it becomes {layout.name}")
        if alpha and not layout.alpha:
            notes.append(f"{self._kind} holds no opacity: it is left out; {LAID}")
        if like.rotation:
            notes.append(
                f"{self._kind} cannot say that the picture is turned: it lies; --bake turns it"
            )
        if self._bare:
            notes.append(
                f"bare planes: {layout.name}, {like.width}x{like.height} at {like.rate} frames a "
                "second, unless a model or --size changes it"
            )
        return notes

    def _open(self) -> BinaryIO:
        if self._path is not None:
            with reporting(self._path):
                return self._partial.open("wb")
        try:
            number = sys.stdout.fileno()
        except (OSError, ValueError, AttributeError) as error:
            raise SinkError("there is no standard output here: give the output a name") from error
        if os.isatty(number):
            raise SinkError(
                "standard output is a terminal, which shows no video: pipe it, as in | mpv -"
            )
        # A copy, so that closing it ends nothing of Python's own.
        return os.fdopen(os.dup(number), "wb", buffering=1 << 20)

    def _put(self, data: bytes | memoryview) -> None:
        with self._reporting():
            self._file.write(data)

    @contextmanager
    def _reporting(self) -> Generator[None]:
        try:
            with reporting(Path(self.uri)):
                yield
        except SinkError as error:
            if self._path is None and isinstance(error.__cause__, BrokenPipeError):
                raise SinkError(
                    f"whoever read standard output has gone, after {self.frames} frames"
                ) from error
            raise

    def _header(self, frame: Frame, layout: Layout) -> bytes:
        rate, aspect = self._like.rate, frame.aspect
        words = [
            "YUV4MPEG2",
            f"W{frame.width}",
            f"H{frame.height}",
            f"F{rate.numerator}:{rate.denominator}",
            "Ip",
            f"A{aspect.numerator}:{aspect.denominator}",
            f"C{_colour_space(layout.format, frame.colour.siting)}",
        ]
        if layout.format.bits > 8:
            words.append(f"XYSCSS={_colour_space(layout.format, frame.colour.siting).upper()}")
        words.append(f"XCOLORRANGE={frame.colour.range.upper()}")
        return " ".join(words).encode() + b"\n"

    def _describe(self, frame: Frame) -> None:
        self._tally.picture(
            width=frame.width,
            height=frame.height,
            aspect=frame.aspect,
            rotation=None,
            range=2 if frame.colour.range == "full" else 1,
        )

    def _keep_time(self, frame: Frame) -> None:
        """Warn about frames at uneven times, since this format shows all for equally long."""
        place = frame.pts * frame.time_base * self._like.rate - self._first
        if abs(place - self.frames) > Fraction(3, 2):
            line = (
                f"frames of changing times: {self._kind} shows all equally long, "
                f"{float(self._like.rate):.4g} a second; --fps makes them so"
            )
            if line not in self.notes:
                self.notes += (line,)


class SteadySink(Sink):
    """Repeats or drops frames so that each stands for its time: lost frames do not make the rest
    faster."""

    delivery = Delivery(depth=WAITING)

    def __init__(self, sink: Sink, rate: Fraction) -> None:
        """`sink` gets `rate` frames a second, and is closed with this one."""
        self.uri = sink.uri
        self.notes = sink.notes
        self._sink = sink
        self._rate = rate
        self._begin: Fraction | None = None
        self._written = 0

    def write(self, frame: Frame) -> None:
        now = frame.pts * frame.time_base
        if self._begin is None:
            self._begin = now
        due = round((now - self._begin) * self._rate) + 1
        if due - self._written > LONGEST * self._rate:
            self._begin, self._written, due = now, 0, 1
        for _ in range(due - self._written):
            self._sink.write(frame)
        self._written = max(self._written, due)
        self.frames = self._sink.frames

    def close(self) -> None:
        self._sink.close()

    def abort(self) -> None:
        self._sink.abort()


open_film = RawSink


def open_live(uri: str, writing: Writing) -> Sink:
    """Open `-`, at the source's rate. Raises SinkError."""
    return SteadySink(RawSink(uri, replace(writing, audio=False)), writing.like.rate)


def _check_encoding(uri: str, encoding: Encoding) -> None:
    if encoding.codec not in ("auto", "rawvideo"):
        raise SinkError(
            f"{uri} holds no {encoding.codec}: name a file like out.mkv, or leave --codec out"
        )
    if encoding.crf is not None or encoding.preset is not None or encoding.options:
        raise SinkError("frames without a codec take no --crf, no --preset and no --enc")


def _colour_space(format: PixelFormat, siting: Siting) -> str:
    deep = f"p{format.bits}" if format.bits > 8 else ""
    if format.family == "gray":
        return f"mono{deep[1:]}"
    name = {(2, 2): "420", (2, 1): "422", (1, 1): "444"}[format.subsample]
    if name == "420" and not deep:
        return f"{name}{_SITINGS[siting]}"
    return f"{name}{deep}"
