"""The contract of a sink, and how a file is to be encoded."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ..frame import Frame, VideoInfo


class HasInfo(Protocol):
    """What a sink needs of a source."""

    info: VideoInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How frames become a stream. None leaves the choice to the codec."""

    codec: str = "h264"
    """h264, hevc, av1, vp9, ffv1, or the name of an FFmpeg encoder."""
    crf: int | None = None
    """Constant quality, lower is better; 18 for H.264 unless given."""
    preset: str | None = None
    """Speed against size, in the encoder's words; `veryfast` for H.264 and HEVC unless given."""
    pix_fmt: str | None = None
    """FFmpeg's name of the pixel format; the frames' own where the encoder takes it."""


class Sink(ABC):
    """Takes frames in order of time."""

    uri: str
    frames: int = 0
    """How many frames were written."""
    duration: float = 0.0
    """Seconds from the first frame's beginning to the last frame's end, where that is known."""
    notes: tuple[str, ...] = ()
    """What had to be changed or left out, one line each."""

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take one frame. Raises SinkError when it cannot be kept."""

    @abstractmethod
    def close(self) -> None:
        """Finish: only now does the result appear under its name. Raises SinkError."""

    def stop_early(self) -> None:
        """Say before `close` that the source goes on: copied audio then ends with the video."""
        return

    @abstractmethod
    def abort(self) -> None:
        """Give up: leave no trace, and what was there before untouched."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
