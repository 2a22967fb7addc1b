"""The contract of a sink, and how a file is to be encoded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from ..frame import Frame, VideoInfo

if TYPE_CHECKING:
    from ..media.passthrough import Passage


class HasInfo(Protocol):
    """An object with facts about its video, as a source has."""

    info: VideoInfo


Quality = Literal["draft", "good", "archive"]
"""`draft`: fast, to look at. `good`: hard to tell from the original. `archive`: nothing lost that
shows; slow and large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The encoding of frames into a stream. None leaves the choice to the codec."""

    codec: str = "auto"
    """h264, hevc, av1, vp9, ffv1, prores, gif, rawvideo, h264_nvenc, hevc_nvenc, av1_nvenc, the name of
    any other encoder of FFmpeg, or `auto`: what suits the kind of file, H.264 in most."""
    quality: Quality = "good"
    """The level of quality, which sets the codec's rate and preset where `crf` and `preset` do not."""
    options: tuple[tuple[str, str], ...] = ()
    """Options of the FFmpeg encoder, by its own names; they override all others."""
    crf: int | None = None
    """Constant quality, lower is better; 18 for H.264 unless given."""
    preset: str | None = None
    """Speed against size, in the encoder's terms; `veryfast` for H.264 and HEVC unless given. A profile
    of ProRes."""
    pix_fmt: str | None = None
    """FFmpeg's name of the pixel format; by default that of the frames where the encoder takes it."""
    background: tuple[int, int, int] = (0, 0, 0)
    """Red, green and blue of 0 to 255 that frames are laid over where the file holds no opacity."""


class Sink(ABC):
    """Takes frames in order of time."""

    uri: str
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
