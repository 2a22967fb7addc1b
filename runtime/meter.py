"""Times of stages, and what is made of them."""

import os
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Timing:
    """Distribution of the seconds that a stage spent per frame, waiting for its neighbours left out."""

    count: int
    total: float
    p50: float
    p95: float
    p99: float
    p999: float


class Meter:
    """Collects durations of one stage; written by one thread, read by any."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Eight bytes a frame: a day of video at 30 fps is 20 MB.
        self._seconds = np.zeros(1024)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Note one duration."""
        with self._lock:
            if self._count == len(self._seconds):
                self._seconds = np.concatenate([self._seconds, np.zeros(self._count)])
            self._seconds[self._count] = seconds
            self._count += 1

    @contextmanager
    def measure(self) -> Generator[None]:
        """Note how long the body takes, unless it raises."""
        start = time.perf_counter()
        yield
        self.add(time.perf_counter() - start)

    @property
    def count(self) -> int:
        """How many durations there are."""
        return self._count

    def timing(self) -> Timing:
        """Percentiles over all frames so far, interpolated linearly; zeros before the first."""
        with self._lock:
            seconds = self._seconds[: self._count].copy()
        if not len(seconds):
            return Timing(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        p50, p95, p99, p999 = np.percentile(seconds, [50, 95, 99, 99.9])
        return Timing(
            len(seconds), float(seconds.sum()), float(p50), float(p95), float(p99), float(p999)
        )


def memory_now() -> int | None:
    """What this process holds in memory now, in bytes; None where no one tells."""
    state = Path("/proc/self/statm")
    if not state.exists():
        return None
    return int(state.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int | None:
    """The most memory that this process has held so far, in bytes; None where no one tells."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands `ru_maxrss` down from the parent; this one begins anew with each program.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
