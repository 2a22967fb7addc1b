"""The figures of a live run: counts, latencies, frame times, as a value and as JSON."""

from dataclasses import dataclass, field
from typing import Any

from ..meter import Event, Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStats:
    """The figures of one sink."""

    name: str
    shown: int = 0
    dropped: int = 0
    """Frames that were dropped since the sink was busy."""
    failure: str = ""
    """The reason why it takes no more."""
    latency: Percentiles = field(default_factory=Percentiles)
    """Latency from capture until the sink had the frame."""
    rate: float = 0.0
    """Frames per second over the whole run."""
    low1: float = 0.0
    """The "1% low": frames per second at the slowest hundredth of frame times."""
    low01: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the figures with latencies in milliseconds."""
        return {
            "name": self.name,
            "shown": self.shown,
            "dropped": self.dropped,
            "failure": self.failure,
            "latency": self.latency.to_json(),
            "fps": round(self.rate, 2),
            "low_1_percent_fps": round(self.low1, 2),
            "low_01_percent_fps": round(self.low01, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStats:
    """The figures of a live run, during it or at its end."""

    elapsed: float
    captured: int
    """Frames that the source gave."""
    processed: int
    """Frames that the models processed."""
    passed: int
    """Frames that passed without them."""
    repeated: int
    """Frames that were replaced by an earlier one's pixels."""
    dropped: int
    """Frames that were replaced by a newer one before they were processed."""
    late: int
    """Frames that were shown later after their capture than the next one came."""
    rung: str
    """The present rung."""
    stages: dict[str, Percentiles]
    """Seconds that frames `wait`, are at `work`, and are on their way `out`."""
    outputs: tuple[OutputStats, ...]
    """The sinks' figures, first those of the one to which the deadline applies."""
    events: tuple[Event, ...]
    """The latest events."""

    @property
    def leading(self) -> OutputStats:
        """The figures of the output to which the deadline applies: the first that takes frames."""
        alive = (output for output in self.outputs if not output.failure)
        return next(alive, self.outputs[0] if self.outputs else OutputStats(name=""))

    @property
    def latency(self) -> Percentiles:
        """The latency of the output to which the deadline applies."""
        return self.leading.latency

    def to_json(self) -> dict[str, Any]:
        """Returns the figures with durations in milliseconds, except `seconds`."""
        return {
            "seconds": round(self.elapsed, 3),
            "captured": self.captured,
            "processed": self.processed,
            "passed": self.passed,
            "repeated": self.repeated,
            "dropped": self.dropped,
            "late": self.late,
            "rung": self.rung,
            "stages": {name: one.to_json() for name, one in self.stages.items()},
            "outputs": [output.to_json() for output in self.outputs],
            "events": [{"at": round(e.at, 3), "text": e.text} for e in self.events],
        }
