"""Recording of a live source into a video file, from the first frame on, with the source's sound."""

from dataclasses import replace
from pathlib import Path

from ..frame import Frame, VideoInfo
from ..media.audio_encode import Hearing
from .base import Encoding
from .file import FileSink


class RecordingSink(FileSink):
    """A file of frames at the times of their capture, the first at 0; verified at the end."""

    def __init__(
        self,
        path: Path,
        *,
        like: VideoInfo,
        encoding: Encoding,
        overwrite: bool = False,
        sound: Hearing | None = None,
    ) -> None:
        """`like` is the live source. Raises SinkError."""
        super().__init__(
            path,
            like=replace(like, path=None, frames=None, duration=None),
            encoding=encoding,
            overwrite=overwrite,
            audio=False,
        )
        self._sound = sound
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
