"""The making of a game's pictures: in its own thread, or in one beside it, for which it never waits."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from ..meter import Histogram, Percentiles
from ..temporal.warp import composed
from ..worker import LEAVING, Channel, DaemonThread
from .conventions import DepthConvention, Floats, Jitter, MotionConvention, resampled
from .frame_pass import Painter
from .picture import Picture, Pictures, Taken
from .stats import FINE, LONG

MOST_LOST = 8
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
        if len(vectors) > MOST_LOST:
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


WEIGHT = 0.1
"""The weight of the newest interval between two frames in their average."""
LONGEST = 0.25
"""Seconds to which a longer interval between two frames is clipped: the game stood still."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture that can be shown."""

    given: Given
    picture: Picture
    passed: bool = False
    """True if it is the given picture, unchanged but for its size."""
    carried: bool = False
    """True if it is an earlier result, warped."""
    again: bool = False
    """True if the frame gave no result, and the picture before is shown again."""
    spare: Picture | None = None
    """A copy of the pixels that is never given away."""


class Making(Protocol):
    """A maker of pictures, used from one thread only."""

    def __call__(self, given: Given) -> Finished: ...

    def close(self) -> None: ...


class Maker:
    """Reads, processes, and lays out pictures. Used from one thread, except for the figures."""

    def __init__(self, pictures: Pictures, read: Reader, painter: Painter, *, period: float) -> None:
        self._period = period
        self.finished = 0
        """The number of pictures so far."""
        self._pictures, self._read, self._painter = pictures, read, painter
        self._work = Histogram(FINE, LONG)
        self._before: int | None = None
        """The epoch of the last picture, if that was a result of the models."""

    @property
    def work(self) -> Percentiles:
        """Seconds that frames took."""
        return self._work.percentiles()

    def came(self, seconds: float) -> None:
        """Record the interval between a frame and the one before; called by the game's thread."""
        self._period += WEIGHT * (min(seconds, LONGEST) - self._period)

    def __call__(self, given: Given, target: Picture | None = None) -> Finished:
        """Returns the picture to show, in `target` or in unused memory.

        One that passes at its own size is `given.color` itself, where there is no `target`.
        """
        begin = time.perf_counter()
        try:
            made = self._made(given, target)
        except Exception as error:  # a picture must come back, and the thread go on
            self._painter.failed(error)
            made = self._passed(given, target)
        seconds = time.perf_counter() - begin
        self._work.add(seconds)
        self._painter.observe(seconds, period=self._period)
        self.finished += not made.again
        return made

    def close(self) -> None:
        """Close the models."""
        self._painter.close()

    def _made(self, given: Given, target: Picture | None) -> Finished:
        painter, moves = self._painter, bool(given.vectors)
        if painter.plain(moves=moves):
            painter.forget()
            return self._passed(given, target)
        taken = self._read(given, whole=painter.follows(moves=moves))
        painted = painter(taken.frame)
        if painted.frame is None and painted.late and self._before == given.epoch:
            return Finished(given, given.color, again=True)
        if painted.frame is None:
            return self._passed(given, target)
        self._before = given.epoch
        picture = self._pictures.picture(painted.frame, taken, given.color, target)
        return Finished(given, picture, carried=painted.carried)

    def _passed(self, given: Given, target: Picture | None) -> Finished:
        self._before = None
        scale = self._painter.scale
        size = (given.color.shape[1] * scale, given.color.shape[0] * scale)
        return Finished(given, self._pictures.enlarged(given.color, size, target), passed=True)


class Sparing:
    """Makes pictures that may be shown more than once, though the game draws into them."""

    def __init__(self, make: Making, pictures: Pictures) -> None:
        self._make, self._pictures = make, pictures

    def __call__(self, given: Given) -> Finished:
        made = self._make(given)
        if made.again:
            return made
        return replace(made, spare=self._pictures.copy(made.picture))

    def close(self) -> None:
        """Close the inner maker."""
        self._make.close()


NICENESS = 10
"""What the thread that makes frames, and those that it starts, are nicer by: the game's own go first.

Frames of 4 ms, rendered on both cores of a small machine, took 1.6 ms more beside a style at the
game's own priority and 0.3 ms at 10; at 19 and as SCHED_IDLE no less, nor with one thread for two.
"""
LOWEST = 19
"""The niceness above which there is none."""


class Pipeline:
    """Hands the newest frame to a thread, and has the newest result at any time.

    A frame that finds the thread at work waits for it; a newer one takes its place, with the motion of
    both. Neither `put` nor `newest` waits for anything but a few instructions of the other thread.
    """

    def __init__(self, begin: Callable[[], Making], failed: Callable[[Exception], None]) -> None:
        """`begin` is called in the new thread, whose priority is low; its errors are raised here.

        `failed` is called in that thread with a frame's error: there is no newest result then.
        """
        self.dropped = 0
        self.finished = 0
        """The number of frames whose results have been the newest."""
        self._waiting = Channel[Given]("oldest", merge=Given.after)
        self._newest: Finished | None = None
        self._failure: Exception | None = None
        self._failed = failed
        self._ready = threading.Event()
        self._thread = DaemonThread(lambda: self._run(begin), "velatura-post")
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:  # Ctrl-C: who waits has no pipeline to close yet
            self._waiting.close(drop=True)
            raise
        if self._failure is not None:
            raise self._failure

    def put(self, given: Given) -> None:
        """Add a frame, whose arrays nobody else changes."""
        self.dropped += not self._waiting.put(given)

    @property
    def newest(self) -> Finished | None:
        """The result of the newest frame that has one; the same until there is a newer one, or one has
        failed."""
        return self._newest

    def close(self, patience: float) -> None:
        """End the thread after its current frame, waiting for at most `patience` seconds."""
        self._waiting.close(drop=True)
        self._thread.wait(patience)

    def _leave(self) -> None:
        """End the thread at the end of the process, without cutting off its work."""
        self._waiting.close(drop=True)
        self._thread.outwait(LEAVING)

    def _run(self, begin: Callable[[], Making]) -> None:
        atexit.register(self._leave)
        try:
            self._serve(begin)
        finally:
            atexit.unregister(self._leave)

    def _serve(self, begin: Callable[[], Making]) -> None:
        lower_priority()
        try:
            make = begin()
        except Exception as error:  # raised where the pipeline is made
            self._failure = error
            return
        finally:
            self._ready.set()
        try:
            for given in self._waiting:
                try:
                    made = make(given)
                except Exception as error:  # told, and the next one is made
                    self._newest = None
                    self._failed(error)
                    continue
                if not made.again:
                    self._newest = made
                    self.finished += 1
        finally:
            make.close()


def lower_priority() -> None:
    """Give this thread, and those that it starts from now on, a lower priority than the game's, which
    started it at its own.

    On Linux only, where a thread has a priority of its own and hands it on.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(own + NICENESS, LOWEST))
