"""Latencies and frame times of a stream that may last for days, in memory that does not grow."""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

RESOLUTION = 1e-4
"""Seconds by which a percentile may be off: the width of a histogram's bin."""
TOP = 10.0
"""Seconds above which all values count as this many."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of durations, in seconds; zeros before the first."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    worst: float = 0.0

    def to_json(self) -> dict[str, float | int]:
        """In milliseconds."""
        found: dict[str, float | int] = {"count": self.count}
        for name in ("mean", "p50", "p95", "p99", "p999", "worst"):
            found[f"{name}_ms"] = round(float(getattr(self, name)) * 1e3, 2)
        return found


class Histogram:
    """Durations in bins of a tenth of a millisecond; any thread may add and read."""

    def __init__(self) -> None:
        self._bins = np.zeros(round(TOP / RESOLUTION) + 1, np.int64)
        self._total = 0.0
        self._worst = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Note one duration; a negative one, which no clock should give, counts as none."""
        seconds = max(seconds, 0.0)
        with self._lock:
            self._bins[min(round(seconds / RESOLUTION), len(self._bins) - 1)] += 1
            self._total += seconds
            self._worst = max(self._worst, seconds)

    def percentiles(self) -> Percentiles:
        """Over all durations so far: the smallest that so many of a hundred do not exceed."""
        with self._lock:
            sums, total, worst = np.cumsum(self._bins), self._total, self._worst
        count = int(sums[-1])
        if not count:
            return Percentiles()
        ranks = np.ceil(np.array([0.5, 0.95, 0.99, 0.999]) * count)
        at = np.minimum(np.searchsorted(sums, ranks) * RESOLUTION, worst)
        p50, p95, p99, p999 = map(float, at)
        return Percentiles(count, total / count, p50, p95, p99, p999, worst)

    def low(self, part: float) -> float:
        """Frames per second of the slowest `part` of frame times, 0.01 for the "1% low"; 0 before any.

        As MangoHud counts it: with the times sorted from the longest, the one at index `part` * n.
        """
        with self._lock:
            longest_first = np.cumsum(self._bins[::-1])
        count = int(longest_first[-1])
        if not count:
            return 0.0
        place = int(np.searchsorted(longest_first, int(part * count), side="right"))
        seconds = (len(self._bins) - 1 - place) * RESOLUTION
        return 1.0 / max(seconds, RESOLUTION)


class Recent:
    """The last durations of a stream, which a decision is made on; any thread may add and read."""

    def __init__(self, size: int) -> None:
        self._items: deque[float] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Note one, and forget the oldest."""
        with self._lock:
            self._items.append(seconds)

    def clear(self) -> None:
        """Forget all: what comes next is of another kind."""
        with self._lock:
            self._items.clear()

    def values(self) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """From the oldest to the newest."""
        with self._lock:
            return np.array(self._items, np.float64)

    def __len__(self) -> int:
        return len(self._items)
