"""Pipeline: frames are made in a thread beside the game's, which never waits for it."""

import atexit
import os
import sys
import threading
from collections.abc import Callable

from ..worker import LEAVING, DaemonThread
from .given import Given
from .maker import Finished, Making

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
