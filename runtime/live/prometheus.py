"""The figures of a live run for monitoring systems, by prometheus-client."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from ..errors import BackendUnavailableError, SinkError
from .stats import LiveStats


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
