"""ONNX Runtime: the second choice on a CPU, the reference for the others, and five GPU providers."""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from ..errors import BackendUnavailableError, EngineError, OutOfMemoryError
from ..frame import Array
from ..machine import cpu_and_cores, nvidia_gpu, nvidia_problem
from .base import Backend, Engine, Model, Options, Pending
from .graph import INPUT, OUTPUT, explain, wrap
from .half import to_half
from .model import OPSET
from .nvidia import library as nvidia_library
from .shape_compiled import Key, StaticEngine

if TYPE_CHECKING:
    import onnxruntime as ort


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtBackend(Backend):
    """ONNX Runtime with one of its execution providers."""

    package: str = "onnxruntime"
    distributions: tuple[str, ...] = ("onnxruntime",)
    provider: str
    """ONNX Runtime's name of the provider."""
    problem: Callable[[], str | None] | None = None
    """Returns the reason why the machine has no such device; called before anything is imported."""
    system: str | None = None
    """The only system, by `sys.platform`, on which the provider exists."""
    plugin: str | None = None
    """The package whose library brings the provider, where it is not part of onnxruntime itself."""
    options: tuple[tuple[str, str], ...] = ()
    concurrent: bool = True
    """True if a session may be run from two threads at a time."""
    libraries: Callable[[], str] = lambda: ""
    """Opens the provider's libraries where pip has installed them; returns the messages printed
    meanwhile."""

    def unavailable(self) -> str | None:
        reason = Backend.unavailable(self) or (self.problem() if self.problem is not None else None)
        if reason is not None:
            return reason
        if self.plugin is not None:
            if find_spec(self.plugin) is None:
                return f"the package {self.plugin} is not installed ({self.advice})"
            return _plugin_problem(self.plugin, self.provider) or _load_problem(self)
        import onnxruntime as ort

        if self.provider not in ort.get_available_providers():
            return f"this onnxruntime has no {self.provider} ({self.advice})"
        return None if self.on_cpu else _load_problem(self)

    def expected(self) -> bool:
        if self.problem is not None:
            return self.problem() is None
        return self.on_cpu or sys.platform == self.system

    def version(self) -> str:
        import onnxruntime as ort

        return str(ort.__version__)

    def device(self) -> str:
        """Returns the GPU and its driver; the CPU for providers whose driver cannot be queried."""
        return nvidia_gpu() if self.problem is nvidia_problem else cpu_and_cores()

    def precisions(self) -> tuple[str, ...]:
        """Returns FP32 everywhere, INT8 for quantised graphs on CPUs, FP16 on GPUs."""
        return ("fp32", "int8") if self.on_cpu else ("fp32", "fp16")

    def trial(self, model: bytes, image: Array) -> Array:
        session = self.session(model, threads=1)
        return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])

    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        """Opens an engine for the model. Raises EngineError when the provider falls back to the CPU or
        refuses it."""
        return OrtEngine(model, backend=self, precision=precision, options=options)

    def session(self, model: bytes, *, threads: int) -> "ort.InferenceSession":
        """Returns a session on this provider. Raises EngineError when ONNX Runtime would compute on
        another."""
        session = self.loaded(model, threads=threads)
        # Since 1.24 the session tells which provider has taken which nodes; one that takes none raises
        # nothing.
        told = getattr(session, "get_provider_graph_assignment_info", None)
        if told is None or self.on_cpu:
            return session
        takers = {part.ep_name for part in told()}
        if takers and self.provider not in takers:
            raise EngineError(
                f"{self.provider} takes no operator of the model: all would run on the CPU"
            )
        return session

    def loaded(self, model: bytes, *, threads: int) -> "ort.InferenceSession":
        """Returns a session for which this provider was loaded, even if it takes no node."""
        import onnxruntime as ort

        said = self.libraries()
        options: Any = ort.SessionOptions()  # pyright: ignore[reportUnknownVariableType]
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what matters is raised
        if not self.on_cpu:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self.plugin is not None:
            devices = [d for d in _devices(ort) if d.ep_name == self.provider]
            options.add_provider_for_devices(devices[:1], dict(self.options))
            session = ort.InferenceSession(model, options)
        else:
            provider = (self.provider, dict(self.options))
            session = ort.InferenceSession(model, options, providers=[provider])
        # A provider whose libraries are missing is replaced by the CPU's, with a line in a log.
        if self.provider not in session.get_providers():
            raise EngineError(
                f"{self.provider} could not be loaded and ONNX Runtime fell back to the CPU: libraries "
                f"that it needs are missing or of another version ({said or self.advice})"
            )
        return session


@cache
def _cuda_libraries() -> str:
    """Open the libraries of CUDA and cuDNN, which lie in packages where no linker looks for them;
    returns the messages printed meanwhile."""
    import onnxruntime as ort

    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is None:
        return ""
    # It prints what it does not find, and frames may be on their way to the standard output.
    with contextlib.redirect_stdout(io.StringIO()) as said:
        preload()
    return "; ".join(said.getvalue().splitlines())


@cache
def _tensorrt_libraries() -> str:
    """Open TensorRT's libraries, too, which its package does when it is imported."""
    said = _cuda_libraries()
    try:
        nvidia_library.load("tensorrt")
    except BackendUnavailableError as error:
        return f"{said}; {error}" if said else str(error)
    return said


