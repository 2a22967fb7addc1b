"""Video files through FFmpeg's libraries (PyAV), written beside the target and renamed at the end."""

from pathlib import Path

from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import SinkError
from ..frame import Frame, VideoInfo
from ..media.encode import Coding, VideoEncoder, encode
from ..media.timestamps import Clock
from ..resume.output_lock import Claim
from .base import Encoding, Sink
from .output_file import OutputFile, check_target, reporting


class FileSink(Sink):
    """Encodes frames into a file; the source's other streams are copied into it."""

    def __init__(
        self, path: Path, *, like: VideoInfo, encoding: Encoding, overwrite: bool, audio: bool
    ) -> None:
        """Check everything that can be checked before work starts. Raises SinkError."""
        self.uri = str(path)
        self.path = path
        self.overwrite = overwrite
        check_target(path, like=like, overwrite=True)
        with reporting(path):
            self._claim = Claim(path)
        try:
            check_target(path, like=like, overwrite=overwrite)
            self._encoder = VideoEncoder(encoding, suffix=path.suffix, like=like)
            self._output = OutputFile(path, self._encoder, like=like, audio=audio)
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
            self._encode(self._stream, picture)
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
                self._output.prove(frames=self.frames, duration=self.duration)
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

    def _encode(self, stream: VideoStream, picture: VideoFrame | None) -> None:
        """Encode a picture, or flush with None, and write the packets."""
        for packet in self._clock.timed(encode(stream, picture), end=picture is None):
            self._output.mux(packet)
