"""OutputFile: a video file while it is made, hidden beside its target until it is whole."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import ContractError, SinkError
from ..frame import VideoInfo
from ..promise import Tally
from .encoder import Coding, VideoEncoder
from .passing import PassingStreams

_CODED_ASPECT = frozenset({"h264", "hevc", "mpeg2video", "mpeg4"})
"""Codecs whose own stream tells the sample aspect ratio."""


class OutputFile:
    """The container with its video stream and all that passes beside it.

    Open, `begin`, `mux` in order, then `finish` and `publish`, or `abort`. Errors are SinkErrors where
    the caller works inside `reporting`.
    """

    def __init__(self, path: Path, encoder: VideoEncoder, *, like: VideoInfo, audio: bool) -> None:
        """Check everything that can be checked before work starts. Raises SinkError."""
        self.path = path
        self.partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self.notes: tuple[str, ...] = ()
        self.tally = Tally()
        """What the file must hold when it is read again."""
        self._encoder = encoder
        self._passing: PassingStreams | None = None
        with reporting(path):
            self._container = self._open()
            try:
                if not _holds(self._container, encoder.name, encoder.canonical):
                    raise SinkError(f"{path.suffix} files cannot hold {encoder.canonical}: use .mkv")
                if like.path is not None:
                    self._passing = PassingStreams(
                        like, self._container, path.suffix, audio=audio, tally=self.tally
                    )
                    self.notes += self._passing.notes
            except BaseException:
                self.abort()
                raise

    @property
    def kind(self) -> str:
        """FFmpeg's name of the container."""
        return self._container.format.name

    def begin(self, coding: Coding) -> VideoStream:
        """Add the streams, write the header; the video stream, which encodes. Raises SinkError."""
        stream = self._encoder.add_stream(self._container, coding)
        if coding.aspect != 1 and not self._keeps_aspect():
            self.notes += (
                f"pixels {coding.aspect} wide become square: only H.264, HEVC and MPEG-4 in .mp4, .mov "
                "and .ts keep their shape here",
            )
        if coding.rotation and not self._keeps_rotation():
            self.notes += (f"{self.path.suffix} files cannot say that the picture is turned: it lies",)
        self.tally.picture(
            width=coding.width,
            height=coding.height,
            aspect=coding.aspect if self._keeps_aspect() or coding.aspect == 1 else None,
            rotation=coding.rotation if self._keeps_rotation() else None,
            matrix=coding.matrix,
            range=coding.range,
            primaries=coding.primaries,
            transfer=coding.transfer,
        )
        if self._passing is not None:
            self._passing.begin(stream)
        try:
            self._container.start_encoding()
        except (FFmpegError, ValueError) as error:
            raise SinkError(
                f"{self._encoder.name} or the container refuse {coding.width}x{coding.height} "
                f"{coding.pix_fmt} in a {self.path.suffix} file with {self._encoder.options}: "
                "try .mkv or other options"
            ) from error
        return stream

    def mux(self, packet: "Packet[Any]") -> None:
        """Write a packet of the video."""
        self.tally.frame(float((packet.pts or 0) * packet.time_base))
        self._container.mux(packet)

    def pass_until(self, seconds: float) -> None:
        """Write what else begins at or before that time."""
        if self._passing is not None:
            self._passing.mux_until(seconds)

    def end_at(self, seconds: float) -> None:
        """Let nothing pass that begins later."""
        if self._passing is not None:
            self._passing.end = seconds

    def finish(self) -> None:
        """Let the rest pass and write the end of the file."""
        self.pass_until(float("inf"))
        if self._passing is not None:
            self._passing.close()
        self._container.close()

    def prove(self, *, frames: int, duration: float) -> None:
        """Read the finished file again: it must hold `frames` frames and all else that was written.

        Raises ContractError; the file then lies under another name, so that nothing wrong takes the
        place of anything good, and nothing is lost.
        """
        from ..contract import require

        promise = self.tally.promise(duration=duration)
        try:
            require(promise, self.partial, frames=frames, name=self.path)
        except ContractError as error:
            rejected = self.path.with_name(f"{self.path.stem}.rejected{self.path.suffix}")
            self.partial.replace(rejected)
            raise ContractError(f"{error}. What was written lies in {rejected}") from error

    def publish(self, *, overwrite: bool) -> None:
        """Give the finished file its name. Raises SinkError if that is taken meanwhile."""
        if self.path.exists() and not overwrite:
            raise SinkError(f"{self.path} has appeared meanwhile: --overwrite replaces it")
        self.partial.replace(self.path)

    def abort(self) -> None:
        """Give up, and leave no trace."""
        if self._passing is not None:
            self._passing.close()
        with suppress(FFmpegError, OSError, ValueError):
            self._container.close()  # what it has to say was reported already
        self.partial.unlink(missing_ok=True)

    def _open(self) -> OutputContainer:
        fast = {"movflags": "+faststart"} if self.path.suffix in (".mp4", ".mov", ".m4v") else {}
        try:
            return av.open(str(self.partial), "w", options=fast)
        except ValueError as error:
            raise SinkError(
                f"{self.path}: unknown file type {self.path.suffix!r}; use .mp4 or .mkv"
            ) from error

    def _keeps_rotation(self) -> bool:
        return self._container.format.name in ("mp4", "mov", "ipod", "matroska", "webm")

    def _keeps_aspect(self) -> bool:
        """Whether the sample aspect ratio reaches the file.

        PyAV sets the codec's field only. Matroska overrides it with the container's own, and other
        codecs' streams have none.
        """
        coded = self._encoder.canonical in _CODED_ASPECT
        return coded and self._container.format.name not in ("matroska", "webm")


def check_target(path: Path, *, like: VideoInfo, overwrite: bool) -> None:
    """Raise SinkError where no file may be made."""
    if path.is_dir():
        raise SinkError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"no folder {path.parent}: create it first")
    if path.exists() and any(path.samefile(file) for file in like.files):
        raise SinkError(f"{path} is the input itself: choose another output")
    if path.exists() and not overwrite:
        raise SinkError(f"{path} exists: --overwrite replaces it")
    if not os.access(path.parent, os.W_OK):
        raise SinkError(f"the folder {path.parent} is not writable")


@contextmanager
def reporting(path: Path) -> Generator[None]:
    """Errors of FFmpeg and of the file system as SinkError."""
    try:
        yield
    except SinkError:
        raise
    except (FFmpegError, OSError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = getattr(error, "strerror", None) or str(error)
        hint = ": make room and run it again" if full else ""
        raise SinkError(f"{path} cannot be written: {reason}{hint}") from error


def _holds(container: OutputContainer, *names: str) -> bool:
    """Whether the container takes a codec of one of these names."""
    # MPEG-TS declares no list: FFmpeg then names only its two defaults, yet muxes most codecs.
    return container.format.name == "mpegts" or not container.supported_codecs.isdisjoint(names)
