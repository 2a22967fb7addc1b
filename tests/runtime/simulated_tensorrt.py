"""TensorRT 10, TensorRT 11 and TensorRT-RTX on the simulated GPU, computed by ONNX Runtime.

`tensorrt(gpu, flavour)` makes the module of the bindings. It offers nothing that the real one has not:
test_bindings.py compares classes, members, parameters and values.
"""

import ctypes
import hashlib
import json
from enum import IntEnum
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from .simulated import BROKEN, OK, Gpu, Step, Stream, cudaError_t

Flavour = Literal["trt10", "trt11", "rtx"]
FLAVOURS: tuple[Flavour, ...] = ("trt10", "trt11", "rtx")

VERSIONS = {"trt10": "10.16.1.11", "trt11": "11.4.0.106", "rtx": "1.7.1.116"}

FLAGS = {
    "trt10": {"VERSION_COMPATIBLE": 13, "TF32": 6},
    "trt11": {"VERSION_COMPATIBLE": 12, "TF32": 6},
    "rtx": {"VERSION_COMPATIBLE": 12, "TF32": 6, "REQUIRE_USER_ALLOCATION": 28},
}
CREATION = {
    "trt10": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1},
    "trt11": {"STRONGLY_TYPED": 0},
    "rtx": {"STRONGLY_TYPED": 0},
}
ACTIVATIONS = 16
"""Bytes of device memory that a context takes for each input sample."""

