"""SegmentCoder: encodes frames into segments, each with an encoder of its own."""

import io
from collections.abc import Mapping, Sequence

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from ..errors import SinkError
from ..frame import Frame
from ..media.encode import Coding, VideoEncoder, encode
from ..media.timestamps import Clock
from .journal import source_prints
from .segments import SegmentWriter


class SegmentCoder:
    """Encodes one segment after another: `begin`, `write` each frame, `end`.

    Whatever encodes a segment, here or in another process, encodes it the same.
    """

    def __init__(self, encoder: VideoEncoder, clock: Clock, *, files: Sequence[str]) -> None:
        """`files` are the source's, which must not change meanwhile. Raises OSError."""
        self.frames = 0
        """The number of frames in the current segment."""
        self._encoder = encoder
        self._clock = clock
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

    def begin(self, writer: SegmentWriter, coding: Coding, *, kind: str) -> None:
        """Set up an encoder; `kind` is FFmpeg's name of the output's container."""
        # A stream of the same kind of container sets the encoder up as the output's own; it is never
        # written there.
        self._scratch = av.open(io.BytesIO(), "w", format=kind)
        self._stream = self._encoder.add_stream(self._scratch, coding)
        self._coding, self._writer, self.frames = coding, writer, 0

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        assert self._stream is not None
        assert self._coding is not None
        assert self._writer is not None
        picture = self._encoder.picture(frame, self._coding)
        self._clock.stamp(picture, self._coding.ticks(frame), self._coding.time_base, frame.length)
        self._writer.add(self._clock.timed(encode(self._stream, picture), end=False))
        self.frames += 1

    def end(self) -> tuple[SegmentWriter, int, bytes]:
        """Returns (writer, which is to be closed; frames; the encoder's headers) of the finished
        segment.

        Raises SinkError when the source's files are no longer what they were.
        """
        assert self._stream is not None
        assert self._writer is not None
        self._writer.add(self._clock.timed(encode(self._stream, None), end=True))
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
