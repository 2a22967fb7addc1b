"""What a post-process stage did: what the last call showed, counts, times, as values and as JSON."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..adaptive.processor import Tell
from ..meter import Event, Histogram, Percentiles

LATENCIES = 8
"""Latencies that are told apart, in frames from 0; one more stands for all above."""
EVENTS = 50
"""Events that are kept."""
FINE, LONG = 1e-5, 2.0
"""Resolution and top of the times that are kept, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the last call gave back."""

    index: int
    """Number of the call whose picture it was made of, from 0."""
    latency_frames: int = 0
    """By how many calls that one was before this."""
    passed: bool = False
    """Whether it is the picture that was given, unchanged but for its size: models are off, not open
    yet, have failed, or are late and there is no history."""
    repeated: bool = False
    """Whether the call before gave back the same: no newer result was there (`pipelined` only)."""
    carried: bool = False
    """Whether the models were late for it and their earlier result stands in, moved to its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostStats:
    """So far. Each call is counted as one of fresh, carried, passed and repeated."""

    calls: int = 0
    fresh: int = 0
    """Showed a result of the models that had not been shown."""
    carried: int = 0
    """Showed an earlier result, moved, as the models were late."""
    passed: int = 0
    """Gave back a picture as it was."""
    repeated: int = 0
    """Gave back what the call before had: no newer result was there."""
    dropped: int = 0
    """Frames that were overtaken by a newer one before the models had time for them."""
    finished: int = 0
    """Frames whose results, changed or not, have been there to be shown."""
    call: Percentiles = field(default_factory=Percentiles)
    """Seconds that calls took of the game's thread; those while it is off, some microseconds, are not
    measured."""
    work: Percentiles = field(default_factory=Percentiles)
    """Seconds that frames took, conversions included; in `pipelined` beside the game's thread."""
    latency: tuple[int, ...] = ()
    """How many calls gave back a picture of 0, 1, 2, ... calls before; the last counts all above it."""
    rung: str = ""
    """How much is done to a frame at present."""
    events: tuple[Event, ...] = ()
    """The last ones."""

    def to_json(self) -> dict[str, Any]:
        """With durations in milliseconds, but for the times of events."""
        return {
            "calls": self.calls,
            "fresh": self.fresh,
            "carried": self.carried,
            "passed": self.passed,
            "repeated": self.repeated,
            "dropped": self.dropped,
            "finished": self.finished,
            "call": self.call.to_json(),
            "work": self.work.to_json(),
            "latency_frames": list(self.latency),
            "rung": self.rung,
            "events": [{"at": round(e.at, 3), "text": e.text} for e in self.events],
        }


class Log:
    """What happens, a line each: kept, and told to whoever listens. Any thread may tell."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._kept: deque[Event] = deque(maxlen=EVENTS)
        self._hearers: list[Tell] = []

    @property
    def events(self) -> tuple[Event, ...]:
        """The last ones."""
        return tuple(self._kept)

    def listen(self, hear: Tell) -> None:
        """Tell it, too, from now on."""
        self._hearers.append(hear)

    def __call__(self, text: str) -> None:
        """Nothing is raised: what a hearer raises is kept as one more event."""
        self._keep(text)
        for hear in tuple(self._hearers):
            try:
                hear(text)
            except Exception as error:  # its own: neither the picture nor the models depend on it
                self._keep(f"who listens has failed: {type(error).__name__}: {error}")

    def _keep(self, text: str) -> None:
        self._kept.append(Event(time.monotonic() - self._begin, text))


class Tally:
    """Counts what calls gave back; one thread's, and read by any."""

    def __init__(self) -> None:
        self.calls = self.fresh = self.carried = self.passed = self.repeated = 0
        self.call = Histogram(FINE, LONG)
        """Seconds that calls took."""
        self._latency = [0] * (LATENCIES + 1)

    @property
    def latency(self) -> tuple[int, ...]:
        """How many calls gave back a picture of 0, 1, 2, ... calls before."""
        return tuple(self._latency)

    def add(self, shown: Shown) -> None:
        """One more call."""
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
