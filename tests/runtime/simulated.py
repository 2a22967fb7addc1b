# ruff: noqa: N801, N815 - CUDA's own names
"""A GPU that is not there: streams that are threads, device memory that is host memory.

`simulated_cuda` and `simulated_tensorrt` are the libraries that run on it. Use of freed memory, copies
from memory that is not page-locked and the like are kept as `faults`.
"""

import bisect
import ctypes
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

POISON = 0xA5

ALIGNMENT = 256
"""Of all memory on the device."""


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidResourceHandle = 400
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


OK = cudaError_t.cudaSuccess
INVALID = cudaError_t.cudaErrorInvalidValue
NO_HANDLE = cudaError_t.cudaErrorInvalidResourceHandle
BROKEN = cudaError_t.cudaErrorLaunchFailure
UNSUPPORTED = cudaError_t.cudaErrorStreamCaptureUnsupported

Step = Callable[[int], cudaError_t]
"""What a stream runs in its turn; gets the order in which it was given to the stream."""


class Handle:
    """As cuda.bindings' own: no number, but one can be had."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


@dataclass
class Block:
    address: int
    size: int
    kind: str
    buffer: Any
    freed: int | None = None
    """The order of the call that freed it."""


@dataclass
class Mark:
    """One recording of an event."""

    done: threading.Event = field(default_factory=threading.Event)
    error: cudaError_t = OK


@dataclass
class Capture:
    steps: list[Step] = field(default_factory=list)
    valid: bool = True


class Stream:
    """Runs steps in order in a thread of its own."""

    def __init__(self, gpu: "Gpu", number: int) -> None:
        self.gpu = gpu
        self.capture: Capture | None = None
        self.closing = False
        self.delay = 0.0
        """Seconds that each step waits for nothing."""
        self._error = OK
        self._steps: queue.SimpleQueue[tuple[int, Step] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"simulated-{number}", daemon=True)
        self._thread.start()

    def give(self, step: Step) -> None:
        if self.capture is not None:
            self.capture.steps.append(step)
        else:
            self._steps.put((self.gpu.order(), step))

    def mark(self) -> Mark:
        mark = Mark()

        def step(_order: int) -> cudaError_t:
            mark.error, self._error = self._error, OK
            mark.done.set()
            return OK

        self.give(step)
        return mark

    def close(self) -> None:
        self.closing = True
        self._steps.put(None)
        self.gpu.wake()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._steps.get()) is not None:
            self.gpu.hold(self)
            time.sleep(self.delay)
            try:
                code = item[1](item[0])
            except Exception as error:  # a test must hear of it, whatever it is
                self.gpu.faults.append(f"{type(error).__name__}: {error}")
                code = BROKEN
            self._error = self._error or code


class Gpu:
    """The machine: its memory, its streams, and what a test wants to know and to break."""

    def __init__(
        self, *, lazy: bool = True, limit: int = 8 << 30, capability: int = 86, name: str = "GPU"
    ) -> None:
        """`lazy` streams begin nothing before the host waits for something: as late as they may."""
        self.lazy = lazy
        self.limit = limit
        self.capability = capability
        self.name = name
        self.counts: Counter[str] = Counter()
        """Calls by name, `bytes in` and `bytes out`, and what the simulated TensorRT counts."""
        self.faults: list[str] = []
        """What a real GPU would have crashed on, or what would have been garbage."""
        self.fail: str | None = None
        """The next execution fails, `sync` at its call, `async` in its turn or `both`; or the next
        `build`; or the `driver` is too old."""
        self.recordable = True
        self.handles: dict[int, Any] = {}
        self.used = 0
        self.live = {"device": 0, "pinned": 0, "context": 0, "engine": 0}
        """Blocks of memory that are not freed."""
        self._blocks: dict[int, Block] = {}
        self._starts: list[int] = []
        self._order = 0
        self._number = 1 << 20
        self._lock = threading.RLock()
        self._gate = threading.Condition()
        self._waiting = 0

    # Memory.

    def allocate(self, size: int, kind: str) -> int | None:
        with self._lock:
            if kind != "pinned" and self.used + size > self.limit:
                return None
            buffer = (ctypes.c_ubyte * (size + ALIGNMENT))()
            ctypes.memset(buffer, POISON, size + ALIGNMENT)
            start = ctypes.addressof(buffer)
            block = Block(start + -start % ALIGNMENT, size, kind, buffer)
            # Freed blocks stay, so that no address comes twice and each use after the end is seen.
            self._blocks[block.address] = block
            bisect.insort(self._starts, block.address)
            self.used += size if kind != "pinned" else 0
            self.live[kind] += 1
            return block.address

    def free(self, address: int, kind: str) -> cudaError_t:
        with self._lock:
            block = self._blocks.get(address)
            if block is None or block.kind != kind or block.freed is not None:
                self.faults.append(f"freed {kind} memory at {address:#x} that is none")
                return INVALID
            block.freed = self.order()
            self.used -= block.size if kind != "pinned" else 0
            self.live[kind] -= 1
            return OK

    def check(self, address: int, size: int, kinds: tuple[str, ...], order: int) -> None:
        """Raises AssertionError for memory that is not there when its turn comes."""
        with self._lock:
            index = bisect.bisect_right(self._starts, address) - 1
            block = self._blocks[self._starts[index]] if index >= 0 else None
            assert block is not None, f"no memory at {address:#x}"
            assert address + size <= block.address + block.size, f"{size} bytes at {address:#x} overrun"
            assert block.kind in kinds, f"{block.kind} memory where {kinds} is needed"
            assert block.freed is None or block.freed > order, f"{block.kind} memory used after its end"

    # Time.

    def order(self) -> int:
        with self._lock:
            self._order += 1
            return self._order

    def hold(self, stream: Stream) -> None:
        """Until somebody waits."""
        with self._gate:
            self._gate.wait_for(lambda: not self.lazy or self._waiting or stream.closing)

    def wake(self) -> None:
        with self._gate:
            self._gate.notify_all()

    def wait(self, mark: Mark) -> cudaError_t:
        with self._gate:
            self._waiting += 1
            self._gate.notify_all()
        try:
            if not mark.done.wait(20):
                self.faults.append("waited 20 s for a stream")
            return mark.error
        finally:
            with self._gate:
                self._waiting -= 1

    # Objects.

    def handle(self, thing: Any) -> Handle:
        with self._lock:
            self._number += 64
            self.handles[self._number] = thing
            return Handle(self._number)

    def find(self, handle: Any, kind: type) -> Any:
        thing = self.handles.get(int(handle))
        if not isinstance(thing, kind):
            self.faults.append(f"{handle} is no {kind.__name__}")
            return None
        return thing

    def drop(self, handle: Any, kind: type) -> cudaError_t:
        thing = self.find(handle, kind)
        if thing is None:
            return NO_HANDLE
        del self.handles[int(handle)]
        if isinstance(thing, Stream):
            thing.close()
        return OK

    def capturing(self) -> bool:
        """Whether a stream is being recorded, which the call that asks breaks off."""
        captures = [
            s.capture for s in list(self.handles.values()) if isinstance(s, Stream) and s.capture
        ]
        for capture in captures:
            capture.valid = False
        return bool(captures)

    def leaks(self) -> dict[str, int]:
        """What is not freed, by kind."""
        kinds = Counter(type(thing).__name__ for thing in self.handles.values())
        return {kind: count for kind, count in {**self.live, **kinds}.items() if count}

    def close(self) -> None:
        self.lazy = False
        streams = [thing for thing in self.handles.values() if isinstance(thing, Stream)]
        for stream in streams:
            stream.close()
        for stream in streams:
            stream.join()


class Event:
    mark: Mark | None = None


class Graph:
    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps


class Executable(Graph):
    """A graph that can be launched."""
