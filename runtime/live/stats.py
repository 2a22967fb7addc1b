"""What a live run did: counts, latencies, frame times, as a value and as JSON."""

from dataclasses import dataclass, field
from typing import Any

from ..meter import Event, Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStats:
    """What one sink was given."""

    name: str
    shown: int = 0
    dropped: int = 0
    """Frames that found the sink busy."""
    failure: str = ""
    """Why it takes no more."""
    latency: Percentiles = field(default_factory=Percentiles)
    """From capture until the sink had the frame."""
    rate: float = 0.0
    """Frames per second, over all of the run."""
    low1: float = 0.0
    """The "1% low": frames per second at the slowest hundredth of frame times."""
    low01: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """With latencies in milliseconds."""
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
    """Where a live run stands, or what it came to."""

    elapsed: float
    captured: int
    """Frames that the source gave."""
    processed: int
    """Frames that the models made."""
    passed: int
    """Frames that went through without them."""
    repeated: int
    """Frames for which an earlier one's pixels stood in."""
    dropped: int
    """Frames that came while the one before was at work, and were overtaken by a newer one."""
    late: int
    """Frames that were shown later after their capture than the next one came."""
    rung: str
    """How much is done to a frame at present."""
    stages: dict[str, Percentiles]
    """Seconds that frames `wait`, are at `work`, and are on their way `out`."""
    outputs: tuple[OutputStats, ...]
    """The first is the one that latency is held for."""
    events: tuple[Event, ...]
    """The last ones."""

    @property
    def leading(self) -> OutputStats:
        """Of the output that latency is held for: the first that takes frames."""
        alive = (output for output in self.outputs if not output.failure)
        return next(alive, self.outputs[0] if self.outputs else OutputStats(name=""))

    @property
    def latency(self) -> Percentiles:
        """Of the output that latency is held for."""
        return self.leading.latency

    def to_json(self) -> dict[str, Any]:
        """With durations in milliseconds, but for `seconds`."""
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