CPU = OrtBackend(
    name="ort",
    provider="CPUExecutionProvider",
    advice="pip install 'velatura[ort]'",
    on_cpu=True,
)
CUDA = OrtBackend(
    name="ort-cuda",
    provider="CUDAExecutionProvider",
    distributions=("onnxruntime-gpu",),
    advice="pip install 'velatura[gpu]'",
    problem=nvidia_problem,
    libraries=_cuda_libraries,
)
TENSORRT = replace(
    CUDA,
    name="ort-tensorrt",
    provider="TensorrtExecutionProvider",
    libraries=_tensorrt_libraries,
)
RTX = OrtBackend(
    name="ort-rtx",
    provider="NvTensorRTRTXExecutionProvider",
    distributions=("onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx-cu13"),
    advice="pip install 'velatura[rtx]' onnxruntime",
    problem=nvidia_problem,
    plugin="onnxruntime_ep_nv_tensorrt_rtx",
)
DIRECTML = OrtBackend(
    name="ort-directml",
    provider="DmlExecutionProvider",
    advice="pip install onnxruntime-directml, on Windows",
    system="win32",
    concurrent=False,
)
COREML = OrtBackend(
    name="ort-coreml",
    provider="CoreMLExecutionProvider",
    advice="pip install onnxruntime, on macOS",
    system="darwin",
)
BACKENDS = (TENSORRT, RTX, CUDA, DIRECTML, COREML, CPU)


class OrtEngine(StaticEngine["ort.InferenceSession"]):
    """ONNX Runtime sessions bound to the frames' own memory.

    On a CPU, for throughput, as many frames as cores run side by side. On a GPU two are in flight: one
    computes while the other's samples travel.
    """

    def __init__(self, model: Model, *, backend: OrtBackend, precision: str, options: Options) -> None:
        cores = os.cpu_count() or 1
        throughput = options.hint == "throughput"
        side_by_side = (max(2, cores) if backend.on_cpu else 2) if throughput else 1
        super().__init__(
            model,
            backend=backend.name,
            precision="int8" if model.card.precision == "int8" else precision,
            in_flight=side_by_side,
            fit=options.fit,
        )
        self._provider = backend
        self._threads = 1 if throughput or not backend.on_cpu else cores
        workers = side_by_side if backend.concurrent else 1
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="velatura-ort")
        self._proto, self._graph_card = model.proto, model.card
        if precision == "fp16":
            self._proto, self._graph_card = halved(model)

    def _compile(self, key: Key) -> "ort.InferenceSession":
        height, width, bits = key
        graph = wrap(self._proto, self._graph_card, bits=bits, size=(height, width))
        try:
            return self._provider.session(graph.SerializeToString(), threads=self._threads)
        except EngineError:
            raise
        except Exception as error:  # its errors derive from Exception alone
            raise self._error("cannot load", error) from error

    def _start(self, compiled: "ort.InferenceSession", image: Array, output: Array) -> Pending:
        height, width = image.shape[:2]
        wanted, shape = self._io_shapes(height, width)
        given = image.reshape(wanted)

        def work() -> Array:
            try:
                binding = compiled.io_binding()
                binding.bind_cpu_input(INPUT, given)
                binding.bind_output(OUTPUT, "cpu", 0, output.dtype, shape, output.ctypes.data)
                compiled.run_with_iobinding(binding)
            except Exception as error:
                raise self._error("failed on", error) from error
            return output

        return self._pool.submit(work).result

    def _error(self, what: str, error: Exception) -> EngineError:
        text = str(error)
        kind = OutOfMemoryError if _is_memory(text) else EngineError
        return kind(f"ONNX Runtime {what} {self.card.name}: {explain(self.model.proto, text)}")

    def _release(self, compiled: "ort.InferenceSession") -> None:
        # Sessions are freed with their last reference; pending work holds one of its own.
        del compiled

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        super().close()


def halved(model: Model) -> "tuple[Any, Any]":
    """Returns (graph, card) of the model in half precision."""
    if model.card.dtype == "float16":
        return model.proto, model.card
    dtype = "float16" if model.card.dtype == "float32" else model.card.dtype
    return to_half(model.proto), replace(model.card, dtype=dtype, precision="fp16")


def _devices(ort: Any) -> list[Any]:
    """Returns the devices that the registered plugins have found."""
    return list(ort.get_ep_devices())


def _is_memory(text: str) -> bool:
    return any(word in text.lower() for word in ("out of memory", "failed to allocate memory"))


@cache
def _load_problem(backend: OrtBackend) -> str | None:
    """Returns the reason why a provider cannot be loaded, tried once per process; engines would
    otherwise fail at their first frame."""
    # No provider but the CPU's takes a string, so that nothing is compiled.
    text = helper.make_tensor_value_info("text", TensorProto.STRING, [1])
    same = helper.make_tensor_value_info("same", TensorProto.STRING, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["text"], ["same"])], "load", [text], [same]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    try:
        backend.loaded(model.SerializeToString(), threads=1)
    except Exception as error:  # its errors derive from Exception alone
        return str(error)
    return None


@cache
def _plugin_problem(package: str, provider: str) -> str | None:
    """Registers a plugin's library once per process; returns the reason where it has no device."""
    import onnxruntime as ort

    try:
        # The package preloads its libraries when it is imported.
        library = import_module(package).get_library_path()
        ort.register_execution_provider_library(f"velatura.{package}", library)
    except Exception as error:  # a missing library, or one that asks for a newer ONNX Runtime
        return f"the library of {provider} cannot be loaded: {error}"
    if not any(device.ep_name == provider for device in _devices(ort)):
        return f"{provider} finds no device that it can use"
    return None
