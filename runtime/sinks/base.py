"""The contract of a sink."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from ..frame import Frame, VideoInfo
from ..media.options import Encoding, Quality

if TYPE_CHECKING:
    from ..media.passthrough import Passage
    from ..verify.picture import Likeness


__all__ = ["PICTURES", "Encoding", "HasInfo", "Quality", "Sink"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of pictures: an output with one of them is an image sequence."""


class HasInfo(Protocol):
    """An object with facts about its video, as a source has."""

    info: VideoInfo


RECORDING = 240
"""Frames that wait for a sink which wants them all, such as a file, before any is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What happens to frames of a live run that a sink cannot take at once."""

    depth: int = 1
    """The most frames that wait: 1 for display."""
    keeps: bool = False
    """True if all that wait are still written at the end."""
    asks: bool = True
    """True if the user's policy says which frame is dropped beyond that; else it is the oldest."""


class Sink(ABC):
    """Takes frames in order of time."""

    uri: str
    delivery: Delivery = Delivery()
    frames: int = 0
    """The number of frames written."""
    duration: float = 0.0
    """Seconds from the first frame's beginning to the last frame's end, where that is known."""
    notes: tuple[str, ...] = ()
    """Warnings about what was changed or left out, one line each."""
    plan: "tuple[Passage, ...]" = ()
    """The decision about each of the source's other streams."""
    kept: int = 0
    """The number of the source's first frames that an interrupted run has finished: they must not be
    written again."""
    left: int = 0
    """The number of frames, after `abort`, that the same command need not make again."""
    ready: Callable[[Path], None] | None = None
    """Called with the path of a finished video file just before it gets its final name."""

    likeness: "Likeness | None" = None
    """How the pictures of a video file resemble the source's, which is then looked at when it is
    written; None for frames that may show anything."""

    @property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """Returns the backend and precision that made each model's frames in the earlier run, if any
        are kept."""
        return ()

    def choose(self, choices: Sequence[tuple[str, str]]) -> None:
        """Note the backend and precision that each model runs with, before the first frame."""
        del choices

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take one frame. Raises SinkError when it cannot be kept."""

    @abstractmethod
    def close(self) -> None:
        """Finish: only now does the result appear under its name. Raises SinkError."""

    def stop_early(self, *, interrupted: bool = False) -> None:
        """Note before `close` that the source goes on: copied audio then ends with the video.

        `interrupted` is true when the user stopped the run, rather than the limit of frames.
        """
        del interrupted

    @abstractmethod
    def abort(self) -> None:
        """Give up: remove all that was written and leave what was there before untouched."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
