"""CUDA's runtime through cuda-python: memory, streams, events and graphs, with errors that say what to do."""

import ctypes
import weakref
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import BackendUnavailableError, EngineError, OutOfMemoryError
from ..frame import Array

OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU."""

    name: str
    capability: int
    """86 for 8.6."""
    memory: int
    """Bytes."""
    driver: int
    """The newest CUDA version that the driver knows, as 13000 for 13.0."""


class Cuda:
    """The calls that engines need, on the current device."""

    def __init__(self, api: Any) -> None:
        """`api` is `cuda.bindings.runtime`, or what stands for it in a test."""
        self.api = api

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime; what it returns beside the error code.

        Raises OutOfMemoryError, or EngineError with CUDA's own words.
        """
        code, *results = getattr(self.api, name)(*arguments)
        if int(code):
            text = f"{name}: {self._words(code)}"
            if int(code) == OUT_OF_MEMORY:
                raise OutOfMemoryError(f"the GPU's memory is full ({text})")
            raise EngineError(f"CUDA failed: {text}")
        return results[0] if len(results) == 1 else tuple(results) or None

    def device(self) -> Device:
        """The current GPU."""
        number = self.call("cudaGetDevice")
        facts = self.call("cudaGetDeviceProperties", number)
        name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        return Device(
            name=name.rstrip("\0"),
            capability=facts.major * 10 + facts.minor,
            memory=int(facts.totalGlobalMem),
            driver=int(self.call("cudaDriverGetVersion")),
        )

    def stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self.call("cudaStreamCreateWithFlags", int(self.api.cudaStreamNonBlocking))

    def event(self) -> Any:
        """An event without times, whose waiter sleeps rather than burns a core."""
        flags = int(self.api.cudaEventBlockingSync) | int(self.api.cudaEventDisableTiming)
        return self.call("cudaEventCreateWithFlags", flags)

    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        """From page-locked memory to the device, in the stream's turn."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        """From the device to page-locked memory, in the stream's turn."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        """What is given to the stream from now on is recorded instead of run."""
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """The recording, ready to be launched."""
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            return self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def pinned(self, size: int) -> Any:
        """Page-locked host memory as an object with a buffer, freed with its last reference."""
        address = int(self.call("cudaHostAlloc", size, int(self.api.cudaHostAllocDefault)))
        block = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(block, self.call, "cudaFreeHost", address)
        return block

    def _words(self, code: Any) -> str:
        _, words = self.api.cudaGetErrorString(code)
        return words.decode() if isinstance(words, bytes) else str(words)


class DeviceMemory:
    """Device memory, freed with its last reference."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.address = int(cuda.call("cudaMalloc", size))
        self.size = size
        self.free = weakref.finalize(self, cuda.call, "cudaFree", self.address)


class DeviceArray:
    """A picture in device memory. Libraries take it without a copy by `__cuda_array_interface__`."""

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.memory.address, False),
            "strides": None,
            "version": 3,
            "stream": None,  # it is handed out when its computation has ended
        }

    def to_host(self, cuda: Cuda) -> Array:
        """A copy in host memory."""
        host = np.empty(self.shape, self.dtype)
        kind = cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        cuda.call("cudaMemcpy", host.ctypes.data, self.memory.address, host.nbytes, kind)
        return host


def missing_package() -> str | None:
    """Why CUDA's runtime cannot be called, or None."""
    try:
        found = find_spec("cuda.bindings.runtime")
    except ModuleNotFoundError:
        found = None
    if found is None:
        return "the package cuda-python is not installed (pip install 'velatura[gpu]')"
    return None


@cache
def load() -> Cuda:
    """CUDA's runtime. Raises BackendUnavailableError without cuda-python."""
    reason = missing_package()
    if reason is not None:
        raise BackendUnavailableError(reason)
    from cuda.bindings import runtime  # pyright: ignore[reportMissingImports]

    return Cuda(runtime)
