"""The figures of a post-process stage: the last call's result, counts, times, as values and as JSON."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..adaptive.processor import Tell
from ..meter import Event, Histogram, Percentiles

LATENCIES = 8
"""Latencies that are counted separately, in frames from 0; one more counts all above."""
EVENTS = 50
"""Events that are kept."""
COUNTS = ("calls", "fresh", "carried", "passed", "repeated", "dropped", "finished")
FINE, LONG = 1e-5, 2.0
"""Resolution and maximum of the recorded times, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The facts about the picture that the last call returned."""

    index: int
    """Number of the call whose picture it shows, from 0."""
    latency_frames: int = 0
    """The number of calls from that one to this."""
    passed: bool = False
    """True if it is the picture that was given, unchanged but for its size: models are off, not open
    yet, have failed, or are late and there is no history."""
    repeated: bool = False
    """True if the call before returned the same: no newer result was there (`pipelined` only)."""
    carried: bool = False
    """True if the models were late and their earlier result is shown, warped to its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostStats:
    """The figures so far. Each call is counted as one of fresh, carried, passed and repeated."""

    calls: int = 0
    fresh: int = 0
    """Calls that returned a new result of the models."""
    carried: int = 0
    """Calls that returned an earlier result, warped, as the models were late."""
    passed: int = 0
    """Calls that returned a picture as it was."""
    repeated: int = 0
    """Calls that returned the previous call's picture: no newer result was there."""
    dropped: int = 0
    """Frames that were replaced by a newer one before the models had time for them."""
    finished: int = 0
    """Frames whose results, changed or not, have been available."""
    call: Percentiles = field(default_factory=Percentiles)
    """Seconds that calls took of the game's thread; calls while it is off, which take some
    microseconds, are not measured."""
    work: Percentiles = field(default_factory=Percentiles)
    """Seconds that frames took, conversions included; in `pipelined` outside of the game's thread."""
    latency: tuple[int, ...] = ()
    """The number of calls that returned a picture of 0, 1, 2, ... calls before; the last counts all
    above it."""
    rung: str = ""
    """The present rung."""
    events: tuple[Event, ...] = ()
    """The latest events."""

    def to_json(self) -> dict[str, Any]:
        """Returns the figures with durations in milliseconds, except the times of events."""
        return {
            **{name: getattr(self, name) for name in COUNTS},
            "call": self.call.to_json(),
            "work": self.work.to_json(),
            "latency_frames": list(self.latency),
            "rung": self.rung,
            "events": [{"at": round(e.at, 3), "text": e.text} for e in self.events],
        }


class Log:
    """The events, a line each: kept, and passed to listeners. Any thread may add one."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._kept: deque[Event] = deque(maxlen=EVENTS)
        self._hearers: list[Tell] = []

    @property
    def events(self) -> tuple[Event, ...]:
        """The latest events."""
        return tuple(self._kept)

    def listen(self, hear: Tell) -> None:
        """Call `hear` with events, too, from now on."""
        self._hearers.append(hear)

    def __call__(self, text: str) -> None:
        """Add an event. Nothing is raised: a listener's error is kept as one more event."""
        self._keep(text)
        for hear in tuple(self._hearers):
            try:
                hear(text)
            except Exception as error:  # its own: neither the picture nor the models depend on it
                self._keep(f"who listens has failed: {type(error).__name__}: {error}")

    def _keep(self, text: str) -> None:
        self._kept.append(Event(time.monotonic() - self._begin, text))


class Tally:
    """Counts the calls' results; used from one thread, and read by any."""

    def __init__(self) -> None:
        self.calls = self.fresh = self.carried = self.passed = self.repeated = 0
        self.call = Histogram(FINE, LONG)
        """Seconds that calls took."""
        self._latency = [0] * (LATENCIES + 1)

    @property
    def latency(self) -> tuple[int, ...]:
        """The number of calls that returned a picture of 0, 1, 2, ... calls before."""
        return tuple(self._latency)

    def add(self, shown: Shown) -> None:
        """Count one more call."""
        self.calls += 1
        if shown.repeated:
            self.repeated += 1
        elif shown.passed:
            self.passed += 1
        elif shown.carried:
            self.carried += 1
        else:
            self.fresh += 1
        self._latency[min(shown.latency_frames, LATENCIES)] += 1