TYPES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}


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

    class ILogger:
        Severity = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)

        def __init__(self) -> None:
            self._ready = True

        def log(self, severity: Any, msg: str) -> None: ...

    def say(logger: ILogger, severity: str, text: str) -> None:
        logger.log(ILogger.Severity[severity], text)

    class IProgressMonitor:
        def __init__(self) -> None:
            self._ready = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
        def phase_finish(self, phase_name: str) -> None: ...
        def step_complete(self, phase_name: str, step: int) -> bool: ...

    class IHostMemory:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def __bytes__(self) -> bytes:  # the real one has a buffer
            return self._data

        @property
        def nbytes(self) -> int:
            return len(self._data)

    class ITimingCache:
        __slots__ = ("_data",)

        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> IHostMemory:
            return IHostMemory(self._data)

    class IOptimizationProfile:
        __slots__ = ("_shapes",)

        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
                raise ValueError("the shapes do not grow")
            self._shapes[input] = (tuple(min), tuple(opt), tuple(max))

    class IBuilderConfig:
        __slots__ = (
            "_capabilities",
            "_flags",
            "_profiles",
            "_timings",
            "builder_optimization_level",
            "hardware_compatibility_level",
            "progress_monitor",
        )  # fmt: skip

        def __init__(self) -> None:
            self._flags: set[str] = set()
            self._profiles: list[IOptimizationProfile] = []
            self._timings: ITimingCache | None = None
            self._capabilities: list[Any] = []
            self.builder_optimization_level = 3
            self.hardware_compatibility_level = api.HardwareCompatibilityLevel.NONE
            self.progress_monitor: IProgressMonitor | None = None

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag.name)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            assert pool == api.MemoryPoolType.WORKSPACE
            assert pool_size > 0

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
            gpu.counts["timing caches"] += 1
            whole = serialized_timing_cache == b"" or serialized_timing_cache.startswith(b"timings of ")
            return ITimingCache(serialized_timing_cache) if whole else None

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            known = bytes(cache.serialize())
            if known and f"timings of {gpu.name}:".encode() not in known and not ignore_mismatch:
                return False
            self._timings = cache
            return True

    class RtxBuilderConfig(IBuilderConfig):
        __slots__ = ()

        @property
        def num_compute_capabilities(self) -> int:
            return len(self._capabilities)

        @num_compute_capabilities.setter
        def num_compute_capabilities(self, value: int) -> None:
            self._capabilities = [None] * value

        def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
            self._capabilities[index] = compute_capability
            return True

    class INetworkDefinition:
        __slots__ = ("_flags", "_graph")

        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._graph = b""

    class ParserError:
        def __init__(self, node: onnx.NodeProto | None, index: int, text: str) -> None:
            self._node, self._index, self._text = node, index, text

        def desc(self) -> str:
            return self._text

        def node(self) -> int:
            return self._index

        def node_name(self) -> str:
            return self._node.name if self._node is not None else ""

        def node_operator(self) -> str:
            return self._node.op_type if self._node is not None else ""

    class OnnxParser:
        __slots__ = ("_errors", "_logger", "_network")

        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            self._network, self._logger = network, logger
            self._errors: list[ParserError] = []

        def parse(self, model: bytes) -> bool:
            try:
                graph = onnx.load_from_string(model).graph
            except Exception:  # protobuf's own
                self._errors.append(ParserError(None, -1, "Failed to parse the ONNX model."))
                return False
            for index, node in enumerate(graph.node):
                if node.domain not in ("", "ai.onnx"):
                    self._errors.append(ParserError(node, index, "Plugin not found"))
            for value in (*graph.input, *graph.output):
                if value.type.tensor_type.elem_type == onnx.TensorProto.UINT16:
                    self._errors.append(ParserError(None, -1, "uint16 is not supported"))
            self._network._graph = model
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

    class Builder:
        __slots__ = ("_logger",)

        def __init__(self, logger: ILogger) -> None:
            assert logger._ready, "the base's __init__ was not called"
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return RtxBuilderConfig() if rtx else IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(
            self, network: INetworkDefinition, config: IBuilderConfig
        ) -> IHostMemory | None:
            gpu.counts["builds"] += 1
            if not network._flags & (1 << api.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
                gpu.faults.append("a network whose types the builder may change")
            if gpu.fail == "build":
                gpu.fail = None
                say(self._logger, "ERROR", "Error Code 10: Could not find any implementation for node")
                return None
            if config.progress_monitor is not None and not self._phases(config.progress_monitor):
                say(self._logger, "ERROR", "Error Code 7: BuildCanceled")
                return None
            graph = onnx.load_from_string(network._graph).graph
            weights = sum(len(tensor.raw_data) for tensor in graph.initializer)
            say(self._logger, "VERBOSE", ">>> Chose Runner Type: Myelin Tactic: 0x0000000000000000")
            say(self._logger, "VERBOSE", "Total Activation Memory: 1024 bytes")
            say(self._logger, "VERBOSE", f"Total Weights Memory: {weights} bytes")
            say(self._logger, "VERBOSE", "Engine Layer Information:\nLayer(Myelin): all of it")
            if config._timings is not None:
                config._timings._data = f"timings of {gpu.name}: {len(graph.node)}".encode()
            facts = {
                "flavour": flavour,
                "version": VERSIONS[flavour],
                "targets": [int(c) for c in config._capabilities],
                "flags": sorted(config._flags),
                "hardware": config.hardware_compatibility_level.name,
                "level": config.builder_optimization_level,
                "profiles": [p._shapes for p in config._profiles],
            }
            body = json.dumps(facts).encode() + b"\n" + network._graph
            return IHostMemory(hashlib.sha256(body).digest() + body)

        def _phases(self, monitor: IProgressMonitor) -> bool:
            monitor.phase_start("Building engine", None, 2)
            goes_on = monitor.step_complete("Building engine", 0)
            if goes_on:
                monitor.phase_start("Timing tactics", "Building engine", 1)
                goes_on = monitor.step_complete("Timing tactics", 0)
                monitor.phase_finish("Timing tactics")
            monitor.phase_finish("Building engine")
            return goes_on

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
            self._addresses[name] = memory
            return name in (self._engine._input.name, self._engine._output.name)

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert isinstance(stream_handle, int), "a handle that is no number"
            stream = gpu.find(stream_handle, Stream)
            engine = self._engine
            names = (engine._input.name, engine._output.name)
            if stream is None or not self._shape or any(name not in self._addresses for name in names):
                say(engine._logger, "ERROR", "not all shapes and addresses are specified")
                return False
            # What is first run allocates and compiles, and so does an engine that cannot be recorded.
            if stream.capture is not None and not (self._runs and gpu.recordable):
                gpu.capturing()
                say(engine._logger, "ERROR", "Error Code 1: Cuda Runtime (operation not permitted)")
                return False
            failing, gpu.fail = gpu.fail, None
            if failing == "sync":
                say(engine._logger, "ERROR", "Error Code 1: Myelin (this frame is cursed)")
                return False
            self._runs += 1
            self._compile()
            addresses = (self._addresses[names[0]], self._addresses[names[1]])
            stream.give(engine._step(addresses, self._shape, failing == "async"))
            return True

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
            return gpu.recordable and "REQUIRE_USER_ALLOCATION" in self._engine._facts["flags"]

    class ICudaEngine:
        def __init__(self, facts: dict[str, Any], graph: bytes, logger: ILogger) -> None:
            self._facts, self._logger = facts, logger
            self._session = session(graph)
            self._key = hashlib.sha256(graph).hexdigest()
            self._input, self._output = self._session.get_inputs()[0], self._session.get_outputs()[0]

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
        __slots__ = ("_logger",)

        def __init__(self, logger: ILogger) -> None:
            assert logger._ready, "the base's __init__ was not called"
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            gpu.counts["loaded engines"] += 1
            digest, body = serialized_engine[:32], serialized_engine[32:]
            if hashlib.sha256(body).digest() != digest:
                say(self._logger, "ERROR", "Error Code 1: Serialization (magic tag does not match)")
                return None
            head, _, graph = body.partition(b"\n")
            facts = json.loads(head)
            # RTX leaves Turing out unless it is named.
            targets = facts["targets"] or [80, 86, 89, 120]
            if facts["version"] != VERSIONS[flavour] or (rtx and gpu.capability not in targets):
                say(self._logger, "ERROR", "Error Code 6: API Usage Error (built for another device)")
                return None
            return (RtxCudaEngine if rtx else ICudaEngine)(facts, graph, self._logger)

    api: Any = ModuleType(f"simulated_{flavour}")
    api.__version__ = VERSIONS[flavour]
    api.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", CREATION[flavour])
    api.BuilderFlag = IntEnum("BuilderFlag", FLAGS[flavour])
    api.MemoryPoolType = IntEnum("MemoryPoolType", {"WORKSPACE": 0})
    api.HardwareCompatibilityLevel = IntEnum(
        "HardwareCompatibilityLevel", "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY", start=0
    )
    if rtx:
        sms = {f"SM{number}": number for number in (75, 80, 86, 89, 120, 121)}
        api.ComputeCapability = IntEnum("ComputeCapability", {"NONE": 0, "CURRENT": 1, **sms})
        api.IRuntimeCache, api.IRuntimeConfig = IRuntimeCache, IRuntimeConfig
    api.IBuilderConfig = RtxBuilderConfig if rtx else IBuilderConfig
    api.ICudaEngine = RtxCudaEngine if rtx else ICudaEngine
    api.IExecutionContext = RtxExecutionContext if rtx else IExecutionContext
    for kind in (
        Builder, IHostMemory, ILogger, INetworkDefinition, IOptimizationProfile, IProgressMonitor,
        ITimingCache, OnnxParser, ParserError, Runtime,
    ):  # fmt: skip
        setattr(api, kind.__name__, kind)
    return api
