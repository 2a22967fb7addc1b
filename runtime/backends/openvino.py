"""OpenVINO on the CPU: FP32, BF16 where the CPU has it, and INT8 for quantised graphs."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError
from ..frame import Array
from .base import Engine, Hint, Pending
from .model import Model
from .static import StaticEngine

if TYPE_CHECKING:
    import openvino as ov

NAME = "openvino"


def unavailable() -> str | None:
    """Why this backend cannot be used here, or None when it can."""
    if find_spec("openvino") is None:
        return "the package openvino is not installed (pip install openvino)"
    return None


def precisions() -> tuple[str, ...]:
    """FP32 always, BF16 where the CPU computes in it, INT8 wherever it is an x86 or ARM CPU."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", *(name.lower() for name in ("BF16", "INT8") if name in capabilities))


def trial(model: bytes, image: Array) -> Array:
    """Run a serialised graph once on one tensor. Raises whatever OpenVINO does."""
    core = _core()
    compiled = core.compile_model(core.read_model(model), "CPU")
    return np.asarray(compiled([image])[0])


def open(model: Model, *, precision: str, hint: Hint) -> Engine:
    """Load the model. Raises EngineError when OpenVINO refuses it."""
    return OpenVinoEngine(model, precision=precision, hint=hint)


class OpenVinoEngine(StaticEngine["_Ring"]):
    """Requests in flight on OpenVINO's CPU plugin; results are written into the caller's arrays."""

    def __init__(self, model: Model, *, precision: str, hint: Hint) -> None:
        super().__init__(
            model,
            backend=NAME,
            precision="int8" if model.card.precision == "int8" else precision,
            in_flight=1,
        )
        self._core = _core()
        self._properties: dict[str, Any] = {
            "PERFORMANCE_HINT": hint.upper(),
            # Without this the plugin rounds to BF16 by itself wherever the CPU has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        if hint == "throughput":
            self.in_flight = max(2, _streams(self._core, self._properties))

    def _compile(self, graph: bytes) -> "_Ring":
        try:
            model = self._core.read_model(graph)
            compiled = self._core.compile_model(model, "CPU", self._properties)
            return _Ring([_Slot(compiled.create_infer_request()) for _ in range(self.in_flight)])
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot compile {self.card.name}: {_first(error)}") from error

    def _start(self, compiled: "_Ring", image: Array, output: Array) -> Pending:
        slot = compiled.next()
        slot.finish()
        slot.job = _Job(slot, image, output, self.card.name)
        slot.job.start()
        return slot.job.result

    def _release(self, compiled: "_Ring") -> None:
        for slot in compiled.slots:
            slot.finish()


@dataclass(slots=True)
class _Slot:
    """One infer request and what it last worked on."""

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
    model: str
    done: bool = False
    error: RuntimeError | None = field(default=None)

    def start(self) -> None:
        import openvino as ov

        request = self.slot.request
        request.set_input_tensor(ov.Tensor(self.image, shared_memory=True))
        request.set_output_tensor(ov.Tensor(self.output, shared_memory=True))
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
            raise EngineError(f"OpenVINO failed on {self.model}: {_first(self.error)}") from self.error
        return self.output


def _core() -> "ov.Core":
    import openvino as ov

    return ov.Core()


def _streams(core: "ov.Core", properties: dict[str, Any]) -> int:
    """How many requests the plugin wants in flight: one per physical core pair, at least the cores."""
    return int(core.get_property("CPU", "RANGE_FOR_STREAMS")[1]) if properties else 1


def _first(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
