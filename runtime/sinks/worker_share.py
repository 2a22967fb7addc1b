"""Sinks of a worker process, which makes some of the segments of an output."""

from collections.abc import Callable

from ..errors import SinkError
from ..frame import Frame
from ..media.encode import VideoEncoder
from ..media.timestamps import Clock
from ..resume.journal import Share
from ..resume.segments import SegmentCoder, SegmentWriter
from .base import Sink
from .output_file import reporting


class ShareSink(Sink):
    """Encodes the frames of one share into its segments.

    The frames come in order and are those that `Share.takes`. The segments are those that a JournalSink
    makes.
    """

    def __init__(self, share: Share) -> None:
        """Set the encoder up. Raises SinkError."""
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
        if not self._share.state.has_headers(headers):
            writer.abort()
            raise SinkError(f"{self.uri}: this encoder writes other headers in another process")
        writer.close(journal=self._share.state.id, frames=frames, headers=headers, final=final)


class OnlySink(Sink):
    """Gives only some frames to a sink, which stays its owner's: the others led up to them."""

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
