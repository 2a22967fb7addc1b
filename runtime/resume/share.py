"""Share: the part of one output that one of several processes makes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..errors import SinkError
from ..frame import Frame
from ..media.encode import Coding, VideoEncoder
from ..media.timestamps import Clock
from ..sinks.base import Encoding, Sink
from ..sinks.output_file import reporting
from .journal import Choices, State
from .segment_encoder import SegmentCoder
from .segments import SegmentWriter, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of `of` equal parts of an output that is made in segments: every `of`-th segment."""

    path: Path
    """The path of the output."""
    folder: Path
    """The journal's folder, whose lock is held by the process that hands out the shares."""
    state: State
    """The journal's state."""
    coding: Coding
    kind: str
    """FFmpeg's name of the container."""
    encoding: Encoding
    files: tuple[str, ...]
    """The source's files."""
    made: frozenset[int]
    """Numbers of the segments that exist already."""
    number: int = 0
    """The number of this part, from 0."""
    of: int = 1

    @property
    def choices(self) -> Choices:
        """Backend and precision of each model."""
        return self.state.choices

    def takes(self, frame: int) -> bool:
        """Returns whether that frame of the film, from 0, belongs to this share."""
        segment = frame // self.state.length
        return segment % self.of == self.number and segment not in self.made

    def leads(self, frame: int, lead: int) -> bool:
        """Returns whether a segment of this share begins within `lead` frames after that frame."""
        begin = (frame // self.state.length + 1) * self.state.length
        return begin - frame <= lead and self.takes(begin)

    def segments(self) -> Iterator[int]:
        """Yields the numbers of this share's segments, without end."""
        return (n for n in count(self.number, self.of) if n not in self.made)


class ShareSink(Sink):
    """Encodes the frames of one share into its segments.

    The frames come in order and are those that `Share.takes`. The segments are those that a JournalSink
    makes.
    """

    def __init__(self, share: Share) -> None:
        """Set up the encoder. Raises SinkError."""
        self.uri = str(share.path)
        self._share = share
        self._numbers = share.segments()
        self._encoder = VideoEncoder(share.encoding, suffix=share.path.suffix)
        with reporting(share.path):
            self._coder = SegmentCoder(self._encoder, Clock(share.coding.rate), files=share.files)
            # It may have been replaced while this process started.
            if any(share.state.settings.get(k) != v for k, v in self._coder.source.items()):
                raise SinkError(f"the source of {self.uri} was changed: --restart begins anew")

    def write(self, frame: Frame) -> None:
        share = self._share
        with reporting(share.path):
            if not self._coder.open:
                writer = SegmentWriter(share.folder, next(self._numbers))
                self._coder.begin(writer, share.coding, kind=share.kind)
            self._coder.write(frame)
            if self._coder.frames == share.state.length:
                self._end_segment(final=False)
        self.frames += 1

    def close(self) -> None:
        """End the last segment; only the source's last one may be short."""
        with reporting(self._share.path):
            if self._coder.open:
                self._end_segment(final=True)

    def abort(self) -> None:
        self._coder.abort()

    def _end_segment(self, *, final: bool) -> None:
        writer, frames, headers = self._coder.end()
        if digest(headers) != self._share.state.headers:
            writer.abort()
            raise SinkError(f"{self.uri}: this encoder writes other headers in another process")
        writer.close(journal=self._share.state.id, frames=frames, headers=headers, final=final)


class OnlySink(Sink):
    """Passes only some frames on to a sink, which is not closed: the others only prepare the stages'
    state."""

    def __init__(self, sink: Sink, wanted: Callable[[Frame], bool]) -> None:
        self.uri = sink.uri
        self._sink = sink
        self._wanted = wanted

    def write(self, frame: Frame) -> None:
        if self._wanted(frame):
            self._sink.write(frame)
            self.frames += 1

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None
