"""Worker: a thread that does one thing at a time, and may be left behind when it is stuck."""

import atexit
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LEAVING = 10.0
"""Seconds that a process which ends waits for what an inference library is at.

One that is cut off in the middle of it brings down the process with an abort.
"""


class Job(Generic[T]):
    """A piece of work under way, or what became of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.begun = time.monotonic()
        self.seconds = 0.0
        """How long it took; 0 until it is done."""
        self.error: Exception | None = None
        self._work = work
        self._value: T | None = None
        self._over = threading.Event()
        """It is done, or never will be."""
        self._done = False

    def run(self) -> None:
        """Do it; what it raises is kept in `error`."""
        begin = time.monotonic()
        try:
            self._value = self._work()
        except Exception as error:  # for whoever waits for it
            self.error = error
        self.seconds = time.monotonic() - begin
        self._done = True
        self._over.set()

    def drop(self) -> None:
        """It is never done: nobody need wait."""
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is done, at once or within that time."""
        self._over.wait(seconds)
        return self._done

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done

    @property
    def value(self) -> T:
        """What came of it. Raises what it raised."""
        if self.error is not None:
            raise self.error
        if self._value is None:
            raise ValueError("the work is not done")
        return self._value


class Worker:
    """Runs jobs in a daemon thread: a call that never returns then holds up nobody's end."""

    def __init__(self, name: str, *, leaving: float = 0.0) -> None:
        """Where the process ends while a job is at work, it waits until that is done or `leaving`
        seconds old; others are not begun then.
        """
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._leaving = leaving
        self._at: Job[object] | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        if leaving:
            atexit.register(self._end)
        self._thread.start()

    def start(self, work: Callable[[], T]) -> Job[T]:
        """Begin; jobs are done in the order in which they were begun."""
        job = Job(work)
        if self._ending:
            job.drop()
        else:
            self._jobs.put(job)  # pyright: ignore[reportArgumentType]
        return job

    def leave(self) -> None:
        """End the thread once its jobs have returned, if ever."""
        self._jobs.put(None)

    def _run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                if self._ending:
                    job.drop()
                    continue
                self._at = job
                job.run()
                self._at = None
        finally:
            atexit.unregister(self._end)

    def _end(self) -> None:
        """The process ends."""
        self._ending = True
        self._jobs.put(None)
        job = self._at
        age = 0.0 if job is None else time.monotonic() - job.begun
        self._thread.join(max(self._leaving - age, 0.0))
