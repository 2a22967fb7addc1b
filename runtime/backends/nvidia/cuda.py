"""CUDA's runtime through cuda-python: memory, streams, events and graphs, with errors as exceptions."""

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...errors import BackendUnavailableError, EngineError, OutOfMemoryError
from ...frame import Array

OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation."""

KEPT_ARRAYS = 8
"""Free device arrays of one size that are kept for reuse."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU."""

    number: int
    """CUDA's ordinal."""
    name: str
    capability: int
    """Compute capability times ten: 86 for 8.6."""
    memory: int
    """Device memory in bytes."""
    driver: int
    """The newest CUDA version that the driver supports, such as 13000 for 13.0."""

    @property
    def title(self) -> str:
        """The device in words, with everything that results depend on."""
        return f"{self.name}, sm {self.capability}, driver {self.driver}"


class Cuda:
    """The CUDA calls that engines need, on the current device."""

    def __init__(self, api: Any) -> None:
        """`api` is `cuda.bindings.runtime`, or a replacement in a test."""
        self.api = api

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the runtime and returns its results without the error code.

        Raises OutOfMemoryError, or EngineError with CUDA's own words.
        """
        code, *results = getattr(self.api, name)(*arguments)
        if int(code):
            text = f"{name}: {self._words(code)}"
            if int(code) == OUT_OF_MEMORY:
                raise OutOfMemoryError(f"the GPU's memory is full ({text})")
            raise EngineError(f"CUDA failed: {text}")
        return results[0] if len(results) == 1 else tuple(results) or None

    def release(self, name: str, *arguments: Any) -> None:
        """Call a function that frees something.

        Its error code is ignored: it reports an earlier call's failure, which was raised where that
        call was waited for.
        """
        getattr(self.api, name)(*arguments)

    def device(self) -> Device:
        """Returns the current GPU."""
        number = self.call("cudaGetDevice")
        facts = self.call("cudaGetDeviceProperties", number)
        name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        return Device(
            number=int(number),
            name=name.rstrip("\0"),
            capability=facts.major * 10 + facts.minor,
            memory=int(facts.totalGlobalMem),
            driver=int(self.call("cudaDriverGetVersion")),
        )

    def stream(self) -> Any:
        """Returns a stream that does not wait for the default one."""
        return self.call("cudaStreamCreateWithFlags", int(self.api.cudaStreamNonBlocking))

    def event(self) -> Any:
        """Returns an event without times, on which a waiting thread sleeps rather than spins."""
        flags = int(self.api.cudaEventBlockingSync) | int(self.api.cudaEventDisableTiming)
        return self.call("cudaEventCreateWithFlags", flags)

    def copy_in(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy from page-locked memory to the device, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def copy_out(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy from the device to page-locked memory, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def copy_within(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy within the device's memory, in stream order."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def record(self, stream: Any, steps: Callable[[], None]) -> Any:
        """Returns the graph of what `steps` submits to the stream, recorded rather than run, ready to
        be launched.

        Raises EngineError for what cannot be recorded, with the first reason.
        """
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        try:
            steps()
        except EngineError:
            # The capture is ended all the same: until then the stream runs nothing. A broken capture
            # gives no graph.
            code, graph = self.api.cudaStreamEndCapture(stream)
            if not int(code):
                self.release("cudaGraphDestroy", graph)
            raise
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            return self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.release("cudaGraphDestroy", graph)

    def pinned(self, size: int) -> Any:
        """Returns page-locked host memory as an object with a buffer, freed with its last reference."""
        address = int(self.call("cudaHostAlloc", size, int(self.api.cudaHostAllocDefault)))
        block = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(block, self.release, "cudaFreeHost", address)
        return block

    def _words(self, code: Any) -> str:
        _, words = self.api.cudaGetErrorString(code)
        return words.decode() if isinstance(words, bytes) else str(words)


class DeviceMemory:
    """Device memory, freed with its last reference."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.address = int(cuda.call("cudaMalloc", size))
        self.size = size
        weakref.finalize(self, cuda.release, "cudaFree", self.address)


class DeviceArray:
    """A picture in device memory. Libraries take it without a copy by `__cuda_array_interface__`.

    The memory is reused once the array is gone: keep it until its reader has finished.
    """

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
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
        """Returns a copy in host memory."""
        host = np.empty(self.shape, self.dtype)
        kind = cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        cuda.call("cudaMemcpy", host.ctypes.data, self.memory.address, host.nbytes, kind)
        return host


@dataclass(slots=True)
class Job:
    """A frame in progress on the device."""

    output: Any
    wait: Callable[[], None] | None = None
    """Waits for the result; None once that is done."""
    keep: Any = None
    """An object that must live until the job is done."""
    error: EngineError | None = None

    def finish(self) -> None:
        """Wait for the job, once; an error is kept until the result is asked for."""
        wait, self.wait = self.wait, None
        if wait is None:
            return
        try:
            wait()
        except EngineError as error:
            self.error = self.error or bare(error)
        self.keep = None

    def result(self) -> Any:
        """Returns the picture, once. Raises EngineError when its inference failed."""
        self.finish()
        output, error = self.output, self.error
        self.output = self.error = None
        try:
            if error is not None:
                raise error
            return output
        finally:
            # The error's traceback holds this frame, which must not hold the error and the picture.
            del error, output


def bare(error: EngineError) -> EngineError:
    """Returns the error without its traceback, whose frames would keep device memory alive."""
    error.__traceback__ = None
    return error


class DevicePool:
    """Gives out device arrays of one size and reuses their memory when they are gone."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        """`size` is in bytes."""
        self._cuda = cuda
        self._size = size
        self._free: deque[DeviceMemory] = deque(maxlen=KEPT_ARRAYS)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Returns an array of the pool's size. Raises OutOfMemoryError."""
        memory = None
        with contextlib.suppress(IndexError):
            memory = self._free.popleft()
        memory = memory or DeviceMemory(self._cuda, self._size)
        array = DeviceArray(memory, shape, dtype)
        weakref.finalize(array, self._free.append, memory)
        return array


def missing_package() -> str | None:
    """Returns the reason why CUDA's runtime cannot be called, or None."""
    try:
        found = find_spec("cuda.bindings.runtime")
    except ModuleNotFoundError:
        found = None
    if found is None:
        return "the package cuda-python is not installed (pip install 'velatura[gpu]')"
    return None


@cache
def load() -> Cuda:
    """Returns CUDA's runtime. Raises BackendUnavailableError without cuda-python."""
    reason = missing_package()
    if reason is not None:
        raise BackendUnavailableError(reason)
    return Cuda(import_module("cuda.bindings.runtime"))
