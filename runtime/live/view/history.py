"""Latencies second by second over the last minutes: what the page's chart draws."""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

SECONDS = 180
"""How far back the chart goes."""


@dataclass(frozen=True, slots=True)
class Second:
    """One second of a run."""

    at: int
    """Its number, in whole seconds of `time.monotonic`."""
    frames: int
    p50: float
    """Seconds from capture to the view, of the frames of this second."""
    p99: float


class History:
    """Any thread may add and read; memory is bounded by the frame rate."""

    def __init__(self) -> None:
        self._done: deque[Second] = deque(maxlen=SECONDS)
        self._at = 0
        self._values: list[float] = []
        self._last = 0.0
        self._lock = threading.Lock()

    def add(self, now: float, latency: float) -> None:
        """Note a frame that came at `now`, in seconds of `time.monotonic`."""
        with self._lock:
            self._turn(int(now))
            self._values.append(max(latency, 0.0))
            self._last = now

    def since(self, now: float, at: int = 0) -> list[Second]:
        """The finished seconds from number `at` on that the chart shows, oldest first."""
        with self._lock:
            self._turn(int(now))
            first = max(at, int(now) - SECONDS)
            return [second for second in self._done if second.at >= first]

    def silent(self, now: float) -> float | None:
        """Seconds since the last frame; None before the first."""
        with self._lock:
            return now - self._last if self._last else None

    def _turn(self, at: int) -> None:
        if at == self._at:
            return
        if self._values:
            values = np.sort(np.array(self._values))
            # The smallest that so many of a hundred do not exceed, as everywhere in the statistics.
            ranks = [int(np.ceil(part * len(values))) - 1 for part in (0.5, 0.99)]
            p50, p99 = (float(values[rank]) for rank in ranks)
            self._done.append(Second(self._at, len(values), p50, p99))
            self._values = []
        self._at = at
