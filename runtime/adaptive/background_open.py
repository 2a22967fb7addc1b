"""Opening in the background: slow openings run beside the frames, and are taken between two of them."""

import atexit
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..backoff import Backoff
from ..worker import LEAVING, DaemonThread

FIRST = 0.5
"""Seconds before a failed opening is retried; doubled each time, up to `MOST`."""
MOST = 30.0

Failed = Callable[[Exception, float | None], None]
"""Receives an opening's error, and the seconds until the next attempt; None for none."""


class Closable(Protocol):
    """An object that is opened here: a ladder, or what runs one."""

    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class Opening(Generic[T]):
    """The latest request for an opening; earlier ones are cancelled. Thread-safe.

    One thread opens them, one after the other: those that became void meanwhile are not begun.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request: _Request[T] | None = None
        self._thread: DaemonThread | None = None
        """The thread at work; None where there is nothing to open."""
        self._ending = False

    @property
    def busy(self) -> bool:
        """True if an opening is requested and not taken, and may still succeed."""
        with self._lock:
            return self._request is not None and not self._request.failed

    def begin(
        self, make: Callable[[], T], failed: Failed, *, delay: float = 0.0, retry: bool = False
    ) -> None:
        """Request an opening after `delay` seconds; with `retry` it is repeated. Any earlier request is
        cancelled."""
        request = _Request(make, failed, delay, retry)
        with self._lock:
            earlier, self._request = self._request, request
            if self._ending:
                request.void()
            elif self._thread is None:
                self._start()
        if earlier is not None:
            earlier.void()

    def take(self) -> T | None:
        """Returns the opened object, once; None until it is there."""
        with self._lock:
            request = self._request
            opened = None if request is None else request.opened
            if opened is not None:
                self._request = None
            return opened

    def close(self) -> None:
        """Cancel the request; an object that is still being opened is closed when it is there."""
        with self._lock:
            request, self._request = self._request, None
        if request is not None:
            request.void()

    def _start(self) -> None:
        """Start the thread, under the lock; the process's end waits for it."""
        self._thread = DaemonThread(self._run, "velatura-open")
        atexit.register(self._leave)
        self._thread.start()

    def _leave(self) -> None:
        """Cancel everything at the end of the process."""
        with self._lock:
            self._ending = True
            request, thread = self._request, self._thread
        if request is not None:
            request.void()
        if thread is not None:
            thread.outwait(LEAVING)

    def _run(self) -> None:
        request: _Request[T] | None = None
        try:
            while (request := self._after(request)) is not None:
                request.open()
        except BaseException:
            # An error of the callback, or of closing: it is reported, and others are opened all the
            # same.
            with self._lock:
                self._thread = None
                atexit.unregister(self._leave)
                if self._request is not None and self._request is not request and not self._ending:
                    self._start()
            raise

    def _after(self, served: "_Request[T] | None") -> "_Request[T] | None":
        """Returns the present request; where it is the one just served, None, and the thread ends."""
        with self._lock:
            request = self._request
            if request is None or request is served:
                self._thread = None
                atexit.unregister(self._leave)
                return None
            return request


class _Request(Generic[T]):
    def __init__(self, make: Callable[[], T], failed: Failed, delay: float, retry: bool) -> None:
        self.opened: T | None = None
        self.failed = False
        self._make, self._tell = make, failed
        self._delay, self._retry = delay, retry
        self._backoff = Backoff(first=max(2 * delay, FIRST), longest=MOST)
        self._void = threading.Event()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Try until it is open, has failed for good, or is cancelled."""
        while not self._void.wait(self._delay):
            try:
                opened = self._make()
            except Exception as error:  # told, and tried again where that may help
                self._delay = self._backoff.pause()
                self.failed = not self._retry
                if not self._void.is_set():
                    self._tell(error, self._delay if self._retry else None)
                if self._retry:
                    continue
                return
            with self._lock:
                if not self._void.is_set():
                    self.opened = opened
                    return
            opened.close()

    def void(self) -> None:
        with self._lock:
            self._void.set()
            opened, self.opened = self.opened, None
        if opened is not None:
            opened.close()
