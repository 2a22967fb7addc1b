"""Threads: those that may be abandoned when they are stuck, what they hand one another, the pauses
between their attempts, and Worker, which runs one job at a time."""

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Drop = Literal["oldest", "newest", "never"]
"""The item that is dropped when there is no room: the `oldest` that waits, so that the newest is shown;
the `newest`, which has just come; or none, and the sender waits."""

LEAVING = 10.0
"""Seconds that a process waits at its end for a call of an inference library.

One that is cut off in the middle of it brings down the process with an abort.
"""


class DaemonThread(threading.Thread):
    """A daemon thread that states reliably whether it is at work, even after an interrupted wait for
    it.

    `is_alive` and `join` do not: a Ctrl-C inside them makes CPython 3.11 take the thread for ended, and
    objects that it still uses would be closed.
    """

    def __init__(self, work: Callable[[], object], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self._begun = False
        self._over = threading.Event()

    def start(self) -> None:
        """Start, unless it has started. Raises RuntimeError where the system has no more threads."""
        if self._begun:
            return
        self._begun = True
        try:
            super().start()
        except RuntimeError:
            self._over.set()
            raise

    def run(self) -> None:
        """Run the work, in the thread."""
        try:
            super().run()
        finally:
            self._over.set()

    @property
    def at_work(self) -> bool:
        """True if it was started and has not ended."""
        return self._begun and not self._over.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Returns whether it has ended, or was never started, by now or within that time."""
        if not self._begun:
            return True
        if not self._over.wait(seconds):
            return False
        # Only its last instructions remain, which touch no shared object.
        self.join()
        return True

    def outwait(self, seconds: float) -> bool:
        """Waits like `wait`, but through any Ctrl-C, for when the thread's work must not be cut off."""
        until = time.monotonic() + seconds
        while self.at_work and time.monotonic() < until:
            with suppress(KeyboardInterrupt):
                self.wait(max(until - time.monotonic(), 0.0))
        return not self.at_work


class Channel(Generic[T]):
    """Hands items from one thread to another: at most `depth` wait, and `drop` says what happens to
    more.

    It can be closed from either side, after which nobody waits any more.
    """

    def __init__(self, drop: Drop, *, depth: int = 1, merge: Callable[[T, T], T] | None = None) -> None:
        """`merge` makes one item of an item and the `oldest`, which is dropped for it."""
        if depth < 1:
            raise ValueError(f"a channel of depth {depth} holds nothing")
        self.dropped = 0
        """The number of items that nobody got."""
        self._drop = drop
        self._depth = depth
        self._merge = merge
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Adds an item. Returns False when an item was dropped for it, itself or an older one.

        Waits for room only where nothing may be dropped; a closed channel takes nothing.
        """
        with self._changed:
            if self._drop == "never":
                self._changed.wait_for(self._has_room)
            if self._closed:
                return False
            full = len(self._items) >= self._depth
            self.dropped += full
            if full and self._drop == "newest":
                return False
            if full:
                oldest = self._items.popleft()
                item = item if self._merge is None else self._merge(item, oldest)
            self._items.append(item)
            self._changed.notify_all()
            return not full

    def take(self, timeout: float | None = None) -> T | None:
        """Returns the oldest item; None after `timeout` seconds, or when nothing will come any more."""
        with self._changed:
            self._changed.wait_for(self._has_news, timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """Yields the items until nothing will come any more."""
        while (item := self.take()) is not None:
            yield item

    def close(self, *, drop: bool = False) -> None:
        """Take no more; items that wait are still given out unless `drop` is set."""
        with self._changed:
            self._closed = True
            if drop:
                self.dropped += len(self._items)
                self._items.clear()
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """True if nothing will come any more."""
        with self._changed:
            return self._closed and not self._items

    def __len__(self) -> int:
        return len(self._items)

    def _has_room(self) -> bool:
        return len(self._items) < self._depth or self._closed

    def _has_news(self) -> bool:
        return bool(self._items) or self._closed


class Job(Generic[T]):
    """A piece of work under way, and its result."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.begun = time.monotonic()
        self.seconds = 0.0
        """The seconds that it took; 0 until it is done."""
        self.error: Exception | None = None
        self._work = work
        self._value: T | None = None
        self._over = threading.Event()
        """Set when it is done, or never will be."""
        self._done = False

    def run(self) -> None:
        """Do the work; its error is kept in `error`."""
        begin = time.monotonic()
        try:
            self._value = self._work()
        except Exception as error:  # for whoever waits for it
            self.error = error
        self.seconds = time.monotonic() - begin
        self._done = True
        self._over.set()

    def drop(self) -> None:
        """Cancel the job: nobody need wait."""
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Returns whether it is done, at once or within that time."""
        self._over.wait(seconds)
        return self._done

    @property
    def done(self) -> bool:
        """True if it has ended, well or not."""
        return self._done

    @property
    def value(self) -> T:
        """The result. Raises the error of the work."""
        if self.error is not None:
            raise self.error
        if self._value is None:
            raise ValueError("the work is not done")
        return self._value


class Worker:
    """Runs jobs in a daemon thread, so that a call that never returns cannot block the process's
    end."""

    def __init__(self, name: str, *, leaving: float = 0.0) -> None:
        """Where the process ends while a job is at work, it waits until that is done or `leaving`
        seconds old; others are not begun then."""
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._leaving = leaving
        self._at: Job[object] | None = None
        self._ending = False
        self._thread = DaemonThread(self._run, name)
        if leaving:
            atexit.register(self._end)
        self._thread.start()

    def start(self, work: Callable[[], T]) -> Job[T]:
        """Starts a job; jobs run in the order in which they were started."""
        job = Job(work)
        if self._ending:
            job.drop()
        else:
            self._jobs.put(job)  # pyright: ignore[reportArgumentType]
        return job

    def leave(self, patience: float = 0.0) -> None:
        """End the thread once its jobs have returned, if ever; wait at most `patience` seconds for it,
        through any Ctrl-C."""
        self._jobs.put(None)
        self._thread.outwait(patience)

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
        """End the worker at the end of the process."""
        self._ending = True
        self._jobs.put(None)
        job = self._at
        age = 0.0 if job is None else time.monotonic() - job.begun
        self._thread.outwait(max(self._leaving - age, 0.0))
