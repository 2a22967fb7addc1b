"""DeviceEngine: TensorRT and TensorRT-RTX engines on an NVIDIA GPU."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ..cache import digest_of
from ..errors import EngineError
from ..frame import Array
from .base import Engine, Options, Pending, sample_dtype
from .buffers import BufferPool
from .builder import BuildOptions, Profile, build
from .cuda import Cuda, DeviceArray, DeviceMemory
from .exchange import DeviceView, device_view, is_device_array
from .graph import INPUT, OUTPUT, io_shape, wrap
from .model import Model
from .nvinfer import Library, gravest, logger
from .ort import halved
from .static import Key, StaticEngine

CONTEXTS = 3
"""Frames in flight for throughput: one travels in, one computes, one travels out."""


class DeviceEngine(StaticEngine["Program"]):
    """Engines of one model on the current GPU, built for each frame size, or given built.

    A frame is copied once into page-locked memory; copy in, inference and copy out then run in a stream
    of their own without the host, which waits for one event when the result is asked for. The result is
    copied by the GPU itself into the array that is handed out. With `graphs`, those three steps are
    recorded once and launched as one call, at the cost of one more copy on the host. Pictures that lie on
    the device (`__cuda_array_interface__`, DLPack) are read where they are, and so is their result.
    """

    def __init__(
        self,
        model: Model,
        *,
        library: Library,
        cuda: Cuda,
        precision: str,
        options: Options,
        plan: "Plan | None" = None,
        graphs: bool = False,
    ) -> None:
        super().__init__(
            model,
            backend=library.name,
            precision=precision,
            in_flight=CONTEXTS if options.hint == "throughput" else 1,
            fit=options.fit,
        )
        self.library = library
        self.cuda = cuda
        self.options = options
        self.graphs = graphs
        self.device = cuda.device()
        self.heard: list[tuple[int, str]] = []
        self._plan = plan
        self._runtime = library.api.Runtime(logger(library, self.heard))
        self._buffers = BufferPool(allocate=cuda.pinned)
        self._graph, self._graph_card = (
            halved(model) if precision == "fp16" and plan is None else (model.proto, model.card)
        )

    def submit(self, image: Array, bits: int = 8) -> Pending:
        if is_device_array(image):
            return self._submit_device(image, bits)
        return super().submit(image, bits)

    def _submit_device(self, image: Any, bits: int) -> Pending:
        """Inference on a picture in device memory, of a size that needs no padding; gives a DeviceArray."""
        card = self.card
        wanted = 2 if card.input_channels == 1 else 3
        if len(image.shape) != wanted:
            raise EngineError(f"{card.name} takes pictures of {wanted} axes, not of shape {image.shape}")
        height, width = int(image.shape[0]), int(image.shape[1])
        least = self._smallest()
        if (
            height % card.size_multiple
            or width % card.size_multiple
            or height < least[0]
            or width < least[1]
            or (card.fixed_size and (height, width) != card.fixed_size)
        ):
            raise EngineError(
                f"{card.name} takes device pictures of {card.fixed_size or least} and more in steps of "
                f"{card.size_multiple}, not {height}x{width}: pad them, or give them in host memory"
            )
        program = self._compile_for((height, width, bits))
        slot = program.next()
        slot.finish()
        view = device_view(image, stream=int(slot.stream))
        if view.dtype != sample_dtype(bits):
            raise EngineError(f"{card.name} takes samples of {sample_dtype(bits)}, not {view.dtype}")
        channels = card.output_channels
        size = (height * card.scale, width * card.scale)
        shape = size if channels == 1 else (*size, channels)
        return cast(Pending, program.run_device(slot, view, shape))

    def _compile(self, key: Key) -> "Program":
        height, width, bits = key
        plan = self._plan or self._build(key)
        if plan.bits != bits or (plan.profile and not plan.profile.holds(height, width)):
            raise EngineError(
                f"{self.card.name} was built for {plan.bits}-bit frames of "
                f"{plan.profile.words() if plan.profile else 'one size'}, not for {bits}-bit {height}x{width}"
            )
        engine = self._runtime.deserialize_cuda_engine(plan.engine)
        if engine is None:
            raise EngineError(
                f"{self.library.title} {self.library.version} does not load the engine of "
                f"{self.card.name} on {self.device.name}: {gravest(self.heard)}; `velatura build` makes "
                "it anew for this GPU and version"
            )
        kernels = self.options.cache.get(plan.kernels_key) if self.library.keeps_kernels else None
        return Program(self, engine, key, plan, kernels)

    def _build(self, key: Key) -> "Plan":
        """An engine for one size, from the cache or the builder."""
        height, width, bits = key
        graph = wrap(self._graph, self._graph_card, bits=bits, size=(height, width), samples="bytes")
        data = graph.SerializeToString()
        cache = self.options.cache
        cache_key = {
            "name": self.card.name,
            "backend": self.library.name,
            "precision": self.precision,
            "graph": digest_of(data),
            "library": self.library.version,
            "device": self.device.name,
            "capability": self.device.capability,
            "driver": self.device.driver,
            "size": [height, width],
            "bits": bits,
        }

        def make() -> bytes:
            timings = cache.folder / f"{self.library.name}-{self.library.version}.timings"
            return build(
                self.library,
                data,
                shape=lambda h, w: io_shape(self.card, h, w),
                profile=None,
                options=BuildOptions(timings=timings if cache.problem is None else None),
                progress=self.options.progress,
            ).engine

        engine, _ = cache.get_or_build(cache_key, make)
        return Plan(engine, None, bits, {**cache_key, "precision": f"{self.precision}-kernels"})

    def _start(self, compiled: "Program", image: Array, output: Array) -> Pending:
        slot = compiled.next()
        slot.finish()
        return compiled.run_host(slot, image, output)

    def _release(self, compiled: "Program") -> None:
        compiled.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialised engine and what it takes."""

    engine: bytes
    profile: Profile | None
    """None for an engine of one size."""
    bits: int
    kernels_key: dict[str, Any]
    """Where the kernels that it compiles when it first runs are kept."""


