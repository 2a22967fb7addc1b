"""The contract between the live pump and what happens to a frame."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..frame import Frame
from ..stages import Conform, Stage

Tell = Callable[[str], None]
"""Hears, in one line, of what a person may want to know; may be called from any thread."""


@dataclass(frozen=True, slots=True)
class Processed:
    """A frame on its way out."""

    frame: Frame
    passed: bool = False
    """Whether it went through without the models, since they are off or have failed."""
    repeated: bool = False
    """Whether an earlier frame's pixels stand in for it."""
    late: bool = False
    """Whether it passed since the models were not done in time."""
    uncovered: npt.NDArray[np.bool_] | None = None
    """(H, W) of the given frame: where a result that was made from an earlier one, and moved, shows
    something else: what has come into view since, or has not said where it was. None is nowhere."""


class Processor(ABC):
    """Makes of every frame one that is shown. Called from one thread; the rest from any.

    It never raises for a frame: what cannot be processed passes through, at the size that all have.
    """

    @abstractmethod
    def process(self, frame: Frame) -> Processed:
        """Make it, in time."""

    def observe(self, latency: float, *, period: float) -> None:
        """Hear how many seconds after its capture a frame was shown; `period` is between two."""
        del latency, period

    @property
    def rung(self) -> str:
        """How much is done to a frame at present, in a few words."""
        return ""

    def listen(self, tell: Tell) -> None:
        """Hear of failures, changes, and returns from now on."""
        del tell

    def revive(self, reason: str) -> None:
        """Begin anew: what comes out does not change though what goes in does."""
        del reason

    def close(self) -> None:
        """Let engines go. Nothing is processed any more."""
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
