"""`velatura bench`: a model on every backend and precision, against this machine's own peak."""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import typer
from onnx import NodeProto, TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Column, Table

from ..backends import BACKENDS, Engine, Fit, Hint, open_engine, openvino, refusals
from ..backends.graph import macs_per_pixel
from ..backends.model import find_model, load_model
from ..backends.open import (
    backend_precisions,
    cpu_backends,
    distributions,
    find_backend,
    trial_runner,
)
from ..backends.precision_choice import agreement_db, sample_picture
from ..cache import write_whole
from ..card import CardFlags
from ..errors import BackendUnavailableError, EngineError, SinkError, VelaturaError
from ..frame import Array, Frame
from ..machine import facts
from ..meter import memory_now
from ..sinks.output_file import reporting
from ..sources import open_source
from ..stages import Neural
from .progress import BuildView


def make_room(*paths: Path | None) -> None:
    """Create the parent folders of those paths that are given, and check that each file can be created.

    Raises SinkError where one cannot, or where its name is that of something other than a file.
    """
    for path in filter(None, paths):
        with reporting(path):
            if path.is_dir():
                raise SinkError(f"{path} is a folder: name a file in it")
            if path.exists() and not path.is_file():
                # A file that appears whole takes the place of what was there, of a device, too.
                raise SinkError(f"{path} is not a file, and would be replaced by one")
            path.parent.mkdir(parents=True, exist_ok=True)
            # With the name of `write_whole`, which may be too long.
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
                pass