@dataclass(slots=True)
class Slot:
    """One execution context with its stream and memory; at most one frame is in it."""

    context: Any
    stream: Any
    event: Any
    device_in: DeviceMemory
    device_out: DeviceMemory
    staged_in: Array
    """Page-locked, the shape of a picture."""
    staged_out: Array | None = None
    """Page-locked; with graphs only, whose addresses are fixed."""
    recording: Any = None
    runs: int = 0
    job: "Job | None" = None

    def finish(self) -> None:
        """Wait for the frame in it, if any."""
        if self.job is not None:
            self.job.finish()
            self.job = None


@dataclass(slots=True)
class Job:
    """A frame on the device."""

    wait: Callable[[], None]
    output: Any
    keep: Any = None
    """What must live until it is done."""
    done: bool = False
    error: EngineError | None = field(default=None)

    def finish(self) -> None:
        """Wait for it, once; an error is kept for who asks for the result."""
        if self.done:
            return
        self.done = True
        try:
            self.wait()
        except EngineError as error:
            self.error = error
        self.keep = None

    def result(self) -> Any:
        """The picture."""
        self.finish()
        if self.error is not None:
            raise self.error
        return self.output


class Program:
    """An engine for one size, with its contexts."""

    def __init__(
        self, owner: DeviceEngine, engine: Any, key: Key, plan: Plan, kernels: bytes | None
    ) -> None:
        self.owner = owner
        self.engine = engine
        self.cuda = owner.cuda
        self._plan = plan
        self._turn = 0
        self._pool: deque[DeviceMemory] = deque(maxlen=8)
        height, width, bits = key
        pairs = (2,) if bits > 8 else ()
        self.shape = (*io_shape(owner.card, height, width), *pairs)
        shape_out = (*io_shape(owner.card, height, width, output=True), *pairs)
        # Samples above 8 bits travel as pairs of bytes: one size in bytes either way.
        self.bytes_in = int(np.prod(self.shape))
        self.bytes_out = int(np.prod(shape_out))
        channels = owner.card.input_channels
        self.picture = (height, width) if channels == 1 else (height, width, channels)
        self.dtype = sample_dtype(bits)
        config, self._kernels = owner.library.runtime_config(engine, kernels)
        self._known_kernels = kernels
        self.slots = [self._slot(config) for _ in range(owner.in_flight)]

    def _slot(self, config: Any) -> Slot:
        cuda = self.cuda
        context = (
            self.engine.create_execution_context()
            if config is None
            else self.engine.create_execution_context(config)
        )
        if context is None:
            reason = gravest(self.owner.heard)
            raise EngineError(f"no execution context for {self.owner.card.name}: {reason}")
        if not context.set_input_shape(INPUT, self.shape):
            raise EngineError(f"the engine of {self.owner.card.name} does not take {self.shape}")
        staged_out = None
        if self.owner.graphs:
            staged_out = np.frombuffer(cuda.pinned(self.bytes_out), self.dtype)
        return Slot(
            context=context,
            stream=cuda.stream(),
            event=cuda.event(),
            device_in=DeviceMemory(cuda, self.bytes_in),
            device_out=DeviceMemory(cuda, self.bytes_out),
            staged_in=np.frombuffer(cuda.pinned(self.bytes_in), self.dtype).reshape(self.picture),
            staged_out=staged_out,
        )

    def next(self) -> Slot:
        """The slot whose frame is the oldest."""
        slot = self.slots[self._turn]
        self._turn = (self._turn + 1) % len(self.slots)
        return slot

    def run_host(self, slot: Slot, image: Array, output: Array) -> Pending:
        """From host memory to host memory."""
        cuda = self.cuda
        np.copyto(slot.staged_in, image)
        if slot.staged_out is not None and slot.recording is None and slot.runs:
            self._record(slot, slot.staged_out)
        if slot.recording is not None:
            cuda.call("cudaGraphLaunch", slot.recording, slot.stream)
        else:
            target = output if slot.staged_out is None else slot.staged_out
            self._steps(slot, target.ctypes.data)
        slot.runs += 1
        cuda.call("cudaEventRecord", slot.event, slot.stream)

        def wait() -> None:
            cuda.call("cudaEventSynchronize", slot.event)
            if slot.staged_out is not None:
                np.copyto(output, slot.staged_out.reshape(output.shape))

        slot.job = Job(wait, output)
        return slot.job.result

    def run_device(self, slot: Slot, view: DeviceView, shape: tuple[int, ...]) -> Callable[[], DeviceArray]:
        """From device memory to device memory."""
        cuda = self.cuda
        if view.stream is not None and view.stream != int(slot.stream):
            # The producer's work goes first; the host does not wait for it.
            cuda.call("cudaEventRecord", slot.event, view.stream)
            cuda.call("cudaStreamWaitEvent", slot.stream, slot.event, 0)
        result = DeviceArray(DeviceMemory(cuda, self.bytes_out), shape, self.dtype)
        self._execute(slot, view.address, result.memory.address)
        cuda.call("cudaEventRecord", slot.event, slot.stream)
        slot.job = Job(lambda: cuda.call("cudaEventSynchronize", slot.event), result, view)
        return slot.job.result

    def _steps(self, slot: Slot, target: int) -> None:
        """Copy in, infer, copy out, all in the slot's stream."""
        staged = slot.staged_in.ctypes.data
        self.cuda.copy_in(slot.device_in.address, staged, self.bytes_in, slot.stream)
        self._execute(slot, slot.device_in.address, slot.device_out.address)
        self.cuda.copy_out(target, slot.device_out.address, self.bytes_out, slot.stream)

    def _execute(self, slot: Slot, source: int, target: int) -> None:
        slot.context.set_tensor_address(INPUT, source)
        slot.context.set_tensor_address(OUTPUT, target)
        if not slot.context.execute_async_v3(int(slot.stream)):
            reason = gravest(self.owner.heard)
            raise EngineError(f"{self.owner.library.title} failed on {self.owner.card.name}: {reason}")

    def _record(self, slot: Slot, staged_out: Array) -> None:
        """Record the three steps; an engine that cannot be recorded goes on without."""
        self.cuda.begin_capture(slot.stream)
        try:
            self._steps(slot, staged_out.ctypes.data)
        except EngineError as error:
            self.owner.notes = (*self.owner.notes, f"no CUDA graph: {error}")
            slot.staged_out = None
        finally:
            recording = self.cuda.end_capture(slot.stream)
        if slot.staged_out is not None:
            slot.recording = recording

    def close(self) -> None:
        """Wait for the frames in flight; free contexts, streams and memory; keep compiled kernels."""
        for slot in self.slots:
            slot.finish()
            if slot.recording is not None:
                self.cuda.call("cudaGraphExecDestroy", slot.recording)
            self.cuda.call("cudaEventDestroy", slot.event)
            self.cuda.call("cudaStreamDestroy", slot.stream)
        if self._kernels is not None:
            kernels = bytes(self._kernels.serialize())
            if kernels != self._known_kernels:
                self.owner.options.cache.put(self._plan.kernels_key, kernels)
        self.slots.clear()
        self.engine = None


def open_device(
    model: Model, library: Library, cuda: Cuda, *, precision: str, options: Options
) -> Engine:
    """An engine on the GPU. Raises EngineError for a quantised graph, whose unsigned zero points TensorRT
    does not take."""
    if model.card.precision == "int8":
        raise EngineError(
            f"{library.title} takes no graph with unsigned INT8: give the FP32 model, it runs in FP16"
        )
    return DeviceEngine(model, library=library, cuda=cuda, precision=precision, options=options)
