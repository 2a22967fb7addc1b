"""Opening: ladders are opened beside the frames, and taken between two of them."""

import threading
from collections.abc import Callable

from .ladder import Ladder

FIRST = 0.5
"""Seconds before a failed opening is tried again; twice as many each time, up to `MOST`."""
MOST = 30.0

Failed = Callable[[Exception, float | None], None]
"""Hears why an opening failed, and in how many seconds it is tried again; None for never."""


class Opening:
    """At most one ladder is on its way: the last that was asked for. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One at a time opens engines: those that became void meanwhile do not begin.
        self._turn = threading.Lock()
        self._request: _Request | None = None

    @property
    def busy(self) -> bool:
        """Whether one is asked for and not taken, and may still come."""
        with self._lock:
            return self._request is not None and not self._request.failed

    def begin(
        self, make: Callable[[], Ladder], failed: Failed, *, delay: float = 0.0, retry: bool = False
    ) -> None:
        """Open one after `delay` seconds; with `retry` again and again. Any earlier request is void."""
        request = _Request(make, failed, delay, retry, self._turn)
        with self._lock:
            earlier, self._request = self._request, request
        if earlier is not None:
            earlier.void()
        threading.Thread(target=request.run, name="velatura-open", daemon=True).start()

    def take(self) -> Ladder | None:
        """The ladder, once, when it is open."""
        with self._lock:
            request = self._request
            ladder = None if request is None else request.ladder
            if ladder is not None:
                self._request = None
            return ladder

    def close(self) -> None:
        """Nothing is wanted any more; what is being opened is closed when it is there."""
        with self._lock:
            request, self._request = self._request, None
        if request is not None:
            request.void()


class _Request:
    def __init__(
        self,
        make: Callable[[], Ladder],
        failed: Failed,
        delay: float,
        retry: bool,
        turn: threading.Lock,
    ) -> None:
        self._turn = turn
        self.ladder: Ladder | None = None
        self.failed = False
        self._make, self._tell = make, failed
        self._delay, self._retry = delay, retry
        self._void = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        while not self._void.wait(self._delay):
            try:
                with self._turn:
                    if self._void.is_set():
                        return
                    ladder = self._make()
            except Exception as error:  # told, and tried again where that may help
                self._delay = min(max(2 * self._delay, FIRST), MOST)
                self.failed = not self._retry
                if not self._void.is_set():
                    self._tell(error, self._delay if self._retry else None)
                if self._retry:
                    continue
                return
            with self._lock:
                if not self._void.is_set():
                    self.ladder = ladder
                    return
            ladder.close()

    def void(self) -> None:
        with self._lock:
            self._void.set()
            ladder, self.ladder = self.ladder, None
        if ladder is not None:
            ladder.close()
