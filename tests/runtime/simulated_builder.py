"""The builders of TensorRT 10, TensorRT 11 and TensorRT-RTX, simulated: an engine is the graph itself.

An engine begins with its checksum and a line of JSON, which says what the builder was told.
"""

import hashlib
import json
from enum import IntEnum
from typing import Any, Literal

import onnx

from .simulated import Gpu

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


class ILogger:
    Severity = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)

    def __init__(self) -> None:
        self._ready = True

    def log(self, severity: Any, msg: str) -> None: ...


def say(logger: ILogger, severity: str, text: str) -> None:
    logger.log(ILogger.Severity[severity], text)


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:  # the real one has a buffer
        return self._data

    @property
    def nbytes(self) -> int:
        return len(self._data)


class IProgressMonitor:
    def __init__(self) -> None:
        self._ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def phase_finish(self, phase_name: str) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...


def root(gpu: Gpu, logger: ILogger) -> None:
    """What both roots of a library need: a logger that was initialised, and a driver."""
    assert logger._ready, "the base's __init__ was not called"
    if gpu.fail == "driver":
        say(logger, "ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


def builder_names(gpu: Gpu, flavour: Flavour) -> dict[str, Any]:
    """The names of that library's bindings that have to do with building."""
    rtx = flavour == "rtx"
    Creation = IntEnum("Creation", CREATION[flavour])  # noqa: N806
    Pool = IntEnum("Pool", {"WORKSPACE": 0})  # noqa: N806
    Hardware = IntEnum("Hardware", "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY", start=0)  # noqa: N806

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
            "_level",
            "_profiles",
            "_timings",
            "hardware_compatibility_level",
            "progress_monitor",
        )  # fmt: skip

        def __init__(self) -> None:
            self._flags: set[str] = set()
            self._profiles: list[IOptimizationProfile] = []
            self._timings: ITimingCache | None = None
            self._capabilities: list[Any] = []
            self._level = 3
            self.hardware_compatibility_level = Hardware.NONE
            self.progress_monitor: IProgressMonitor | None = None

        @property
        def builder_optimization_level(self) -> int:
            return self._level

        @builder_optimization_level.setter
        def builder_optimization_level(self, value: int) -> None:
            assert 0 <= value <= 5, "a level that there is not"
            self._level = value

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag.name)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            assert pool == Pool.WORKSPACE
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
            root(gpu, logger)
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
            if not network._flags & (1 << Creation.STRONGLY_TYPED):
                gpu.faults.append("a network whose types the builder may change")
            if config.hardware_compatibility_level == Hardware.AMPERE_PLUS and gpu.capability < 80:
                say(self._logger, "ERROR", "Error Code 9: the GPU is older than Ampere")
                return None
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
                "capability": gpu.capability,
                "targets": [int(c) for c in config._capabilities],
                "flags": sorted(config._flags),
                "hardware": config.hardware_compatibility_level.name,
                "level": config.builder_optimization_level,
                "profiles": [p._shapes for p in config._profiles],
            }
            body = json.dumps(facts).encode() + b"\n" + network._graph
            gpu.counts["finished builds"] += 1
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

    names: dict[str, Any] = {
        "BuilderFlag": IntEnum("BuilderFlag", FLAGS[flavour]),
        "HardwareCompatibilityLevel": Hardware,
        "IBuilderConfig": RtxBuilderConfig if rtx else IBuilderConfig,
        "MemoryPoolType": Pool,
        "NetworkDefinitionCreationFlag": Creation,
    }
    if rtx:
        sms = {f"SM{number}": number for number in (75, 80, 86, 89, 120, 121)}
        names["ComputeCapability"] = IntEnum("ComputeCapability", {"NONE": 0, "CURRENT": 1, **sms})
    kinds = (Builder, INetworkDefinition, IOptimizationProfile, ITimingCache, OnnxParser, ParserError)
    return names | {kind.__name__: kind for kind in kinds}
