# ruff: noqa: N801, N802, N803, N815 - CUDA's own names
"""cuda.bindings.runtime on the simulated GPU.

It offers nothing that the real one has not: test_bindings.py compares names, parameters and values.
"""

import ctypes
from enum import IntEnum
from typing import Any

from .simulated import (
    BROKEN,
    INVALID,
    NO_HANDLE,
    OK,
    POISON,
    UNSUPPORTED,
    Capture,
    Event,
    Executable,
    Gpu,
    Graph,
    Stream,
    cudaError_t,
)


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceProp:
    def __init__(self, gpu: Gpu) -> None:
        self.name = gpu.name.encode()
        self.major, self.minor = divmod(gpu.capability, 10)
        self.totalGlobalMem = gpu.limit


class Runtime:
    """cuda.bindings.runtime: each function gives a tuple, the error code first."""

    cudaStreamNonBlocking = 1
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaHostAllocDefault = 0
    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("cuda") and callable(value) and not isinstance(value, type):
            self._gpu.counts[name] += 1
        return value

    def cudaGetErrorString(self, error: Any) -> Any:
        return OK, cudaError_t(error).name.encode()

    def cudaGetDevice(self) -> Any:
        return OK, 0

    def cudaGetDeviceProperties(self, device: int) -> Any:
        return (OK, cudaDeviceProp(self._gpu)) if device == 0 else (INVALID, None)

    def cudaDriverGetVersion(self) -> Any:
        return OK, 13000

    def cudaMalloc(self, size: int) -> Any:
        return self._allocate(size, "device")

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return self._allocate(size, "pinned") if flags == 0 else (INVALID, None)

    def _allocate(self, size: int, kind: str) -> Any:
        if self._gpu.capturing():
            return UNSUPPORTED, None
        address = self._gpu.allocate(size, kind)
        return (OK, address) if address is not None else (cudaError_t.cudaErrorMemoryAllocation, None)

    def cudaFree(self, devPtr: int) -> Any:
        return (UNSUPPORTED if self._gpu.capturing() else self._gpu.free(devPtr, "device"),)

    def cudaFreeHost(self, ptr: int) -> Any:
        return (UNSUPPORTED if self._gpu.capturing() else self._gpu.free(ptr, "pinned"),)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        if flags != 1:
            self._gpu.faults.append("a stream that waits for the default one")
        return OK, self._gpu.handle(Stream(self._gpu, self._gpu.order()))

    def cudaStreamDestroy(self, stream: Any) -> Any:
        return (self._gpu.drop(stream, Stream),)

    def cudaStreamSynchronize(self, stream: Any) -> Any:
        found = self._gpu.find(stream, Stream)
        return (NO_HANDLE if found is None else self._gpu.wait(found.mark()),)

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> Any:
        found, happening = self._gpu.find(stream, Stream), self._gpu.find(event, Event)
        if found is None or happening is None or flags:
            return (INVALID,)
        mark = happening.mark  # what is recorded now: a later recording does not count
        found.give(lambda _order: OK if mark is None or mark.done.wait(20) else BROKEN)
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        if flags != 3:
            self._gpu.faults.append("an event that burns a core, or measures")
        return OK, self._gpu.handle(Event())

    def cudaEventDestroy(self, event: Any) -> Any:
        return (self._gpu.drop(event, Event),)

    def cudaEventRecord(self, event: Any, stream: Any) -> Any:
        found, happening = self._gpu.find(stream, Stream), self._gpu.find(event, Event)
        if found is None or happening is None:
            return (NO_HANDLE,)
        happening.mark = found.mark()
        return (OK,)

    def cudaEventSynchronize(self, event: Any) -> Any:
        if self._gpu.capturing():
            return (UNSUPPORTED,)
        happening = self._gpu.find(event, Event)
        if happening is None:
            return (NO_HANDLE,)
        return (OK if happening.mark is None else self._gpu.wait(happening.mark),)

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: cudaMemcpyKind) -> Any:
        # Streams that do not wait for the default one are not waited for.
        ends = {1: (dst, src), 2: (src, dst)}[kind]
        self._gpu.check(ends[0], count, ("device",), self._gpu.order())
        ctypes.memmove(dst, src, count)
        return (OK,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: Any) -> Any:
        gpu, found = self._gpu, self._gpu.find(stream, Stream)
        if found is None:
            return (NO_HANDLE,)
        outwards = kind == cudaMemcpyKind.cudaMemcpyDeviceToHost
        way = {1: "in", 2: "out", 3: "within"}[kind]
        ends = {"in": ("device", "pinned"), "out": ("pinned", "device"), "within": ("device", "device")}

        def copy(order: int) -> cudaError_t:
            # Memory that is not page-locked would make the copy wait, and the host with it.
            gpu.check(dst, count, ends[way][:1], order)
            gpu.check(src, count, ends[way][1:], order)
            ctypes.memmove(dst, src, count)
            gpu.counts[f"bytes {way}"] += count
            return OK

        if outwards and found.capture is None:
            ctypes.memset(dst, POISON, count)  # who reads it too early reads this
        if outwards:
            copy.target = (dst, count)  # type: ignore[attr-defined] - for launches of the recording
        found.give(copy)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> Any:
        found = self._gpu.find(stream, Stream)
        if found is None or found.capture is not None or not isinstance(mode, cudaStreamCaptureMode):
            return (INVALID,)
        found.capture = Capture()
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> Any:
        found = self._gpu.find(stream, Stream)
        if found is None or found.capture is None:
            return INVALID, None
        capture, found.capture = found.capture, None
        if not capture.valid:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        return OK, self._gpu.handle(Graph(capture.steps))

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        found = self._gpu.find(graph, Graph)
        if found is None or flags:
            return INVALID, None
        return OK, self._gpu.handle(Executable(found.steps))

    def cudaGraphDestroy(self, graph: Any) -> Any:
        return (self._gpu.drop(graph, Graph),)

    def cudaGraphExecDestroy(self, graphExec: Any) -> Any:
        return (self._gpu.drop(graphExec, Executable),)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Any:
        found, graph = self._gpu.find(stream, Stream), self._gpu.find(graphExec, Executable)
        if found is None or graph is None:
            return (NO_HANDLE,)
        for step in graph.steps:
            if (target := getattr(step, "target", None)) is not None:
                ctypes.memset(target[0], POISON, target[1])
            found.give(step)
        return (OK,)
