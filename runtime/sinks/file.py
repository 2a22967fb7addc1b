"""Video files through FFmpeg's libraries (PyAV), written beside the target and renamed at the end."""

from dataclasses import replace
from math import prod
from pathlib import Path

from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import SinkError
from ..frame import Frame
from ..media.encode import Coding, VideoEncoder
from ..media.timestamps import Clock
from .base import RECORDING, Delivery, Sink
from .kind import Writing
from .output_file import OutputFile, claim_target, reporting
from .segmented_file import JournalSink

MOST_WAITING = 512 << 20
"""Bytes of frames that wait for a recording at most."""


class FileSink(Sink):
    """Encodes frames into a file; the source's other streams are copied into it."""

    def __init__(self, uri: str, writing: Writing) -> None:
        """Check everything that can be checked before work starts. Raises SinkError."""
        self.uri = uri
        self.path = path = Path(uri)
        self.overwrite = writing.overwrite
        like = writing.like
        self._claim = claim_target(path, like=like, overwrite=writing.overwrite)
        try:
            self._encoder = VideoEncoder(writing.encoding, suffix=path.suffix, like=like)
            self._output = OutputFile(path, self._encoder, like=like, audio=writing.audio)
        except BaseException:
            self._claim.release()
            raise
        self._clock = Clock(like.rate)
        self._coding: Coding | None = None
        self._stream: VideoStream | None = None
        self.notes = (*self._claim.notes, *self._output.notes, *self._encoder.notes)
        self.plan = self._output.plan

    def write(self, frame: Frame) -> None:
        with reporting(self.path):
            if self._coding is None or self._stream is None:
                self._coding = self._encoder.coding(frame)
                self._stream = self._output.begin(self._coding)
                self.notes = (*self._claim.notes, *self._output.notes, *self._encoder.notes)
            picture = self._encoder.picture(frame, self._coding)
            self._clock.stamp(picture, self._coding.ticks(frame), self._coding.time_base, frame.length)
            self.duration = self._clock.duration
            self._encode(self._stream, picture, frame.captions)
            self._output.pass_until(float(self._clock.last * self._coding.time_base))
        self.frames += 1

    def close(self) -> None:
        """Flush the encoder, copy the rest of the other streams, finish the file, give it its name."""
        if self._stream is None:
            self.abort()
            raise SinkError(f"{self.path}: no frame came, so nothing was written")
        try:
            with reporting(self.path):
                self._encode(self._stream, None)
                self._output.finish()
                # Captions may begin late.
                self.notes = (*self._claim.notes, *self._output.notes, *self._encoder.notes)
                self._output.prove(frames=self.frames, duration=self.duration, likeness=self.likeness)
                if self.ready is not None:
                    self.ready(self._output.partial)
                self._output.publish(overwrite=self.overwrite)
        except BaseException:
            self.abort()
            raise
        self._claim.release()

    def abort(self) -> None:
        self._output.abort()
        self._claim.release()

    def stop_early(self, *, interrupted: bool = False) -> None:
        del interrupted
        self._output.end_at(self._clock.end)

    def _encode(self, stream: VideoStream, picture: VideoFrame | None, captions: bytes = b"") -> None:
        """Encode a picture, or flush with None, and write the packets."""
        packets = self._encoder.packets(stream, picture, captions)
        for packet in self._clock.timed(packets, end=picture is None):
            self._output.mux(packet)


class RecordingSink(FileSink):
    """A file of frames at the times of their capture, the first at 0; verified at the end."""

    def __init__(self, uri: str, writing: Writing) -> None:
        """Check everything that can be checked before a frame is there. Raises SinkError."""
        like = writing.like
        unread = replace(like, path=None, frames=None, duration=None)
        super().__init__(uri, replace(writing, like=unread, audio=False))
        # 240 frames of a large picture would be gigabytes.
        size = sum(map(prod, like.format.plane_shapes(like.width, like.height)))
        fits = MOST_WAITING // max(size * like.format.dtype.itemsize, 1)
        self.delivery = Delivery(depth=max(min(RECORDING, fits), 8), keeps=True)
        self._sound = writing.hear()
        self._origin: int | None = None

    def write(self, frame: Frame) -> None:
        if self._origin is None:
            self._origin = frame.pts
            if self._sound is not None:
                self._output.carry(self._sound, origin=frame.seconds)
        super().write(replace(frame, pts=frame.pts - self._origin))

    def close(self) -> None:
        """Finish the file; the sound ends with the last frame. A file that cannot be finished is kept
        as it is."""
        self.stop_early()
        super().close()

    def abort(self) -> None:
        # What was filmed cannot be filmed again: it stays, under a name that says so.
        if self.frames:
            self._output.keep()
            self._claim.release()
        else:
            super().abort()


def open_film(uri: str, writing: Writing) -> Sink:
    """Open a video file, made in segments where it has a journal. Raises SinkError."""
    return FileSink(uri, writing) if writing.journal is None else JournalSink(uri, writing)


open_live = RecordingSink
