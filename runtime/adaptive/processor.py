"""The interface between the live pump and the processing of a frame."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..frame import Frame
from ..stages import Conform, Stage

Tell = Callable[[str], None]
"""Receives one line about an event that matters to a person; may be called from any thread."""


@dataclass(frozen=True, slots=True)
class Processed:
    """A frame on its way out."""

    frame: Frame
    passed: bool = False
    """True if it passed without the models, since they are off or have failed."""
    repeated: bool = False
    """True if an earlier frame's pixels replace it."""
    late: bool = False
    """True if it passed since the models were not done in time."""
    uncovered: npt.NDArray[np.bool_] | None = None
    """(H, W) of the given frame: pixels where an earlier result, warped, shows something else: they
    have come into view since, or have no known motion. None is nowhere."""


class Processor(ABC):
    """Makes every frame into one that is shown. Called from one thread; the other methods from any.

    It never raises for a frame: what cannot be processed passes through, at the size that all have.
    """

    @abstractmethod
    def process(self, frame: Frame) -> Processed:
        """Returns the processed frame, in time."""

    def observe(self, latency: float, *, period: float) -> None:
        """Record the seconds from a frame's capture to its showing; `period` is the seconds between two
        frames."""
        del latency, period

    @property
    def rung(self) -> str:
        """The present rung, in a few words."""
        return ""

    def listen(self, tell: Tell) -> None:
        """Call `tell` with failures, changes, and recoveries from now on."""
        del tell

    def revive(self, reason: str) -> None:
        """Restart the models: the output does not change though the input does."""
        del reason

    def close(self) -> None:
        """Close the engines. Nothing is processed any more."""
        return


class StagesProcessor(Processor):
    """Stages in a row, none of which is expected to fail or be late."""

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        self._stages = tuple(stages)
        self._passes = all(isinstance(stage, Conform) for stage in self._stages)

    def process(self, frame: Frame) -> Processed:
        for stage in self._stages:
            frame = stage(frame)
        return Processed(frame, passed=self._passes)