def write_report(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all. Raises SinkError."""
    with reporting(path):
        write_whole(path, data)


CHANNELS, SIDE, DEPTH = 512, 64, 8
"""A chain of 1x1 convolutions, each a product of a 4096x512 with a 512x512 matrix: 17 billion
operations. Plain MatMul nodes reach half of it in INT8 and three quarters in BF16: the library packs
less well there."""

ROUNDS = 5
COPY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Peak:
    """The machine's peak performance: the best of several rounds."""

    matrix: dict[str, float]
    """Operations per second (a multiply-add counts two) by precision: fp32, bf16, int8."""
    copy: float
    """Bytes read and written per second."""


def measure_peak() -> Peak:
    """Measures matrix products by OpenVINO on all cores, and a copy. Raises EngineError without
    OpenVINO."""
    reason = openvino.CPU.unavailable()
    if reason is not None:
        raise EngineError(f"the peak is measured by OpenVINO: {reason}")
    offered = openvino.CPU.precisions()
    matrix = {name: _matrix_rate(name) for name in ("fp32", "bf16", "int8") if name in offered}
    return Peak(matrix, _copy_rate())


def matrix_kind(precision: str) -> str:
    """Returns the precision of the matrix products that an engine's precision is compared with."""
    return "int8" if precision.startswith("int8") else precision


class MatrixProducts:
    """The chain in one precision, ready to be timed beside the engine that it is compared with."""

    def __init__(self, precision: str) -> None:
        """`precision` is a key of `Peak.matrix`; needs OpenVINO."""
        ov = openvino.library()
        core = openvino.core()
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        graph = _products(quantised=precision == "int8")
        compiled = core.compile_model(core.read_model(graph), "CPU", properties)
        self._request = compiled.create_infer_request()
        kind = np.uint8 if precision == "int8" else np.float32
        self._request.set_input_tensor(ov.Tensor(np.ones((1, CHANNELS, SIDE, SIDE), kind)))
        self._request.infer()

    def rate(self) -> float:
        """Returns the operations per second of one round."""
        start = time.perf_counter()
        self._request.infer()
        return 2.0 * CHANNELS**2 * SIDE**2 * DEPTH / (time.perf_counter() - start)


def _matrix_rate(precision: str) -> float:
    products = MatrixProducts(precision)
    return max(products.rate() for _ in range(ROUNDS))


def _products(*, quantised: bool) -> bytes:
    """Returns the chain as ONNX; its mean is the result, so that no time goes into copying it out."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray | np.generic] = {
        "step": np.float32(0.02),
        "zero": np.uint8(0),
        "steps": np.full(CHANNELS, 0.001, np.float32),
        "zeros": np.zeros(CHANNELS, np.int8),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes: list[NodeProto] = []
    last = "picture"

    def add(kind: str, inputs: list[str], result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    for layer in range(DEPTH):
        weight = f"weight{layer}"
        size = (CHANNELS, CHANNELS, 1, 1)
        if quantised:
            constants[weight] = rng.integers(-127, 128, size, np.int8)
            if layer:
                last = add("QuantizeLinear", [last, "step", "zero"], f"quantised{layer}")
            last = add("DequantizeLinear", [last, "step", "zero"], f"input{layer}")
            weight = add("DequantizeLinear", [weight, "steps", "zeros"], f"kernel{layer}", axis=0)
        else:
            constants[weight] = (rng.normal(size=size) / CHANNELS**0.5).astype(np.float32)
        last = add("Conv", [last, weight], f"product{layer}", kernel_shape=[1, 1])
        last = add("Relu", [last], f"positive{layer}")
    add("ReduceMean", [last, "axes"], "result", keepdims=0)
    kind = TensorProto.UINT8 if quantised else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("picture", kind, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return made.SerializeToString()


def _copy_rate() -> float:
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2.0 * COPY_BYTES / best


WARM_UP = 3
"""Frames before the measurement starts: the first ones allocate memory."""

ENOUGH = 3
"""Frames that are measured at least, however slow they are."""

TURNS = 2
"""Parts into which a throughput's time is split; the machine's peak is measured between them. Other
load on the machine slows both alike, so that their ratio stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchJob:
    """The options of one benchmark."""

    model: str
    size: tuple[int, int] = (720, 1280)
    """Height and width of the frames."""
    backend: str = "all"
    seconds: float = 2.0
    out: Path | None = None
    flags: CardFlags = field(default_factory=CardFlags)
    fit: Fit = "tile"


@dataclass(frozen=True, slots=True)
class Times:
    """Statistics of the times between results."""

    frames: int
    fps: float
    median_ms: float
    p99_ms: float
    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """Returns the statistics of the seconds between one frame's result and the next."""
        values = np.array(seconds) * 1e3
        median, p99 = np.percentile(values, [50, 99])
        figures = (1e3 / values.mean(), median, p99, values.min(), values.max())
        return cls(len(values), *(round(float(figure), 3) for figure in figures))


def run_bench(job: BenchJob, *, as_json: bool) -> None:
    """Measure, print a table or JSON, and write JSON where asked for. Raises VelaturaError."""
    make_room(job.out)
    with BuildView("", silent=as_json) as view:
        report = measure_model(job, view)
    text = json.dumps(report, indent=None if as_json else 2)
    if job.out is not None:
        write_report(job.out, json.dumps(report, indent=2).encode() + b"\n")
    if as_json:
        typer.echo(text)
    else:
        _print(report)


def measure_model(job: BenchJob, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Returns all figures: facts of the machine, its peak, and one row for each backend and
    precision."""
    model = load_model(find_model(job.model), flags=job.flags, trial=trial_runner())
    reasons = refusals()
    if job.backend != "all" and job.backend not in reasons:
        raise EngineError(f"unknown backend {job.backend!r}; there are: all, {', '.join(BACKENDS)}")
    names = [n for n in BACKENDS if reasons[n] is None] if job.backend == "all" else [job.backend]
    if job.backend != "all" and reasons[job.backend] is not None:
        raise BackendUnavailableError(f"{job.backend}: {reasons[job.backend]}")
    macs = macs_per_pixel(model.proto, model.card) * job.size[0] * job.size[1]
    progress("measuring the machine's peak", 0.0)
    peak = measure_peak()
    products = {kind: MatrixProducts(kind) for kind in peak.matrix}
    reference = _reference(job)
    rows: list[dict[str, Any]] = []
    variants = [(name, precision) for name in names for precision in backend_precisions(name)]
    for number, (name, precision) in enumerate(variants):
        progress(f"{name} in {precision}", number / len(variants))
        rows.append(_row(job, name, precision, macs, products, reference))
    return {
        "machine": facts(distributions()),
        "model": job.model,
        "size": list(job.size),
        "multiply_adds_per_frame": round(macs),
        "peak": asdict(peak),
        "refused": {name: reason for name, reason in reasons.items() if reason is not None},
        "rows": rows,
    }


def _reference(job: BenchJob) -> Array:
    """Returns the FP32 result that others are compared with, on ONNX Runtime or OpenVINO on the CPU."""
    failure: EngineError | None = None
    for name in reversed(cpu_backends()):
        try:
            with _open(job, name, "fp32", "latency") as engine:
                return engine.run(_picture(engine, job.size))
        except EngineError as error:
            failure = error
    raise EngineError(f"no FP32 result to compare with: {failure}")


def _open(job: BenchJob, backend: str, precision: str, hint: Hint) -> Engine:
    return open_engine(
        job.model,
        backend,
        precision=precision,  # type: ignore[arg-type] - one of those the backend offered
        hint=hint,
        flags=job.flags,
        fit=job.fit,
    )


def _row(
    job: BenchJob,
    backend: str,
    precision: str,
    macs: float,
    products: dict[str, MatrixProducts],
    reference: Array,
) -> dict[str, Any]:
    """Returns the figures of one backend in one precision; `refused` has the reason if it does not
    run."""
    row: dict[str, Any] = {"backend": backend, "precision": precision}
    before = memory_now()
    try:
        start = time.perf_counter()
        with _open(job, backend, precision, "latency") as engine:
            engine.prepare(*job.size)
            row["open_ms"] = round((time.perf_counter() - start) * 1e3, 1)
            picture = _picture(engine, job.size)
            row["parity_db"] = round(agreement_db(reference, engine.run(picture)), 2)
            row["latency"] = asdict(Times.of(_one_by_one(engine, picture, job.seconds)))
        with _open(job, backend, precision, "throughput") as engine:
            seconds, possible = _beside_peak(
                lambda: _streamed(
                    lambda: engine.submit(picture), engine.in_flight, job.seconds / TURNS
                ),
                products.get(matrix_kind(precision)) if find_backend(backend).on_cpu else None,
            )
            row["throughput"] = asdict(Times.of(seconds))
            stage, frames = Neural(engine), _frames(job.size)
            row["frames"] = asdict(Times.of(stage_times(stage, frames, job.seconds)))
            after = memory_now()
    except VelaturaError as error:
        return {**row, "refused": str(error)}
    rate = 2.0 * macs * row["throughput"]["fps"]
    row["operations_per_second"] = round(rate)
    row["share_of_peak"] = round(rate / possible, 4) if possible else None
    if before is not None and after is not None:
        row["memory_mib"] = round((after - before) / 2**20, 1)
    return row


def _beside_peak(
    part: Callable[[], list[float]], products: MatrixProducts | None
) -> tuple[list[float], float | None]:
    """Returns the seconds of all parts, and the best rate of `products` before, between and after."""
    if products is None:
        return [seconds for _ in range(TURNS) for seconds in part()], None
    rates, found = [products.rate()], list[float]()
    for _ in range(TURNS):
        found += part()
        rates.append(products.rate())
    return found, max(rates)


def _picture(engine: Engine, size: tuple[int, int]) -> Array:
    return sample_picture(*size, engine.card.input_channels)


def _frames(size: tuple[int, int]) -> list[Frame]:
    """Returns 4:2:0 frames, as a decoder gives them."""
    height, width = (side + side % 2 for side in size)
    with open_source(f"pattern:{width}x{height}?frames=4") as source:
        return list(source)


def _one_by_one(engine: Engine, picture: Array, seconds: float) -> list[float]:
    """Returns the seconds of each frame with nothing else in flight."""
    for _ in range(WARM_UP):
        engine.run(picture)
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < ENOUGH or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        engine.run(picture)
        found.append(time.perf_counter() - start)
    return found


def stage_times(stage: Neural, frames: Sequence[Frame], seconds: float) -> list[float]:
    """Returns the seconds from one frame's result to the next, with all that may be in flight."""
    turn = cycle(frames)
    return _streamed(lambda: stage.submit(next(turn)), stage.in_flight, seconds)


def _streamed(
    submit: Callable[[], Callable[[], object]], in_flight: int, seconds: float
) -> list[float]:
    """Returns the seconds from one result to the next with `in_flight` frames on their way."""
    running = [submit() for _ in range(in_flight)]
    found: list[float] = []
    for _ in range(WARM_UP):
        running.pop(0)()
        running.append(submit())
    begin = last = time.perf_counter()
    while len(found) < ENOUGH or last - begin < seconds:
        running.pop(0)()
        running.append(submit())
        now = time.perf_counter()
        found.append(now - last)
        last = now
    for pending in running:
        pending()
    return found


def _print(report: dict[str, Any]) -> None:
    height, width = report["size"]
    peak = report["peak"]
    rates = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in peak["matrix"].items())
    gmacs = report["multiply_adds_per_frame"] / 1e9
    typer.echo(f"{report['model']} at {height}x{width}: {gmacs:.2f} billion multiply-adds a frame")
    typer.echo(f"peak of this machine: {rates} tera-operations/s, copy {peak['copy'] / 1e9:.1f} GB/s")
    names = (
        "backend", "precision", "fps", "frames fps", "latency ms", "p99 ms", "spread ms", "of peak",
        "parity dB", "open ms", "MiB",
    )  # fmt: skip
    table = Table(*(Column(name, no_wrap=True) for name in names))
    for row in report["rows"]:
        if "refused" in row:
            table.add_row(row["backend"], row["precision"], f"refused: {row['refused']}")
            continue
        latency, share = row["latency"], row["share_of_peak"]
        table.add_row(
            row["backend"],
            row["precision"],
            f"{row['throughput']['fps']:.1f}",
            f"{row['frames']['fps']:.1f}",
            f"{latency['median_ms']:.2f}",
            f"{latency['p99_ms']:.2f}",
            f"{latency['low_ms']:.2f}..{latency['high_ms']:.2f}",
            f"{share:.0%}" if share is not None else "",
            f"{row['parity_db']:.1f}",
            f"{row['open_ms']:.0f}",
            f"{row['memory_mib']:.0f}" if "memory_mib" in row else "",
        )
    console = Console()
    # A table cut to the 80 columns of a pipe says nothing.
    console.width = max(console.width, 118)
    console.print(table)
    for name, reason in report["refused"].items():
        typer.echo(f"not {name}: {reason}", err=True)
