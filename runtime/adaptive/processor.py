"""Processor: the interface between who has frames and what is done to them.

Steady: a stabiliser of a processor's results.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import numpy.typing as npt

from ..frame import Frame
from ..stages import Conform, Stage
from ..stages.base import Chain
from ..temporal.reprojection_map import Track
from ..temporal.stabilizer import Stabiliser
from ..temporal.warp import filled, haloed, seen_motion

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
        self._chain = Chain(stages)
        self._passes = all(isinstance(stage, Conform) for stage in self._chain.stages)

    def process(self, frame: Frame) -> Processed:
        return Processed(self._chain(frame), passed=self._passes)


class Steady:
    """A stabiliser of results that may be late, warped, or left out. Used from one thread.

    `strength` may be set from any; 0, as at the beginning, lets all pass.
    """

    def __init__(self, stand_in: float = inf) -> None:
        """`stand_in` seconds after the first late frame the last result is no longer shown for it."""
        self._stabiliser = Stabiliser(0.0)
        self._stand_in = stand_in
        self._first = True
        """True if no frame is known that the next one could be compared with."""
        self._track: tuple[Track | None] | None = None
        """The places of the present frame's pixels, once it has been followed for the models."""
        self._late_since: float | None = None
        """The time at which frames were first late after the last result; None if they are not."""

    @property
    def strength(self) -> float:
        """The weight of earlier results, 0..1. Raises ValueError when set out of range."""
        return self._stabiliser.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._stabiliser.strength = value

    def followed(self, frame: Frame, *, moves: bool) -> Frame:
        """Returns a frame for the models; its motion is NaN where it shows something new.

        Without `moves`, when no result is warped by that, it is the frame itself.
        """
        self._track = None
        if not moves or frame.motion is None:
            return frame
        first = self._first
        track = self._follow(frame)
        self._track = (track,)
        # The motion is kept for longer than an engine leaves its memory unchanged.
        return replace(frame, motion=frame.motion.copy() if first else seen_motion(frame, track))

    def __call__(
        self, frame: Frame, made: Processed, plain: Callable[[], Frame] | None = None
    ) -> Processed:
        """Returns a frame's result stabilised, and what has come into view filled in.

        While models are late, the last shown picture is shown again, warped. `plain` gives the frame
        without models in the results' shape; None leaves unfilled what has come into view.
        """
        tracked, self._track = self._track, None
        if not made.late:
            self._late_since = None
        if frame.cut or not self.strength:
            self._forget_results()
        if made.passed and not (made.late and self._stands_in()):
            self._forget_results()
            if tracked is None:
                self.forget()
            return made
        shown, uncovered = made.frame, made.uncovered
        if uncovered is not None:
            uncovered = haloed(uncovered, frame.depth)
            if plain is not None and shown.format.family == "rgb":
                shown = filled(shown, plain(), uncovered)
        if self.strength:
            fresh = not (made.passed or made.repeated)
            track = self._follow(frame) if tracked is None else tracked[0]
            shown = self._stabiliser.blend(shown, track, fresh=fresh, uncovered=uncovered)
        elif tracked is None:
            self.forget()
        if shown is made.frame and (made.passed or not self.strength):
            return made
        return replace(made, frame=shown, passed=False, repeated=made.repeated or made.passed)

    def forget(self) -> None:
        """Forget all that was shown."""
        if not self._first:
            self._stabiliser.forget()
            self._first = True

    def _forget_results(self) -> None:
        if self._stabiliser.holds:
            self._stabiliser.forget_results()

    def _follow(self, frame: Frame) -> Track | None:
        self._first = False
        return self._stabiliser.follow(frame)

    def _stands_in(self) -> bool:
        """Returns whether the last result is shown for a late frame: for a while."""
        if not self._stabiliser.holds:
            return False
        now = time.monotonic()
        if self._late_since is None:
            self._late_since = now
        return now - self._late_since < self._stand_in
