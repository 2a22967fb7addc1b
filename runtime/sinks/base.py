"""The contract of a sink."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ..frame import Frame, VideoInfo
from ..media.options import Encoding, Quality

if TYPE_CHECKING:
    from ..media.passthrough import Passage


__all__ = ["PICTURES", "Encoding", "HasInfo", "Quality", "Sink"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of pictures: an output with one of them is an image sequence."""


class HasInfo(Protocol):
    """What a sink needs of a source."""

    info: VideoInfo


class Sink(ABC):
    """Takes frames in order of time."""

    uri: str
    frames: int = 0
    """How many frames were written."""
    duration: float = 0.0
    """Seconds from the first frame's beginning to the last frame's end, where that is known."""
    notes: tuple[str, ...] = ()
    """What had to be changed or left out, one line each."""
    plan: "tuple[Passage, ...]" = ()
    """What becomes of each of the source's other streams."""
    kept: int = 0
    """How many of the source's first frames an earlier run, which was cut off, left whole: they must
    not be written again."""
    left: int = 0
    """After `abort`: frames that the same command need not make again."""
    ready: Callable[[Path], None] | None = None
    """Called with a finished video file just before it gets its name; it stays the same file then."""

    @property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """Backend and precision that made each model's frames in the earlier run, if any are kept."""
        return ()

    def choose(self, choices: Sequence[tuple[str, str]]) -> None:
        """Hear which backend and precision each model runs with, before the first frame."""
        del choices

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take one frame. Raises SinkError when it cannot be kept."""

    @abstractmethod
    def close(self) -> None:
        """Finish: only now does the result appear under its name. Raises SinkError."""

    def stop_early(self, *, interrupted: bool = False) -> None:
        """Say before `close` that the source goes on: copied audio then ends with the video.

        `interrupted` when somebody stopped the run, rather than that so many frames were wanted.
        """
        del interrupted

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
