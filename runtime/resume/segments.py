"""Segments: files with the coded packets of a run of frames, which count only when they are whole.

How they are written, read, joined in order, and encoded.
"""

import hashlib
import io
import json
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..cache import digest_of
from ..errors import SinkError
from ..frame import Frame
from ..media.encode import Coding, VideoEncoder
from ..media.packet_index import Trace
from ..media.timestamps import Clock

MAGIC = b"velatura-segment-1\n"
SUFFIX = ".seg"
ENDS = 1 << 20
"""Bytes at either end of a file that enter its fingerprint."""
_RECORD = struct.Struct("<qqIB")
"""A packet's head: pts, duration, bytes, 1 for a key frame."""
_TAIL = struct.Struct("<II")
"""The end of the file: packets, and bytes of the description before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The description at the end of a segment's file."""

    journal: str
    """The journal that it belongs to."""
    number: int
    frames: int
    first: int
    """The first and the last frame's time, in units of the stream's time base."""
    last: int
    length: int
    """The duration of the last frame, in the same units."""
    depth: int
    """The largest number of places by which a picture is shown later than it is coded: the reordering
    of B-frames."""
    headers: str
    """Hash of the encoder's headers, which must be the same in all segments."""
    final: bool
    """True if the source ends here; all other segments have the same length."""
    trace: Trace | None = None
    """What was seen of the source; None of what earlier versions made."""

    def follows(self, other: "Segment") -> bool:
        """Returns whether the source was read on here from where it was read to in the segment
        before."""
        before, own = other.trace, self.trace
        if own is None or before is None:
            return own is None or not own.sought
        return own.before == before.end and (before.steady or not own.sought)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Returns the segment whose `dataclasses.asdict` this was. Raises ValueError or TypeError."""
        fields = cast("dict[str, Any]", json.loads(data))
        trace = fields.pop("trace", None)
        return cls(**fields, trace=Trace(**trace) if trace else None)


class SegmentWriter:
    """Writes packets into a file with a temporary name, which `close` makes durable and renames.

    The packets are kept as the encoder gave them, since every container of FFmpeg would round times or
    rewrite data. Decoding times are left out: `in_order` makes them.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.path = segment_path(folder, number)
        # One name for each process: another that was not seen to end may still write its own.
        self.partial = self.path.with_suffix(f".{os.getpid()}.partial")
        self._number = number
        # Never through a link that another process may have put there.
        self.partial.unlink(missing_ok=True)
        self._file: BinaryIO = self.partial.open("xb")
        self._hash = hashlib.sha256()
        self._times: list[int] = []
        self._last = self._length = 0
        self._decoded = 0
        self._write(MAGIC)

    def add(self, packets: "Iterable[Packet[Any]]") -> None:
        """Append packets, in coding order."""
        for packet in packets:
            data = bytes(packet)
            pts = int(packet.pts or 0)
            self._times.append(pts)
            if len(self._times) == 1 or pts > self._last:
                self._last, self._length = pts, int(packet.duration or 0)
            self._decoded = pts if packet.dts is None else int(packet.dts)
            key = int(packet.is_keyframe)
            self._write(_RECORD.pack(pts, int(packet.duration or 0), len(data), key))
            self._write(data)

    def close(
        self,
        *,
        journal: str,
        frames: int,
        headers: bytes,
        final: bool,
        trace: Trace | None,
        named: bool = True,
    ) -> Segment:
        """Finishes the file, syncs it to the disk; returns its description.

        It is then given its name, unless not `named`: who has the journal does so.
        """
        segment = Segment(
            journal=journal,
            number=self._number,
            frames=frames,
            first=min(self._times),
            last=max(self._times),
            length=self._length,
            depth=_depth(self._times, self._decoded),
            headers=digest_of(headers),
            final=final,
            trace=trace,
        )
        description = json.dumps(asdict(segment)).encode()
        self._write(description)
        self._write(_TAIL.pack(len(self._times), len(description)))
        self._file.write(self._hash.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if named:
            self.partial.replace(self.path)
            sync_folder(self.path.parent)
        return segment

    def abort(self) -> None:
        """Discard the file."""
        with suppress(OSError):  # a full disk may refuse what is still buffered
            self._file.close()
        self.partial.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


@dataclass(frozen=True, slots=True)
class Coded:
    """A packet of a segment."""

    pts: int
    duration: int
    key: bool
    data: bytes

    def packet(self, dts: int) -> "Packet[Any]":
        """Returns a packet for a muxer, with this decoding time."""
        made = cast("Packet[Any]", Packet(self.data))
        made.pts, made.dts, made.duration = self.pts, dts, self.duration
        made.is_keyframe = self.key
        return made


class SegmentFile:
    """A finished segment on disk."""

    def __init__(self, path: Path) -> None:
        """Check every byte. Raises ValueError or OSError when the file is not whole."""
        self.path = path
        size = path.stat().st_size
        hashed = hashlib.sha256()
        with path.open("rb") as file:
            left = size - hashed.digest_size
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                hashed.update(data)
                left -= len(data)
            if left or file.read() != hashed.digest():
                raise ValueError(f"{path} is damaged")
            file.seek(0)
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{path} is no segment")
            end = size - hashed.digest_size - _TAIL.size
            file.seek(end)
            self._packets, length = _TAIL.unpack(file.read(_TAIL.size))
            file.seek(end - length)
            self.about = Segment.from_json(file.read(length))

    def __iter__(self) -> Iterator[Coded]:
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            for _ in range(self._packets):
                pts, duration, size, key = _RECORD.unpack(file.read(_RECORD.size))
                yield Coded(pts, duration, bool(key), file.read(size))

    def times(self) -> list[int]:
        """Returns the times of all packets, without reading their data."""
        found: list[int] = []
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            for _ in range(self._packets):
                pts, _, size, _ = _RECORD.unpack(file.read(_RECORD.size))
                file.seek(size, os.SEEK_CUR)
                found.append(pts)
        return found

    @classmethod
    def whole(cls, path: Path) -> Self | None:
        """Returns the segment, or None where the file is damaged or missing."""
        try:
            return cls(path)
        except (OSError, ValueError, TypeError, struct.error):
            return None


def in_order(segments: Iterable[SegmentFile], depth: int) -> "Iterator[Packet[Any]]":
    """Yields all packets with their decoding times.

    An encoder's own decoding times would overlap where one segment ends and the next begins. They are
    computed: the n-th packet is decoded at the time of the n-th picture, `depth` places earlier, which
    is never later than its own time, and always later than the packet's before it.
    """
    times = _sorted_times(segments)
    ahead = [time for _, time in zip(range(depth + 1), times, strict=False)]
    early = deque(time - (ahead[-1] - ahead[0]) for time in ahead[:-1])
    waiting = deque(ahead)
    for segment in segments:
        for coded in segment:
            if early:
                yield coded.packet(early.popleft())
                continue
            yield coded.packet(waiting.popleft())
            following = next(times, None)
            if following is not None:
                waiting.append(following)


def _sorted_times(segments: Iterable[SegmentFile]) -> Iterator[int]:
    for segment in segments:
        yield from sorted(segment.times())


def _depth(times: list[int], last: int) -> int:
    """Returns an encoder's delay in packets, by their times and the last packet's decoding time."""
    rank = {time: place for place, time in enumerate(sorted(times))}
    needed = max(place - rank[time] for place, time in enumerate(times))
    # An encoder may allow for more than these pictures needed.
    return max(needed, len(times) - 1 - rank.get(last, len(times) - 1))


def segment_path(folder: Path, number: int) -> Path:
    """Returns the path of a segment."""
    return folder / f"{number:06d}{SUFFIX}"


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, where folders can be synced, so that a new name in it survives."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_print(path: Path) -> str:
    """Returns a file's fingerprint: its size and a hash of both ends. Raises OSError."""
    size = path.stat().st_size
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        hashed.update(file.read(ENDS))
        file.seek(max(size - ENDS, 0))
        hashed.update(file.read(ENDS))
    return f"{size} bytes, sha256 {hashed.hexdigest()[:16]}"


def source_prints(files: Sequence[str]) -> dict[str, str]:
    """Returns fingerprints of the source's files, by the words in which a change is reported."""
    stats = [(Path(file).name, os.stat(file)) for file in files]  # noqa: PTH116 - one call
    listed = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    ends = [file_print(Path(file)) for file in dict.fromkeys((*files[:1], *files[-1:]))]
    latest = max((stat.st_mtime_ns for _, stat in stats), default=0)
    found = {"the source's contents": "; ".join(ends), "the source's time": f"{latest} ns"}
    if len(files) > 1:
        found["the source's pictures"] = f"{len(files)}, sha256 {digest_of(listed.encode())[:16]}"
    return found


class SegmentCoder:
    """Encodes one segment after another: `begin`, `write` each frame, `end`.

    Whatever encodes a segment, here or in another process, encodes it the same.
    """

    def __init__(self, encoder: VideoEncoder, *, files: Sequence[str]) -> None:
        """`files` are the source's, which must not change meanwhile. Raises OSError."""
        self.frames = 0
        """The number of frames in the current segment."""
        self._encoder = encoder
        self._clock = Clock(Fraction(1))
        self._files = files
        self._known: Mapping[str, str] = source_prints(files)
        self._coding: Coding | None = None
        self._scratch: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._writer: SegmentWriter | None = None

    @property
    def open(self) -> bool:
        """True while a segment is being encoded."""
        return self._stream is not None

    @property
    def source(self) -> Mapping[str, str]:
        """Fingerprints of the source's files, by the words in which a change is reported."""
        return self._known

    def begin(self, writer: SegmentWriter, coding: Coding, clock: Clock, *, kind: str) -> None:
        """Set up an encoder; `kind` is FFmpeg's name of the output's container, `clock` one that has
        seen no later frame."""
        # A stream of the same kind of container sets the encoder up as the output's own; it is never
        # written there.
        self._scratch = av.open(io.BytesIO(), "w", format=kind)
        self._stream = self._encoder.add_stream(self._scratch, coding)
        self._coding, self._clock, self._writer, self.frames = coding, clock, writer, 0

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        assert self._stream is not None
        assert self._coding is not None
        assert self._writer is not None
        picture = self._encoder.picture(frame, self._coding)
        self._clock.stamp(picture, self._coding.ticks(frame), self._coding.time_base, frame.length)
        packets = self._encoder.packets(self._stream, picture, frame.captions)
        self._writer.add(self._clock.timed(packets, end=False))
        self.frames += 1

    def end(self) -> tuple[SegmentWriter, int, bytes]:
        """Returns (writer, which is to be closed; frames; the encoder's headers) of the finished
        segment.

        Raises SinkError when the source's files are no longer what they were.
        """
        assert self._stream is not None
        assert self._writer is not None
        self._writer.add(self._clock.timed(self._encoder.packets(self._stream, None), end=True))
        if source_prints(self._files) != self._known:
            raise SinkError(
                "the source was changed or replaced while it was read: --restart begins anew"
            )
        ended = self._writer, self.frames, headers_of(self._stream)
        self._writer = None
        self._close()
        return ended

    def abort(self) -> None:
        """Discard the current segment."""
        self._close()
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _close(self) -> None:
        if self._scratch is not None:
            self._scratch.close()
        self._scratch = self._stream = None
        self.frames = 0


def headers_of(stream: VideoStream) -> bytes:
    """Returns the headers that the encoder puts before all packets."""
    return stream.codec_context.extradata or b""
