"""DeviceEngine: TensorRT and TensorRT-RTX engines on an NVIDIA GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ...buffers import BufferPool
from ...cache import digest_of
from ...errors import EngineError, ModelError, OutOfMemoryError
from ...frame import Array
from ..base import Engine, Model, Options, Pending, sample_dtype
from ..graph import INPUT, OUTPUT, io_shape, wrap
from ..ort import halved
from ..shape_compiled import MAX_PIXELS, Key, StaticEngine
from .builder import BuildOptions, Plan, build, check
from .cuda import Cuda, DeviceArray, DeviceMemory, DevicePool, Job, bare
from .device_arrays import DeviceView, device_view, is_device_array, picture_size
from .library import Heard, Library, make

CONTEXTS = 3
"""Frames in flight for throughput: one travels in, one computes, one travels out."""

ALIGNMENT = 256
"""Alignment, in bytes, of the memory that the library reads and writes. Whole arrays have it; a part of
one need not, and is copied on the device."""

BYTES_A_PIXEL = 160
"""Bytes of activations per pixel of the largest shipped network, by the builder's report: 1262 MB at
3840x2160. Frames whose activations would fill more than a quarter of the GPU, in all contexts, are cut
into tiles."""


class DeviceEngine(StaticEngine["Program"]):
    """Engines of one model on the current GPU, built for each frame size, or given built.

    A frame is copied once into page-locked memory; copy in, inference and copy out then run in a stream
    of their own without the host, which waits for one event when the result is asked for. The result is
    copied by the GPU itself into the array that is handed out. With CUDA graphs, those three steps are
    recorded once and launched as one call, at the cost of one more copy on the host. Pictures that lie
    on the device (`__cuda_array_interface__`, DLPack) are read where they are, and so is their result.
    """

    def __init__(
        self,
        model: Model,
        *,
        library: Library,
        cuda: Cuda,
        precision: str,
        options: Options,
        plan: Plan | None = None,
    ) -> None:
        self.device = cuda.device()
        in_flight = CONTEXTS if options.hint == "throughput" else 1
        super().__init__(
            model,
            backend=library.name,
            precision=precision,
            in_flight=in_flight,
            fit=options.fit,
            max_pixels=max(MAX_PIXELS, self.device.memory // (4 * in_flight * BYTES_A_PIXEL)),
        )
        self.library = library
        self.cuda = cuda
        self.options = options
        self.graphs = options.cuda_graphs
        self.heard = Heard(keep=50)
        self._plan = plan
        self._runtime: Any = make(library, "Runtime", self.heard)
        if plan is not None and plan.host_code:
            self._runtime.engine_host_code_allowed = True
        self._buffers = BufferPool(allocate=cuda.pinned)
        self._graph, self._graph_card = model.proto, model.card
        if plan is None:
            self._check(precision)

    def _check(self, precision: str) -> None:
        """Raise EngineError now for a graph that the library refuses, so that `auto` tries the next
        backend."""
        try:
            if precision == "fp16":
                self._graph, self._graph_card = halved(self.model)
            graph = wrap(self._graph, self._graph_card, size=self.card.fixed_size, samples="bytes")
            check(self.library, graph.SerializeToString())
        except ModelError as error:
            raise EngineError(f"{self.card.name}: {error}") from error

    def submit(self, image: Array, bits: int = 8) -> Pending:
        if is_device_array(image):
            return self._submit_device(image, bits)
        return super().submit(image, bits)

    def _submit_device(self, image: Any, bits: int) -> Pending:
        """Starts inference on a device picture of a size that needs no padding; the result is a
        DeviceArray."""
        card = self.card
        height, width = picture_size(image, card, least=self._smallest(), number=self.device.number)
        program = self._compile_for((height, width, bits))
        slot = program.next()
        view = device_view(image, stream=int(slot.stream))
        if view.dtype != sample_dtype(bits):
            raise EngineError(f"{card.name} takes samples of {sample_dtype(bits)}, not {view.dtype}")
        return cast(Pending, program.run_device(slot, view))

    def _smallest(self) -> tuple[int, int]:
        least = super()._smallest()
        profile = self._plan.profile if self._plan is not None else None
        if profile is None:
            return least
        return max(least[0], profile.least[0]), max(least[1], profile.least[1])

    def _window(self, height: int, width: int, bits: int) -> tuple[int, int]:
        if self._plan is not None and self._plan.profile is not None:
            # Frames larger than the engine takes are cut into tiles of a size that it takes.
            step = self.card.size_multiple
            largest = [side - side % step for side in self._plan.profile.most]
            height, width = min(height, largest[0]), min(width, largest[1])
        return super()._window(height, width, bits)

    def _infer(self, image: Array, bits: int) -> Pending:
        # The copy into page-locked memory takes strided and read-only pictures as they are.
        program = self._compile_for((image.shape[0], image.shape[1], bits))
        output = self._take_output(image.shape[0], image.shape[1], image.dtype)
        return self._start(program, image, output)

    def _compile(self, key: Key) -> "Program":
        plan, engine = self._built(key) if self._plan is None else self._given(self._plan, key)
        kernels = self.options.cache.get(plan.kernels_key) if self.library.keeps_kernels else None
        return Program(self, engine, key, plan, kernels)

    def _given(self, plan: Plan, key: Key) -> tuple[Plan, Any]:
        """Returns the engine file's plan and its engine, if they are for that size."""
        height, width, bits = key
        if plan.bits != bits or (plan.profile and not plan.profile.holds(height, width)):
            sizes = plan.profile.words() if plan.profile else "one size"
            raise EngineError(
                f"{self.card.name} was built for {plan.bits}-bit frames of {sizes}, not for {bits}-bit "
                f"{height}x{width}"
            )
        return plan, self._loaded(plan.engine, " (`velatura build` makes it anew)")

    def _loaded(self, data: bytes, advice: str = "") -> Any:
        """Returns the library's engine. Raises EngineError with its words where it refuses the data."""
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise self.heard.failure(
                f"{self.library.title} {self.library.version} does not load the engine of "
                f"{self.card.name} on {self.device.name}{advice}"
            )
        return engine

    def _built(self, key: Key) -> tuple[Plan, Any]:
        """Returns a plan for one size, from the cache or the builder, and its engine."""
        height, width, bits = key
        graph = wrap(self._graph, self._graph_card, bits=bits, size=(height, width), samples="bytes")
        model = graph.SerializeToString()
        cache = self.options.cache
        cache_key = {
            "name": self.card.name,
            "backend": self.library.name,
            "precision": self.precision,
            "graph": digest_of(model),
            "library": self.library.version,
            "device": self.device.name,
            "capability": self.device.capability,
            "driver": self.device.driver,
            "size": [height, width],
            "bits": bits,
            "recordable": self.graphs,
        }

        def make() -> bytes:
            return build(
                self.library,
                model,
                shape=lambda height, width: io_shape(self.card, height, width),
                profile=None,
                options=BuildOptions(
                    capability=self.library.own_target(self.device.capability),
                    recordable=self.graphs,
                    timings=cache.timings(self.library.name, self.library.version),
                ),
                progress=self.options.progress,
            ).engine

        data, fresh = cache.get_or_build(cache_key, make)
        try:
            engine = self._loaded(data)
        except EngineError as error:
            if fresh or isinstance(error, OutOfMemoryError):
                raise
            # It is whole and of this key, and would be refused at each start.
            self.notes = (*self.notes, f"{error}: it was built again")
            data, _ = cache.get_or_build(cache_key, make, refused=data)
            engine = self._loaded(data)
        kernels_key = {**cache_key, "precision": f"{self.precision}-kernels"}
        return Plan(data, None, bits, kernels_key), engine

    def _start(self, compiled: "Program", image: Array, output: Array) -> Pending:
        return compiled.run_host(compiled.next(), image, output)

    def _release(self, compiled: "Program") -> None:
        compiled.close()

    def close(self) -> None:
        super().close()
        self._buffers = BufferPool(allocate=self.cuda.pinned)
        self._runtime = None


