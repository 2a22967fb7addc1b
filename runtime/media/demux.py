"""Opening of files and pipes, and the choice of the video stream, with errors that give the reason."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO, RawIOBase
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import av.logging
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import SourceError, missing
from .pyav import open_input
from .tracks import main_video

STDIN = "-"
_BUFFER = 1 << 20
"""Bytes that are read from a pipe at once: a 4K frame takes 12 calls, not 400."""


class Pipe:
    """A stream of bytes that cannot be sought in: it has no `seek`, so that FFmpeg does not try to."""

    def __init__(self, file: RawIOBase) -> None:
        self.received = 0
        self._file = file

    def read(self, size: int) -> bytes:
        """Returns at most `size` bytes, as they come; none at the end."""
        data = self._file.read(size) or b""
        self.received += len(data)
        return data

    def close(self) -> None:
        """Close the named pipe; standard input stays open."""
        self._file.close()


def open_container(uri: str) -> tuple[InputContainer, Pipe | None]:
    """Opens a file or a pipe: `-` is standard input, and a path may be that of a named pipe.

    Raises SourceError with what is wrong and what to do.
    """
    if uri == STDIN:
        return _open_pipe(_standard_input(), "standard input")
    path = Path(uri)
    if path.is_dir():
        raise SourceError(f"{path} is a folder; for its pictures give '{path}/*.png'")
    if not path.exists():
        raise SourceError(missing(path))
    if not path.is_file():
        # Opening a named pipe waits here until a writer opens it.
        return _open_pipe(_named_pipe(path), uri)
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty")
    try:
        # A whole path: FFmpeg takes what stands before a colon for a protocol.
        return open_input(os.path.abspath(path)), None  # noqa: PTH100
    except FFmpegError as error:
        raise SourceError(
            f"{path} cannot be opened as a video: {error.strerror}. "
            "It may be cut off before its index, or not be a video at all"
        ) from error


def choose_stream(container: InputContainer, name: str, wanted: int | None = None) -> VideoStream:
    """Returns the video stream with the index `wanted`, else the one that FFmpeg would choose.

    Raises SourceError where it is not there or cannot be decoded.
    """
    stream = main_video(container)
    if wanted is not None:
        stream = next((s for s in container.streams.video if s.index == wanted), None)
    if stream is not None:
        context: Any = stream.codec_context  # None for what FFmpeg has no decoder for
        if context is None:
            if Path(name).is_file():
                refuse_encrypted(name, stream.index)
            codec = _codec(container, stream)
            raise SourceError(
                f"{name}: there is no decoder for its video{codec}; convert it to H.264 or FFV1 first, "
                "with a program that reads it"
            )
        if not stream.time_base:
            raise SourceError(f"{name}: the video stream has no time base; it cannot be timed")
        return stream
    if wanted is not None:
        raise SourceError(f"{name} has no video stream {wanted}; it holds {listed(container, 'video')}")
    kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing that is known"
    raise SourceError(f"{name} has no video stream; it holds {kinds}")


_LOOKED_AT = 4 << 20
"""Bytes at the beginning of a file in which marks of encryption are looked for."""
_TS_PACKET = 188
_PES = re.compile(rb"\x00\x00\x01[\xbd\xc0-\xef]..([\x80-\xbf])", re.DOTALL)
"""The head of a packet of MPEG-2, with the byte that tells whether it is scrambled."""
_SCRAMBLED = 0x30


def refuse_encrypted(path: str, index: int) -> None:
    """Raise SourceError for a file whose video is encrypted, as far as something tells of it."""
    if how := _encryption(path, index):
        raise SourceError(
            f"{path} is encrypted ({how}), and nothing here decrypts it: take a copy that is not"
        )


def _encryption(path: str, index: int) -> str:
    """Returns how the video of a file is encrypted, in words; empty where nothing tells of it."""
    with open_input(os.path.abspath(path)) as container:  # noqa: PTH100
        media: Any = container
        stream = media.streams[index]
        if "enc_key_id" in stream.metadata:
            return "ContentEncryption of Matroska"
        packets: Iterator[Any] = media.demux(stream)
        with suppress(FFmpegError):
            if any(packet.has_sidedata("encryption_info") for packet in islice(packets, 50)):
                return "Common Encryption of MP4"
        kind, number = container.format.name, int(stream.id)
    with Path(path).open("rb") as file:
        data = file.read(_LOOKED_AT)
    if kind == "mpegts":
        first = max(data.find(b"\x47"), 0)
        units = (data[at : at + 4] for at in range(first, len(data) - 4, _TS_PACKET))
        ours = [u for u in units if u[0] == 0x47 and (u[1] & 0x1F) << 8 | u[2] == number]
        return "scrambling of MPEG-TS" if any(unit[3] & 0xC0 for unit in ours) else ""
    if kind == "mpeg" and any(found[1][0] & _SCRAMBLED for found in _PES.finditer(data)):
        return "CSS, as on DVDs"
    return ""


def check_audio(container: InputContainer, name: str, wanted: int | None) -> None:
    """Raise SourceError where there is no audio stream with that index."""
    if wanted is not None and all(s.index != wanted for s in container.streams.audio):
        raise SourceError(f"{name} has no audio stream {wanted}; it holds {listed(container, 'audio')}")


def listed(container: InputContainer, kind: str) -> str:
    """Returns the streams of a kind in words that tell them apart: `stream 0 (h264, 1920x1080)`."""
    return ", ".join(map(_words, (s for s in container.streams if s.type == kind))) or "none"


def _words(stream: Any) -> str:
    context = stream.codec_context
    facts = [context.codec.canonical_name if context is not None else "unknown codec"]
    if context is not None and stream.type == "video":
        facts.append(f"{context.width}x{context.height}")
    if "language" in stream.metadata:
        facts.append(stream.metadata["language"])
    if stream.disposition & Disposition.attached_pic:
        facts.append("cover art")
    return f"stream {stream.index} ({', '.join(facts)})"


def _codec(container: InputContainer, stream: VideoStream) -> str:
    """Returns FFmpeg's name of a codec that it has no decoder for, which PyAV does not give."""
    described: Any = container
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        lines = str(described.dumps_format())
    finally:
        av.logging.set_level(level)
    match = re.search(rf"Stream #0:{stream.index}\b.*?Video: (\w+)(?: \((\w+) /)?", lines)
    names = [name for name in match.groups() if name and name != "none"] if match else []
    return f" ({', '.join(names)})" if names else ""


