"""Given: a game's inputs for one frame, before they are made into a `Frame`."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from ..temporal.warp import composed
from .conventions import DepthConvention, Floats, Jitter, MotionConvention, resampled
from .picture import Picture, Pictures, Taken

LONGEST = 8
"""Consecutive frames that may be lost before their motion is no longer composed."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """An engine's motion vectors between two frames, in its own convention."""

    array: Floats
    jitter: Jitter
    before: Jitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The picture of one call and its other inputs, checked but not converted."""

    index: int
    epoch: int
    """Only results of one epoch follow one another: it changes with the size, and after `off`."""
    color: Picture
    vectors: tuple[Vectors, ...] = ()
    """The vectors back to the frame that was made before it, the newest first; empty where they are
    unknown."""
    depth: Floats | None = None
    reactive: Floats | None = None
    reset: bool = False

    def after(self, lost: "Given") -> "Given":
        """Returns the inputs where the frame just before is never made: their motion goes further
        back."""
        if self.reset or lost.reset or lost.epoch != self.epoch:
            return replace(self, reset=True, vectors=())
        vectors = (*self.vectors, *lost.vectors) if self.vectors and lost.vectors else ()
        if len(vectors) > LONGEST:
            return replace(self, reset=True, vectors=())
        # Without motion in both there is none at all, and no history either.
        return replace(self, vectors=vectors)

    @property
    def bare(self) -> "Given":
        """The picture alone, without the other inputs."""
        return replace(self, vectors=(), depth=None, reactive=None)

    def kept(self, pictures: Pictures) -> "Given":
        """Returns a copy in memory of its own: the engine may use its buffers at once."""

        def copy(array: Floats | None) -> Floats | None:
            return None if array is None else pictures.copy(array)

        vectors = tuple(replace(one, array=pictures.copy(one.array)) for one in self.vectors)
        color = pictures.copy(self.color)
        depth, reactive = copy(self.depth), copy(self.reactive)
        return replace(self, color=color, vectors=vectors, depth=depth, reactive=reactive)


class Reader:
    """Makes frames of inputs, by an engine's conventions. Used from one thread."""

    def __init__(
        self,
        pictures: Pictures,
        motion: MotionConvention,
        depth: DepthConvention,
        *,
        flipped: bool,
        rate: Fraction,
    ) -> None:
        self._pictures = pictures
        self.motion, self.depth = motion, depth
        self._flipped, self._rate = flipped, rate

    def __call__(self, given: Given, *, whole: bool) -> Taken:
        """Returns the frame; unless `whole`, only the picture is converted."""
        taken = self._pictures.frame(given.color, given.index, self._rate)
        if not whole:
            return taken
        size = (given.color.shape[1], given.color.shape[0])
        motion: Floats | None = None
        for one in given.vectors:
            older = self._upright(
                self.motion.read(one.array, size, jitter=one.jitter, before=one.before)
            )
            motion = older if motion is None else composed(motion, older)
        depth, reactive = given.depth, given.reactive
        frame = replace(
            taken.frame,
            motion=motion,
            depth=None if depth is None else self._upright(self.depth.read(depth, size)),
            reactive=None if reactive is None else self._upright(resampled(reactive, size)),
            cut=given.reset,
        )
        return replace(taken, frame=frame)

    def _upright(self, array: Floats) -> Floats:
        return np.ascontiguousarray(array[::-1]) if self._flipped else array
