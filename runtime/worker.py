"""Worker: a thread that does one thing at a time, and may be left behind when it is stuck."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """A piece of work under way, or what became of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.begun = time.monotonic()
        self.seconds = 0.0
        """How long it took; 0 until it is done."""
        self.error: Exception | None = None
        self._work = work
        self._value: T | None = None
        self._done = threading.Event()

    def run(self) -> None:
        """Do it; what it raises is kept in `error`."""
        begin = time.monotonic()
        try:
            self._value = self._work()
        except Exception as error:  # for whoever waits for it
            self.error = error
        self.seconds = time.monotonic() - begin
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is done, at once or within that time."""
        return self._done.wait(seconds)

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done.is_set()

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

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], T]) -> Job[T]:
        """Begin; jobs are done in the order in which they were begun."""
        job = Job(work)
        self._jobs.put(job)  # pyright: ignore[reportArgumentType]
        return job

    def leave(self) -> None:
        """End the thread once its jobs have returned, if ever."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
