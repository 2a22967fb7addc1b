"""Statistics of durations of streams that last for days, in bounded memory; events; memory itself."""

import math
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RESOLUTION = 1e-4
"""Seconds by which a percentile may be off: the width of a histogram's bin."""
TOP = 10.0
"""Seconds to which longer durations are clipped."""
GROUP = 512
"""Bins whose values are also counted as a group."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of durations, in seconds; zeros before the first."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    worst: float = 0.0

    def to_json(self) -> dict[str, float | int]:
        """Returns the figures in milliseconds."""
        found: dict[str, float | int] = {"count": self.count}
        for name in ("mean", "p50", "p95", "p99", "p999", "worst"):
            found[f"{name}_ms"] = round(float(getattr(self, name)) * 1e3, 2)
        return found


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a person may want to know."""

    at: float
    """Seconds since the run began."""
    text: str


class Histogram:
    """A histogram of durations, with bins of a tenth of a millisecond by default; thread-safe."""

    def __init__(self, resolution: float = RESOLUTION, top: float = TOP) -> None:
        """Durations above `top` are clipped to it; both in seconds."""
        self._resolution = resolution
        self._bins = np.zeros(round(top / resolution) + 1, np.int64)
        # A game queries percentiles within a frame, and adds under the same lock: no sum goes over all
        # bins.
        self._groups = np.zeros(len(self._bins) // GROUP + 1, np.int64)
        self._total = 0.0
        self._worst = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Add one duration; a negative one, which no clock should give, counts as 0."""
        seconds = max(seconds, 0.0)
        with self._lock:
            place = min(round(seconds / self._resolution), len(self._bins) - 1)
            self._bins[place] += 1
            self._groups[place // GROUP] += 1
            self._total += seconds
            self._worst = max(self._worst, seconds)

    def percentiles(self) -> Percentiles:
        """Returns percentiles over all durations so far, each the smallest duration that this share
        does not exceed."""
        with self._lock:
            sums, total, worst = np.cumsum(self._groups), self._total, self._worst
            count = int(sums[-1])
            if not count:
                return Percentiles()
            ranks = (math.ceil(part * count) for part in (0.5, 0.95, 0.99, 0.999))
            p50, p95, p99, p999 = (min(self._ranked(rank, sums), worst) for rank in ranks)
        return Percentiles(count, total / count, p50, p95, p99, p999, worst)

    def low(self, part: float) -> float:
        """Returns the frames per second of the slowest `part` of frame times, 0.01 for the "1% low"; 0
        before any.

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
        """Returns the duration of that rank, from 1 for the shortest, by its bin; `sums` are the
        groups'."""
        group = int(np.searchsorted(sums, rank))
        before = int(sums[group - 1]) if group else 0
        inner = np.cumsum(self._bins[group * GROUP : (group + 1) * GROUP])
        return (group * GROUP + int(np.searchsorted(inner, rank - before))) * self._resolution


def memory_now() -> int | None:
    """Returns the bytes of memory that this process holds now; None where the system does not tell."""
    state = Path("/proc/self/statm")
    if not state.exists():
        return None
    return int(state.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int | None:
    """Returns the most bytes of memory that this process has held so far; None where the system does
    not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands `ru_maxrss` down from the parent; VmHWM starts again with each program.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
