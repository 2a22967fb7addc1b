"""Steady: what a processor makes, in keeping with what it has shown before."""

from dataclasses import replace

from ..frame import Frame
from ..stages.temporal import Stabiliser
from .processor import Processed


class Steady:
    """A stabiliser for results that may be late, moved, or left out. Called from one thread.

    `strength` may be set from any; 0, as at the beginning, lets all pass.
    """

    def __init__(self) -> None:
        self._stabiliser = Stabiliser(0.0)
        self._holds = False

    @property
    def strength(self) -> float:
        """How much earlier results count, 0..1. Raises ValueError when set beyond."""
        return self._stabiliser.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._stabiliser.strength = value

    def __call__(self, frame: Frame, made: Processed) -> Processed:
        """The result of a frame. While models are late, what was shown last is shown again, moved."""
        if not self.strength:
            return made
        if made.passed and not (made.late and self._holds):
            self.forget()
            return made
        fresh = not (made.passed or made.repeated)
        shown = self._stabiliser(frame, made.frame, fresh=fresh, uncovered=made.uncovered)
        if made.passed and shown is made.frame:
            self._holds = False
            return made
        self._holds |= fresh
        return replace(made, frame=shown, passed=False, repeated=made.repeated or made.passed)

    def forget(self) -> None:
        """Nothing that was shown counts for what comes."""
        if self._holds:
            self._stabiliser.forget()
            self._holds = False
