"""OpenVINO on the CPU: FP32, BF16 where the CPU has it, INT8 for quantised graphs, both mixed."""

import io
import sys
import threading
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..cache import digest_of
from ..errors import EngineError
from ..frame import Array
from ..machine import cpu_name
from .base import Backend, Engine, Hint, Model, Options, Pending
from .graph import explain, wrap
from .shape_compiled import Key, StaticEngine

if TYPE_CHECKING:
    import openvino as ov


def library() -> Any:
    """Returns the package openvino, imported without its telemetry.

    The telemetry sends an event at every import, from a thread, in a forked process: beside other
    threads such a process can hang for ever, and ours with it, which waits for it at its end. Where
    openvino has been imported before, it stays as it is.
    """
    reporter = "openvino_telemetry"
    if "openvino" not in sys.modules and reporter not in sys.modules:
        # None in this place makes the import fail, for which the package has a stand-in.
        cast("dict[str, Any]", sys.modules)[reporter] = None
        try:
            return import_module("openvino")
        finally:
            del sys.modules[reporter]
    return import_module("openvino")


class OpenVinoBackend(Backend):
    """OpenVINO's CPU plugin."""

    __slots__ = ()

    def version(self) -> str:
        return str(library().__version__)

    def precisions(self) -> tuple[str, ...]:
        """Returns FP32 always, BF16 where the CPU computes in it, INT8 on x86 and ARM, and both
        mixed."""
        capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        found = tuple(name.lower() for name in ("BF16", "INT8") if name in capabilities)
        return ("fp32", *found, *(("int8-bf16",) if len(found) == 2 else ()))

    def trial(self, model: bytes, image: Array) -> Array:
        request = _compiled(model).create_infer_request()
        return np.array(request.infer([image])[0])

    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        return OpenVinoEngine(model, precision=precision, options=options)


CPU = OpenVinoBackend(
    name="openvino",
    package="openvino",
    advice="pip install openvino",
    distributions=("openvino",),
    on_cpu=True,
)
BACKENDS = (CPU,)


@lru_cache(maxsize=1)
def _compiled(model: bytes) -> "ov.CompiledModel":
    """Returns the graph compiled as it is, for inspection, which runs one several times."""
    return core().compile_model(core().read_model(model), "CPU")


class OpenVinoEngine(StaticEngine["_Ring"]):
    """Requests in flight on OpenVINO's CPU plugin; results are written into the caller's arrays.

    For throughput there are as many streams as cores, each with one thread: a core that finishes its
    frame need not wait for the others. For latency all cores share one frame. Compiled models are kept
    in the cache: opening one takes a third to a half of compiling it.
    """

    def __init__(self, model: Model, *, precision: str, options: Options) -> None:
        if model.card.precision == "int8" and not precision.startswith("int8"):
            precision = "int8"
        super().__init__(model, backend=CPU.name, precision=precision, in_flight=1, fit=options.fit)
        self._core = core()
        self._cache = options.cache
        self._properties = _properties(precision, options.hint)
        if options.hint == "throughput":
            self.in_flight = max(2, _streams(self._core))

    def _compile(self, key: Key) -> "_Ring":
        height, width, bits = key
        graph = wrap(self.model.proto, self.card, bits=bits, size=(height, width)).SerializeToString()
        made: list[ov.CompiledModel] = []

        properties = self._properties
        if bits > 8 and properties["INFERENCE_PRECISION_HINT"] == "bf16":
            # BF16 holds eight bits: smooth gradients of ten would come back in steps.
            properties = {**properties, "INFERENCE_PRECISION_HINT": "f32"}
            line = f"{self.card.name}: frames of {bits} bits run in FP32 where 8-bit ones run in BF16"
            self.notes = self.notes if line in self.notes else (*self.notes, line)

        def build() -> bytes:
            try:
                model = self._core.read_model(graph)
                made.append(self._core.compile_model(model, "CPU", properties))
            except RuntimeError as error:
                reason = explain(self.model.proto, str(error))
                raise EngineError(f"OpenVINO cannot compile {self.card.name}: {reason}") from error
            return made[0].export_model().getvalue()

        key_on_disk = self._cache_key(graph, properties)
        blob, _ = self._cache.get_or_build(key_on_disk, build)
        if not made:
            try:
                made.append(self._core.import_model(io.BytesIO(blob), "CPU", properties))
            except RuntimeError:  # whole, but not to this library's liking: as if it were not there
                self._cache.put(key_on_disk, build())
        requests = [made[0].create_infer_request() for _ in range(self.in_flight)]
        return _Ring([_Slot(request) for request in requests])

    def _cache_key(self, graph: bytes, properties: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": self.card.name,
            "backend": CPU.name,
            "precision": self.precision,
            "graph": digest_of(graph),
            "library": CPU.version(),
            "device": cpu_name(),
            "properties": properties,
        }

    def _start(self, compiled: "_Ring", image: Array, output: Array) -> Pending:
        slot = compiled.next()
        slot.finish()
        shapes = self._io_shapes(image.shape[0], image.shape[1])
        slot.job = _Job(slot, image, output, self, shapes)
        slot.job.start()
        return slot.job.result

    def _release(self, compiled: "_Ring") -> None:
        for slot in compiled.slots:
            slot.finish()


