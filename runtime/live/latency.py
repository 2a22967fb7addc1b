"""Latencies and frame times of a stream that may last for days, in memory that does not grow."""

import math
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESOLUTION = 1e-4
"""Seconds by which a percentile may be off: the width of a histogram's bin."""
TOP = 10.0
"""Seconds above which all values count as this many."""
GROUP = 512
"""Bins whose values are counted together, too."""


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
    """Durations in bins, of a tenth of a millisecond by default; any thread may add and read."""

    def __init__(self, resolution: float = RESOLUTION, top: float = TOP) -> None:
        """All durations above `top` count as that; both in seconds."""
        self._resolution = resolution
        self._bins = np.zeros(round(top / resolution) + 1, np.int64)
        # A game asks in its frame, and adds under the same lock: no sum goes over all bins.
        self._groups = np.zeros(len(self._bins) // GROUP + 1, np.int64)
        self._total = 0.0
        self._worst = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Note one duration; a negative one, which no clock should give, counts as none."""
        seconds = max(seconds, 0.0)
        with self._lock:
            place = min(round(seconds / self._resolution), len(self._bins) - 1)
            self._bins[place] += 1
            self._groups[place // GROUP] += 1
            self._total += seconds
            self._worst = max(self._worst, seconds)

    def percentiles(self) -> Percentiles:
        """Over all durations so far: the smallest that so many of a hundred do not exceed."""
        with self._lock:
            sums, total, worst = np.cumsum(self._groups), self._total, self._worst
            count = int(sums[-1])
            if not count:
                return Percentiles()
            ranks = (math.ceil(part * count) for part in (0.5, 0.95, 0.99, 0.999))
            p50, p95, p99, p999 = (min(self._ranked(rank, sums), worst) for rank in ranks)
        return Percentiles(count, total / count, p50, p95, p99, p999, worst)

    def low(self, part: float) -> float:
        """Frames per second of the slowest `part` of frame times, 0.01 for the "1% low"; 0 before any.

        As MangoHud counts it: with the times sorted from the longest, the one at index `part` * n.
        """
        with self._lock:
            sums = np.cumsum(self._groups)
            count = int(sums[-1])
            if not count:
                return 0.0
            seconds = self._ranked(count - int(part * count), sums)
        return 1.0 / max(seconds, self._resolution)

    def _ranked(self, rank: int, sums: npt.NDArray[np.int64]) -> float:
        """The duration of that rank, from 1 for the shortest, by its bin; `sums` are the groups'."""
        group = int(np.searchsorted(sums, rank))
        before = int(sums[group - 1]) if group else 0
        inner = np.cumsum(self._bins[group * GROUP : (group + 1) * GROUP])
        return (group * GROUP + int(np.searchsorted(inner, rank - before))) * self._resolution


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