def _standard_input() -> RawIOBase:
    given: TextIO | None = sys.stdin  # None where the program was started without one
    try:
        if given is None or given.closed:
            raise SourceError("there is no standard input to read a video from")
        if given.isatty():
            raise SourceError(
                "standard input is a terminal: pipe a video into it, as in "
                "'ffmpeg -i clip.mp4 -f yuv4mpegpipe - | velatura run - out.mp4'"
            )
        # Unbuffered, since a buffer would wait for more than there is yet.
        return FileIO(given.fileno(), "rb", closefd=False)
    except OSError as error:
        raise SourceError(f"standard input cannot be read: {error}") from error


def _named_pipe(path: Path) -> RawIOBase:
    try:
        return FileIO(path, "rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _open_pipe(file: RawIOBase, name: str) -> tuple[InputContainer, Pipe]:
    pipe = Pipe(file)
    facts = os.fstat(file.fileno())
    # A file that the shell opened can be sought in, which some containers need.
    seekable = stat.S_ISREG(facts.st_mode)
    try:
        container = open_input(file if seekable else pipe, buffer_size=_BUFFER)
    except FFmpegError as error:
        pipe.close()
        if not (facts.st_size if seekable else pipe.received):
            raise SourceError(f"nothing came through {name}: what writes to it has failed") from error
        raise SourceError(
            f"{name} cannot be read as a video: {error.strerror}. A pipe carries y4m, Matroska, "
            "MPEG-TS or NUT; MP4 only with its index in front, since nothing can be sought in it"
        ) from error
    return container, pipe
