"""TensorRT 10, TensorRT 11 and TensorRT-RTX on the simulated GPU, computed by ONNX Runtime.

`tensorrt(gpu, flavour)` makes the module of the bindings. It offers nothing that the real one has not:
test_bindings.py compares classes, members, parameters and values.
"""

import ctypes
import hashlib
import json
import threading
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from velatura.runtime.backends.half_emulation import RoundedGraph

from .simulated import ALIGNMENT, BROKEN, OK, Gpu, Step, Stream, cudaError_t
from .simulated_builder import (
    VERSIONS,
    Flavour,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    builder_names,
    root,
    say,
)

ACTIVATIONS = 16
"""Bytes of device memory that a context takes for each input sample."""


def tensorrt(gpu: Gpu, flavour: Flavour) -> Any:
    """A module with the names of that library's bindings; all that is built in it runs on `gpu`."""
    rtx = flavour == "rtx"
    sessions: dict[str, ort.InferenceSession] = {}

    def session(graph: bytes) -> ort.InferenceSession:
        key = hashlib.sha256(graph).hexdigest()
        if key not in sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            sessions[key] = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return sessions[key]

    halves: dict[str, RoundedGraph] = {}
    one_at_a_time = threading.Lock()

    def rounded(graph: bytes) -> RoundedGraph | None:
        """What computes a graph with half tensors: ONNX Runtime on a CPU leaves out the rounding."""
        proto = onnx.load_from_string(graph)
        half = onnx.TensorProto.FLOAT16
        casts = (a.i for node in proto.graph.node for a in node.attribute if a.name == "to")
        if half not in {*casts, *(tensor.data_type for tensor in proto.graph.initializer)}:
            return None
        key = hashlib.sha256(graph).hexdigest()
        return halves.setdefault(key, RoundedGraph(proto))

    class IRuntimeCache:
        __slots__ = ("_kernels",)

        def __init__(self) -> None:
            self._kernels: set[str] = set()

        def serialize(self) -> IHostMemory:
            return IHostMemory(b"kernels " + json.dumps(sorted(self._kernels)).encode())

        def deserialize(self, blob: bytes) -> bool:
            if not blob.startswith(b"kernels "):
                return False
            self._kernels |= set(json.loads(blob[8:]))
            return True

    class IRuntimeConfig:
        __slots__ = ("_cache",)

        def __init__(self) -> None:
            self._cache: IRuntimeCache | None = None

        def create_runtime_cache(self) -> IRuntimeCache:
            return IRuntimeCache()

        def set_runtime_cache(self, cache: IRuntimeCache | None = None) -> bool:
            self._cache = cache
            return True

    class IExecutionContext:
        __slots__ = ("_address", "_addresses", "_config", "_engine", "_runs", "_shape")

        def __init__(self, engine: "ICudaEngine", address: int, config: IRuntimeConfig | None) -> None:
            self._engine, self._address, self._config = engine, address, config
            self._addresses: dict[str, int] = {}
            self._shape: tuple[int, ...] = ()
            self._runs = 0

        def __del__(self) -> None:
            gpu.free(self._address, "context")

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            engine = self._engine
            if name != engine._input.name or not engine._takes(tuple(shape)):
                say(engine._logger, "ERROR", f"the shape {shape} of {name} is none of the engine's")
                return False
            self._shape = tuple(shape)
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            if name not in (self._engine._input.name, self._engine._output.name):
                say(self._engine._logger, "ERROR", f"Error Code 3: there is no tensor {name}")
                return False
            if not memory or memory % ALIGNMENT:
                say(self._engine._logger, "ERROR", f"Error Code 3: {memory:#x} is not aligned")
                return False
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert isinstance(stream_handle, int), "a handle that is no number"
            stream = gpu.find(stream_handle, Stream)
            engine = self._engine
            names = (engine._input.name, engine._output.name)
            if stream is None or not self._shape or any(name not in self._addresses for name in names):
                say(engine._logger, "ERROR", "not all shapes and addresses are specified")
                return False
            # What is first run allocates and compiles, and so does an engine that cannot be recorded.
            if stream.capture is not None and not self._can_record():
                gpu.capturing()
                say(engine._logger, "ERROR", "Error Code 1: Cuda Runtime (operation not permitted)")
                return False
            failing, gpu.fail = gpu.fail, None
            if failing == "both":
                stream.give(lambda _order: BROKEN)
            if failing in ("sync", "both"):
                say(engine._logger, "ERROR", "Error Code 1: Myelin (this frame is cursed)")
                return False
            self._runs += 1
            self._compile()
            addresses = (self._addresses[names[0]], self._addresses[names[1]])
            stream.give(engine._step(addresses, self._shape, failing == "async"))
            return True

        def _can_record(self) -> bool:
            return self._runs > 0 and gpu.recordable

        def _compile(self) -> None:
            cache = self._config._cache if self._config is not None else None
            if rtx and (cache is None or self._engine._key not in cache._kernels):
                gpu.counts["compiled kernels"] += 1
                if cache is not None:
                    cache._kernels.add(self._engine._key)

    class RtxExecutionContext(IExecutionContext):
        __slots__ = ()

        def is_stream_capturable(self, stream: int) -> bool:
            assert gpu.find(stream, Stream)
            return self._capturable()

        def _capturable(self) -> bool:
            return gpu.recordable and "REQUIRE_USER_ALLOCATION" in self._engine._facts["flags"]

        def _can_record(self) -> bool:
            if not self._capturable():
                gpu.faults.append("recorded what said that it cannot be recorded")
            return super()._can_record()

    class ICudaEngine:
        def __init__(self, facts: dict[str, Any], graph: bytes, logger: ILogger, address: int) -> None:
            self._facts, self._logger, self._address = facts, logger, address
            self._session, self._rounded = session(graph), rounded(graph)
            self._key = hashlib.sha256(graph).hexdigest()
            self._input, self._output = self._session.get_inputs()[0], self._session.get_outputs()[0]

        def __del__(self) -> None:
            gpu.free(self._address, "engine")

        def _takes(self, shape: tuple[int, ...]) -> bool:
            fixed = self._input.shape
            if len(shape) != len(fixed):
                return False
            if any(isinstance(b, int) and a != b for a, b in zip(shape, fixed, strict=True)):
                return False
            profiles = [profile[self._input.name] for profile in self._facts["profiles"]]
            inside = [
                all(a <= s <= b for s, a, b in zip(shape, p[0], p[2], strict=True)) for p in profiles
            ]
            return all(isinstance(side, int) for side in fixed) or any(inside)

        def _context(self, config: IRuntimeConfig | None) -> IExecutionContext | None:
            largest = [side for side in self._input.shape if isinstance(side, int)]
            for profile in self._facts["profiles"]:
                largest = profile[self._input.name][2]
            address = gpu.allocate(int(np.prod(largest)) * ACTIVATIONS, "context")
            if address is None:
                say(self._logger, "ERROR", "Error Code 2: OutOfMemory (Requested size was too large)")
                return None
            return (RtxExecutionContext if rtx else IExecutionContext)(self, address, config)

        def create_execution_context(self, strategy: Any = None) -> IExecutionContext | None:
            return self._context(strategy)

        def _step(self, addresses: tuple[int, int], shape: tuple[int, ...], fails: bool) -> Step:
            size_in = int(np.prod(shape))

            def execute(order: int) -> cudaError_t:
                if fails:
                    return BROKEN
                gpu.counts["executions"] += 1
                gpu.check(addresses[0], size_in, ("device",), order)
                if self._rounded is not None:
                    block = (ctypes.c_ubyte * size_in).from_address(addresses[0])
                    with one_at_a_time:
                        result = self._rounded(np.frombuffer(block, np.uint8).reshape(shape).copy())
                    gpu.check(addresses[1], result.nbytes, ("device",), order)
                    ctypes.memmove(
                        addresses[1], np.ascontiguousarray(result).ctypes.data, result.nbytes
                    )
                    return OK
                binding = self._session.io_binding()
                binding.bind_input(self._input.name, "cpu", 0, np.uint8, shape, addresses[0])
                if all(isinstance(side, int) for side in self._output.shape):
                    gpu.check(addresses[1], int(np.prod(self._output.shape)), ("device",), order)
                    binding.bind_output(
                        self._output.name, "cpu", 0, np.uint8, self._output.shape, addresses[1]
                    )
                    self._session.run_with_iobinding(binding)
                    return OK
                binding.bind_output(self._output.name, "cpu")
                self._session.run_with_iobinding(binding)
                result = binding.copy_outputs_to_cpu()[0]
                gpu.check(addresses[1], result.nbytes, ("device",), order)
                ctypes.memmove(addresses[1], result.ctypes.data, result.nbytes)
                return OK

            return execute

    class RtxCudaEngine(ICudaEngine):
        def create_runtime_config(self) -> IRuntimeConfig:
            return IRuntimeConfig()

        def create_execution_context(
            self, runtime_config: IRuntimeConfig | None = None
        ) -> IExecutionContext | None:
            return self._context(runtime_config)

    class Runtime:
        __slots__ = ("_logger", "engine_host_code_allowed")

        def __init__(self, logger: ILogger) -> None:
            root(gpu, logger)
            self._logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            gpu.counts["loaded engines"] += 1
            digest, body = serialized_engine[:32], serialized_engine[32:]
            if hashlib.sha256(body).digest() != digest:
                say(self._logger, "ERROR", "Error Code 1: Serialization (magic tag does not match)")
                return None
            head, _, graph = body.partition(b"\n")
            facts = json.loads(head)
            problem = self._problem(facts)
            if problem is not None:
                say(self._logger, "ERROR", problem)
                return None
            address = gpu.allocate(len(graph), "engine")
            if address is None:
                say(self._logger, "ERROR", "Error Code 2: OutOfMemory (Requested size was too large)")
                return None
            return (RtxCudaEngine if rtx else ICudaEngine)(facts, graph, self._logger, address)

        def _problem(self, facts: dict[str, Any]) -> str | None:
            compatible = "VERSION_COMPATIBLE" in facts["flags"]
            built, here = _numbers(facts["version"]), _numbers(VERSIONS[flavour])
            if rtx != (facts["flavour"] == "rtx") or (built > here if compatible else built != here):
                return "Error Code 6: API Usage Error (the version tag does not match)"
            if compatible and not self.engine_host_code_allowed:
                return "Error Code 4: API Usage Error (the plan has host code, which is not allowed)"
            if rtx:
                # RTX leaves Turing out unless it is named.
                fits = gpu.capability in (facts["targets"] or [80, 86, 89, 120])
            elif facts["hardware"] == "AMPERE_PLUS":
                fits = gpu.capability >= 80
            else:
                fits = gpu.capability == facts["capability"]
            return None if fits else "Error Code 6: API Usage Error (built for another device)"

    names = builder_names(gpu, flavour) | {
        "ICudaEngine": RtxCudaEngine if rtx else ICudaEngine,
        "IExecutionContext": RtxExecutionContext if rtx else IExecutionContext,
        "IHostMemory": IHostMemory,
        "ILogger": ILogger,
        "IProgressMonitor": IProgressMonitor,
        "Runtime": Runtime,
        "__version__": VERSIONS[flavour],
    }
    if rtx:
        names |= {"IRuntimeCache": IRuntimeCache, "IRuntimeConfig": IRuntimeConfig}
    api = ModuleType(f"simulated_{flavour}")
    vars(api).update(names)
    return api


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]
