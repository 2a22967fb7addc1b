"""Stabilize: results of models that stay on the surfaces they were painted on."""

import math
from collections.abc import Callable, Sequence

from ..frame import Array, Frame
from ..stages.base import Chain, Stage
from ..stages.neural import Neural
from .history import History
from .planes import Mask
from .reprojection_map import Track, Tracker

MOST = 0.98
"""The part of earlier results in the picture at full strength: errors must fade."""
FADED = 0.05
"""The part of a result in the picture below which it no longer counts."""


class Stabiliser:
    """Blends each result with the one before it, moved along the motion of the source.

    Earlier results count where the source shows what it showed then: not where something else was in
    front of it, not where its colours have changed, and not after a cut. Motion and depth are those of
    the source's frames; without motion it is estimated by optical flow. Used from one thread, with
    frames in order.
    """

    def __init__(self, strength: float = 0.9) -> None:
        """`strength` is 0 (off: results pass as they are) to 1. Raises ValueError beyond."""
        self._tracker = Tracker()
        self._history = History()
        self._heir: History | None = None
        """The history of the next restart, while it is being built up."""
        self.strength = strength

    @property
    def strength(self) -> float:
        """The weight of earlier results, 0..1. Raises ValueError when set out of range."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._weight = weight_of(value)
        self._strength = float(value)

    @property
    def holds(self) -> bool:
        """True if there are earlier results."""
        return not self._history.empty

    @property
    def overlap(self) -> int:
        """The number of frames after which a result has faded."""
        return math.ceil(math.log(FADED) / math.log(self._weight)) if self._weight > FADED else 1

    def __call__(
        self, source: Frame, made: Frame, *, fresh: bool = True, uncovered: Array | Mask | None = None
    ) -> Frame:
        """Returns `made` blended with what was shown before.

        `source` is the input of the models, `made` their result, of the same size or a multiple of it.
        Without `fresh`, `made` only replaces a missing result: the earlier picture is shown again,
        warped, and `made` only where there is none. `uncovered`, (H, W) booleans of the source's size,
        says where `made` is only such a replacement, though it is a result elsewhere. Raises ValueError
        where motion, depth or reactivity are not of the source's size.
        """
        if not self._strength:
            self.forget()
            return made
        return self.blend(made, self.follow(source), fresh=fresh, uncovered=uncovered)

    def follow(self, source: Frame) -> Track | None:
        """Returns the places of a frame's pixels in the frame before; None where that does not
        count."""
        return self._tracker.follow(source)

    def blend(
        self,
        made: Frame,
        track: Track | None,
        *,
        fresh: bool = True,
        uncovered: Array | Mask | None = None,
    ) -> Frame:
        """Returns the blended result of a frame that `follow` has found."""
        shown = self._history.blend(made, track, self._weight, fresh=fresh, uncovered=uncovered)
        if self._heir is not None:
            self._heir.blend(made, track, self._weight, fresh=fresh, uncovered=uncovered)
        return shown

    def prepare(self) -> None:
        """Build up a second history beside the first, from the next frame on."""
        self._heir = History()

    def restart(self) -> None:
        """Replace the history by the second one, or by none."""
        self._history, self._heir = self._heir or History(), None

    def forget_results(self) -> None:
        """Forget the results that were shown, but not the source's last frame."""
        self._history.forget()
        self._heir = None

    def forget(self) -> None:
        """Forget all that was shown."""
        self._tracker.forget()
        self.forget_results()


class Stabilize(Chain):
    """Stages whose result is stabilised: `Stabilize([Neural(engine)], 0.9)`.

    Frames must come in order, as a pump gives them, and results must be asked for in order.
    """

    def __init__(
        self, stages: Sequence[Stage], strength: float = 0.9, *, spell: int | None = None
    ) -> None:
        """`strength` is that of `Stabiliser`.

        With `spell`, the history restarts at every `spell`-th frame of the source, from one that was
        built up over the `overlap` frames before: a process that begins with those makes the same
        frames as one that has made all before. Raises ValueError for a strength beyond 0..1.
        """
        super().__init__(stages)
        self._stabiliser = Stabiliser(strength)
        self.overlap = min(self._stabiliser.overlap, spell or 0)
        """The number of frames before a restart that its history is built up over."""
        names = [str(stage.engine.card.name) for stage in self.stages if isinstance(stage, Neural)]
        self.__name__ = " and ".join([*names, "stabilised"])
        self._spell = spell
        self._first: int | None = None
        self._last = 0

    @property
    def strength(self) -> float:
        """The weight of earlier results, 0..1. Raises ValueError when set out of range."""
        return self._stabiliser.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._stabiliser.strength = value

    def submit(self, frame: Frame) -> Callable[[], Frame]:
        pending = super().submit(frame)

        def result() -> Frame:
            made = pending()
            self._count(frame)
            return self._stabiliser(frame, made)

        return result

    def _count(self, source: Frame) -> None:
        """Switch histories at a restart, and forget all where frames are missing."""
        if self._first is None:
            self._first, self._last = source.index, source.index - 1
        if source.index != self._last + 1:
            self._stabiliser.forget()
        self._last = source.index
        if self._spell is None:
            return
        number = (source.index - self._first) % self._spell
        if number == 0 and source.index != self._first:
            self._stabiliser.restart()
        if number == self._spell - self.overlap or (not number and self.overlap == self._spell):
            self._stabiliser.prepare()


def weight_of(strength: float) -> float:
    """Returns the largest part of the picture that is earlier results. Raises ValueError beyond
    0..1."""
    if not 0 <= strength <= 1:
        raise ValueError(f"a strength of {strength} is not within 0..1")
    return MOST * (1 - (1 - strength) ** 1.7)
