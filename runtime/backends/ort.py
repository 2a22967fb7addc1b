"""ONNX Runtime on the CPU: the second choice, and the reference that others are checked against."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError
from ..frame import Array
from .base import Engine, Hint, Pending
from .graph import INPUT, OUTPUT
from .model import Model
from .static import StaticEngine

if TYPE_CHECKING:
    import onnxruntime as ort

NAME = "ort"


def unavailable() -> str | None:
    """Why this backend cannot be used here, or None when it can."""
    if find_spec("onnxruntime") is None:
        return "the package onnxruntime is not installed (pip install 'velatura[ort]')"
    return None


def precisions() -> tuple[str, ...]:
    """FP32, and INT8 for quantised graphs."""
    return ("fp32", "int8")


def trial(model: bytes, image: Array) -> Array:
    """Run a serialised graph once on one tensor. Raises whatever ONNX Runtime does."""
    session = _session(model, threads=1)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


def open(model: Model, *, precision: str, hint: Hint) -> Engine:
    """Load the model. Raises EngineError when ONNX Runtime cannot give that precision."""
    if precision == "bf16":
        raise EngineError("ONNX Runtime's CPU provider does not compute in BF16")
    return OrtEngine(model, precision=precision, hint=hint)


class OrtEngine(StaticEngine["ort.InferenceSession"]):
    """ONNX Runtime sessions. For throughput, as many frames as cores run side by side."""

    def __init__(self, model: Model, *, precision: str, hint: Hint) -> None:
        cores = os.cpu_count() or 1
        side_by_side = max(2, cores) if hint == "throughput" else 1
        super().__init__(
            model,
            backend=NAME,
            precision="int8" if model.card.precision == "int8" else precision,
            in_flight=side_by_side,
        )
        self._threads = 1 if hint == "throughput" else cores
        self._pool = ThreadPoolExecutor(side_by_side, thread_name_prefix="velatura-ort")

    def _compile(self, graph: bytes) -> "ort.InferenceSession":
        try:
            return _session(graph, threads=self._threads)
        except Exception as error:  # its errors derive from Exception alone
            raise EngineError(f"ONNX Runtime cannot load {self.card.name}: {error}") from error

    def _start(self, compiled: "ort.InferenceSession", image: Array, output: Array) -> Pending:
        name = self.card.name

        def work() -> Array:
            try:
                binding = compiled.io_binding()
                binding.bind_cpu_input(INPUT, image)
                binding.bind_output(OUTPUT, "cpu", 0, output.dtype, output.shape, output.ctypes.data)
                compiled.run_with_iobinding(binding)
            except Exception as error:
                raise EngineError(f"ONNX Runtime failed on {name}: {error}") from error
            return output

        return self._pool.submit(work).result

    def _release(self, compiled: "ort.InferenceSession") -> None:
        # Sessions are freed with their last reference; pending work holds one of its own.
        del compiled

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        super().close()


def _session(model: bytes, *, threads: int) -> "ort.InferenceSession":
    import onnxruntime as ort

    options: Any = ort.SessionOptions()  # pyright: ignore[reportUnknownVariableType]
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
