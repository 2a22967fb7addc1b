"""A game's frames become results: in its own thread, or in one beside it, for which it never waits."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..meter import Histogram, Percentiles
from ..worker import LEAVING, DaemonThread
from .frame_inputs import Given, Reader
from .frame_pass import Painter
from .picture import Picture, Pictures
from .stats import FINE, LONG

WEIGHT = 0.1
"""Of the newest interval between two frames in their average."""
LONGEST = 0.25
"""Seconds between two frames that count as this many: the game stood still."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A frame that can be shown."""

    given: Given
    picture: Picture
    passed: bool = False
    """Whether it is the given one, unchanged but for its size."""
    carried: bool = False
    """Whether an earlier result stands in, moved."""
    again: bool = False
    """Whether nothing came of it, and the picture before is shown again."""
    spare: Picture | None = None
    """The same pixels in other memory, which are never given away."""


class Making(Protocol):
    """What makes pictures; used in one thread from its beginning to its end."""

    def __call__(self, given: Given) -> Finished: ...

    def close(self) -> None: ...


class Maker:
    """Reads, paints, and lays out. One thread's, but for the figures."""

    def __init__(self, pictures: Pictures, read: Reader, painter: Painter, *, period: float) -> None:
        self._period = period
        self.finished = 0
        """Pictures so far."""
        self._pictures, self._read, self._painter = pictures, read, painter
        self._work = Histogram(FINE, LONG)
        self._before: int | None = None
        """The epoch of the last picture, if that was painted."""

    @property
    def work(self) -> Percentiles:
        """Seconds that a frame took."""
        return self._work.percentiles()

    def came(self, seconds: float) -> None:
        """Hear how long after the one before a frame has come; the game's thread says so."""
        self._period += WEIGHT * (min(seconds, LONGEST) - self._period)

    def __call__(self, given: Given, target: Picture | None = None) -> Finished:
        """The picture to show for it, in `target` or in memory that nobody uses.

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
        """Let the models go."""
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
    """Makes pictures that may be shown more than once, though whoever shows them draws into them."""

    def __init__(self, make: Making, pictures: Pictures) -> None:
        self._make, self._pictures = make, pictures

    def __call__(self, given: Given) -> Finished:
        made = self._make(given)
        if made.again:
            return made
        return replace(made, spare=self._pictures.copy(made.picture))

    def close(self) -> None:
        """That of what makes them."""
        self._make.close()


NICENESS = 10
"""Of the thread that makes frames and of those that it starts: the game's own go first.

Frames of 4 ms, rendered on both cores of a small machine, took 1.6 ms more beside a style at the
game's own priority and 0.3 ms at 10; at 19 and as SCHED_IDLE no less, nor with one thread for two.
"""


class Pipeline:
    """Hands the newest frame to a thread, and has the newest result at any time.

    A frame that finds the thread at work waits for it; a newer one takes its place, with the motion of
    both. Neither `put` nor `newest` waits for anything but a few instructions of the other thread.
    """

    def __init__(self, begin: Callable[[], Making], failed: Callable[[Exception], None]) -> None:
        """`begin` is called in the new thread, whose priority is low; raises what that raises.

        `failed` hears there of what a frame has raised: there is no newest result then.
        """
        self.dropped = 0
        self.finished = 0
        """Frames whose results have been the newest."""
        self._changed = threading.Condition()
        self._waiting: Given | None = None
        self._newest: Finished | None = None
        self._closed = False
        self._failure: Exception | None = None
        self._failed = failed
        self._ready = threading.Event()
        self._thread = DaemonThread(lambda: self._run(begin), "velatura-post")
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:  # Ctrl-C: who waits has no pipeline to close yet
            self._end()
            raise
        if self._failure is not None:
            raise self._failure

    def put(self, given: Given) -> None:
        """Leave a frame, which nobody else changes."""
        with self._changed:
            if self._waiting is not None:
                given = given.after(self._waiting)
                self.dropped += 1
            self._waiting = given
            self._changed.notify()

    @property
    def newest(self) -> Finished | None:
        """The result of the newest frame that has one; the same again until there is a newer one, or
        one has failed."""
        return self._newest

    def close(self, patience: float) -> None:
        """End the thread after the frame that it is at, waiting for at most so many seconds."""
        self._end()
        self._thread.wait(patience)

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _leave(self) -> None:
        """The process ends: what the thread is at must not be cut off."""
        self._end()
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
            while (given := self._take()) is not None:
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

    def _take(self) -> Given | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            given, self._waiting = self._waiting, None
            return None if self._closed else given


def lower_priority(niceness: int = NICENESS) -> None:
    """Let the game's threads go before this one and those that it starts from now on.

    On Linux only, where a thread has a priority of its own and hands it on.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), niceness))