@dataclass(slots=True)
class _Slot:
    """One infer request and the job that it last worked on."""

    request: "ov.InferRequest"
    job: "_Job | None" = None

    def finish(self) -> None:
        """Wait for the job, if any: its result lies in its own array, so the request is free again."""
        if self.job is not None:
            self.job.finish()
            self.job = None


@dataclass(slots=True)
class _Ring:
    slots: list[_Slot]
    turn: int = 0

    def next(self) -> _Slot:
        slot = self.slots[self.turn]
        self.turn = (self.turn + 1) % len(self.slots)
        return slot


@dataclass(slots=True)
class _Job:
    """One picture in flight; holds its arrays, which OpenVINO reads and writes in place."""

    slot: _Slot
    image: Array
    output: Array
    engine: OpenVinoEngine
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """Those of the graph's input and output."""
    done: bool = False
    error: RuntimeError | None = field(default=None)

    def start(self) -> None:
        ov = library()
        request = self.slot.request
        given, result = self.image.reshape(self.shapes[0]), self.output.reshape(self.shapes[1])
        request.set_input_tensor(ov.Tensor(given, shared_memory=True))
        request.set_output_tensor(ov.Tensor(result, shared_memory=True))
        request.start_async()

    def finish(self) -> None:
        if self.done:
            return
        self.done = True
        try:
            self.slot.request.wait()
        except RuntimeError as error:
            self.error = error

    def result(self) -> Array:
        self.finish()
        if self.error is not None:
            reason = explain(self.engine.model.proto, str(self.error))
            raise EngineError(f"OpenVINO failed on {self.engine.card.name}: {reason}") from self.error
        return self.output


_ONE_AT_A_TIME = threading.Lock()


def core() -> "ov.Core":
    """Returns the one core of this process, which stays until its end.

    A core's CPU plugin sets a stack for signals in the thread that loads it, and frees that stack with
    the core: where another thread drops it, the next Ctrl-C is a segmentation fault. So nobody here
    makes a core of their own.
    """
    with _ONE_AT_A_TIME:
        return _only_core()


@cache
def _only_core() -> "ov.Core":
    return library().Core()


def _properties(precision: str, hint: Hint) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": hint.upper(),
        # Without this the plugin rounds to BF16 by itself wherever the CPU has it. A quantised graph
        # runs its quantised layers in INT8 either way; this is about what it keeps in float.
        "INFERENCE_PRECISION_HINT": "bf16" if precision.endswith("bf16") else "f32",
    }


def _streams(core: "ov.Core") -> int:
    """Returns the number of requests that the plugin wants in flight: at least the cores."""
    return int(core.get_property("CPU", "RANGE_FOR_STREAMS")[1])
