"""The figures of a live run: counts, latencies, frame times, as a value, as JSON, and by
prometheus-client."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..errors import BackendUnavailableError, SinkError
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


class Metrics:
    """An HTTP server that answers `/metrics` in Prometheus's text format, until `close`."""

    def __init__(
        self, stats: Callable[[], LiveStats], *, host: str = "127.0.0.1", port: int = 9464
    ) -> None:
        """Start serving; port 0 takes a free one. Raises BackendUnavailableError or SinkError."""
        try:
            library: Any = import_module("prometheus_client")
            core: Any = import_module("prometheus_client.core")
        except ImportError as error:
            raise BackendUnavailableError(
                "--stats prometheus needs prometheus-client: pip install 'velatura[live]'"
            ) from error
        registry = library.CollectorRegistry()
        registry.register(_Collector(stats, core))
        try:
            self._server, self._thread = library.start_http_server(port, host, registry=registry)
        except OSError as error:
            raise SinkError(f"no metrics at {host}:{port}: {error.strerror or error}") from error
        self.url = f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


COUNTS = {
    "captured": "Frames that the source gave.",
    "processed": "Frames that the models made.",
    "passed": "Frames that went through without the models.",
    "repeated": "Frames for which an earlier one stood in.",
    "dropped": "Frames that were overtaken by a newer one.",
    "late": "Frames shown later after their capture than the next one came.",
}
QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99", "p999": "0.999"}


class _Collector:
    """Collects the figures whenever somebody fetches them."""

    def __init__(self, stats: Callable[[], LiveStats], core: Any) -> None:
        self._stats = stats
        self._core = core

    def collect(self) -> Iterator[Any]:
        stats, core = self._stats(), self._core
        for name, meaning in COUNTS.items():
            yield core.CounterMetricFamily(f"velatura_frames_{name}", meaning, getattr(stats, name))
        gauge = core.GaugeMetricFamily
        latency = gauge(
            "velatura_latency_seconds", "From capture until shown.", labels=["output", "quantile"]
        )
        rate = gauge("velatura_output_fps", "Frames per second.", labels=["output", "kind"])
        alive = gauge("velatura_output_up", "Whether the sink takes frames.", labels=["output"])
        for output in stats.outputs:
            for name, quantile in QUANTILES.items():
                latency.add_metric([output.name, quantile], getattr(output.latency, name))
            for kind, value in (
                ("mean", output.rate),
                ("low_1_percent", output.low1),
                ("low_01_percent", output.low01),
            ):
                rate.add_metric([output.name, kind], value)
            alive.add_metric([output.name], float(not output.failure))
        stages = gauge(
            "velatura_stage_seconds", "Seconds of a frame in a part.", labels=["stage", "quantile"]
        )
        for stage, times in stats.stages.items():
            for name, quantile in QUANTILES.items():
                stages.add_metric([stage, quantile], getattr(times, name))
        rung = core.InfoMetricFamily("velatura_rung", "How much is done to a frame.")
        rung.add_metric([], {"name": stats.rung})
        yield from (latency, rate, alive, stages, rung)