@dataclass(slots=True, kw_only=True)
class Slot:
    """One execution context with its stream and memory; it holds at most one frame."""

    context: Any
    stream: Any
    event: Any
    device_in: DeviceMemory
    device_out: DeviceMemory
    staged_in: Array
    """Page-locked memory in the shape of a picture."""
    staged_out: Array | None
    """Page-locked memory for recorded graphs, whose addresses are fixed."""
    bound: tuple[int, int] = (0, 0)
    """The addresses that are set as the context's input and output."""
    recording: Any = None
    runs: int = 0
    job: Job | None = None

    def finish(self) -> None:
        """Wait for the slot's frame, if any."""
        if self.job is not None:
            self.job.finish()
            self.job = None


class Program:
    """An engine for one size, with its execution contexts."""

    def __init__(
        self, owner: DeviceEngine, engine: Any, key: Key, plan: Plan, kernels: bytes | None
    ) -> None:
        self.owner = owner
        self.cuda = owner.cuda
        self._engine: Any = engine
        self._plan = plan
        self._turn = 0
        self._recorded = owner.graphs
        height, width, bits = key
        card = owner.card
        pairs = (2,) if bits > 8 else ()
        self.shape = (*io_shape(card, height, width), *pairs)
        # Samples above 8 bits travel as pairs of bytes: one size in bytes either way.
        self.bytes_in = int(np.prod(self.shape))
        self.bytes_out = int(np.prod((*io_shape(card, height, width, output=True), *pairs)))
        self.picture = _picture(height, width, card.input_channels)
        self.result = _picture(height * card.scale, width * card.scale, card.output_channels)
        self.dtype = sample_dtype(bits)
        self._results = DevicePool(self.cuda, self.bytes_out)
        self._config, self._kernels = owner.library.runtime_config(engine, kernels)
        self._known_kernels = kernels
        self.slots: list[Slot] = []
        try:
            for _ in range(owner.in_flight):
                self.slots.append(self._slot())
        except BaseException:
            self._free()
            raise

    def _slot(self) -> Slot:
        cuda = self.cuda
        arguments = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*arguments)
        if context is None:
            raise self.owner.heard.failure(f"no execution context for {self.owner.card.name}")
        if not context.set_input_shape(INPUT, self.shape):
            raise EngineError(f"the engine of {self.owner.card.name} does not take {self.shape}")
        staged_in = np.frombuffer(cuda.pinned(self.bytes_in), self.dtype).reshape(self.picture)
        staged_out = None
        if self._recorded:
            staged_out = np.frombuffer(cuda.pinned(self.bytes_out), self.dtype).reshape(self.result)
        # Memory is allocated first, since it may run out, and is freed automatically.
        return Slot(
            context=context,
            device_in=DeviceMemory(cuda, self.bytes_in),
            device_out=DeviceMemory(cuda, self.bytes_out),
            staged_in=staged_in,
            staged_out=staged_out,
            stream=cuda.stream(),
            event=cuda.event(),
        )

    def next(self) -> Slot:
        """Returns the slot with the oldest frame, once that frame is done."""
        slot = self.slots[self._turn]
        self._turn = (self._turn + 1) % len(self.slots)
        slot.finish()
        return slot

    def run_host(self, slot: Slot, image: Array, output: Array) -> Pending:
        """Runs a picture from host memory into page-locked host memory."""
        np.copyto(slot.staged_in, image)
        job = Job(output)
        staged: Array | None = None
        try:
            staged = self._launch(slot, output)
        except EngineError as error:
            job.error = bare(error)

        def copy() -> None:
            if staged is not None:
                np.copyto(output, staged)

        return self._in_flight(slot, job, copy)

    def run_device(self, slot: Slot, view: DeviceView) -> Callable[[], DeviceArray]:
        """Runs a picture from device memory into device memory."""
        result = self._results.take(self.result, self.dtype)
        job = Job(result, keep=view)
        try:
            if view.stream is not None and view.stream != int(slot.stream):
                # The producer's work goes first, and the host does not wait for it. The event can serve
                # again at once: a stream waits for what was recorded when it was told to.
                self.cuda.call("cudaEventRecord", slot.event, view.stream)
                self.cuda.call("cudaStreamWaitEvent", slot.stream, slot.event, 0)
            source = view.address
            if source % ALIGNMENT:
                source = slot.device_in.address
                self.cuda.copy_within(source, view.address, self.bytes_in, slot.stream)
            self._execute(slot, source, result.memory.address)
        except EngineError as error:
            job.error = bare(error)
        return self._in_flight(slot, job)

    def _in_flight(
        self, slot: Slot, job: Job, then: Callable[[], None] = lambda: None
    ) -> Callable[[], Any]:
        """Makes the slot's work so far the job; if submitting failed, its first steps may still run."""
        self.cuda.call("cudaEventRecord", slot.event, slot.stream)
        event = slot.event

        def wait() -> None:
            self.cuda.call("cudaEventSynchronize", event)
            then()

        job.wait, slot.job = wait, job
        return job.result

    def _launch(self, slot: Slot, output: Array) -> Array | None:
        """Starts the three steps; returns the array for the result where that is not `output`."""
        # The first execution compiles and allocates, which cannot be recorded.
        if self._recorded and slot.recording is None and slot.runs:
            self._record(slot)
        slot.runs += 1
        if slot.recording is not None:
            self.cuda.call("cudaGraphLaunch", slot.recording, slot.stream)
            return slot.staged_out
        self._steps(slot, output)
        return None

    def _steps(self, slot: Slot, target: Array) -> None:
        """Submit copy in, inference and copy out, all in the slot's stream."""
        staged = slot.staged_in.ctypes.data
        self.cuda.copy_in(slot.device_in.address, staged, self.bytes_in, slot.stream)
        self._execute(slot, slot.device_in.address, slot.device_out.address)
        self.cuda.copy_out(target.ctypes.data, slot.device_out.address, self.bytes_out, slot.stream)

    def _execute(self, slot: Slot, source: int, target: int) -> None:
        owner = self.owner
        if slot.bound != (source, target):
            slot.bound = (0, 0)
            for name, address in ((INPUT, source), (OUTPUT, target)):
                if not slot.context.set_tensor_address(name, address):
                    raise owner.heard.failure(f"{owner.library.title} takes no address for {name}")
            slot.bound = (source, target)
        if not slot.context.execute_async_v3(int(slot.stream)):
            raise owner.heard.failure(f"{owner.library.title} failed on {owner.card.name}")

    def _record(self, slot: Slot) -> None:
        """Record the three steps; an engine that cannot be recorded runs without a graph."""
        owner, cuda = self.owner, self.cuda
        try:
            if not owner.library.recordable(slot.context, int(slot.stream)):
                raise EngineError(f"{owner.library.title} allocates while it runs")
            target = cast(Array, slot.staged_out)
            slot.recording = cuda.record(slot.stream, lambda: self._steps(slot, target))
        except EngineError as error:
            self._recorded = False
            owner.notes = (*owner.notes, f"no CUDA graph for {owner.card.name}: {error}")

    def close(self) -> None:
        """Wait for the frames in flight; free contexts, streams and memory; keep compiled kernels."""
        self._free()
        if self._kernels is not None:
            data = self._kernels.serialize()
            if data is not None and bytes(data) != self._known_kernels:
                self.owner.options.cache.put(self._plan.kernels_key, bytes(data))
        self._engine = self._config = self._kernels = None

    def _free(self) -> None:
        while self.slots:
            slot = self.slots.pop()
            slot.finish()
            slot.context = None
            if slot.recording is not None:
                self.cuda.release("cudaGraphExecDestroy", slot.recording)
            self.cuda.release("cudaEventDestroy", slot.event)
            self.cuda.release("cudaStreamDestroy", slot.stream)


def _picture(height: int, width: int, channels: int) -> tuple[int, ...]:
    return (height, width) if channels == 1 else (height, width, channels)


def open_device(
    model: Model, library: Library, cuda: Cuda, *, precision: str, options: Options
) -> Engine:
    """Returns an engine on the GPU. Raises EngineError for a quantised graph, whose unsigned zero
    points the library does not support."""
    if model.card.precision == "int8":
        raise EngineError(
            f"{library.title} takes no graph with unsigned INT8: give the FP32 model, it runs in FP16"
        )
    return DeviceEngine(model, library=library, cuda=cuda, precision=precision, options=options)
