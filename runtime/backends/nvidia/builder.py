"""Building of TensorRT and TensorRT-RTX engines from ONNX graphs."""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache import write_whole
from ...errors import EngineError, ModelError
from ..base import Progress
from ..graph import INPUT
from .library import Hardware, Heard, Library, logger, make

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """The range of frame sizes (height, width) that an engine takes; it is fastest at `best`."""

    least: Size
    best: Size
    most: Size

    def __post_init__(self) -> None:
        for low, high in ((self.least, self.best), (self.best, self.most)):
            if low[0] > high[0] or low[1] > high[1]:
                raise EngineError(
                    f"sizes must grow from --min over --opt to --max: {self.words()} do not"
                )

    def words(self) -> str:
        """Returns the sizes as `64x64, 720x1280, 2160x3840`, height first."""
        return ", ".join(f"{height}x{width}" for height, width in (self.least, self.best, self.most))

    def holds(self, height: int, width: int) -> bool:
        """Returns whether the engine takes that size."""
        return self.least[0] <= height <= self.most[0] and self.least[1] <= width <= self.most[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The options of the builder beside the graph."""

    capability: int | None = None
    """Compute capability of another GPU, such as 86; None builds for this machine's."""
    level: int | None = None
    """Builder optimisation level, 0 to 5; None takes the library's own."""
    version_compatible: bool = False
    hardware: Hardware | None = None
    """See `Library.set_compatible`."""
    workspace: int | None = None
    """Bytes of device memory that tactics may use; None takes all."""
    recordable: bool = False
    """True if executions will be recorded in CUDA graphs."""
    timings: Path | None = None
    """A file that keeps the timings of tactics from one build to the next."""


@dataclass(frozen=True, slots=True)
class Built:
    """An engine and the builder's report on it."""

    engine: bytes
    seconds: float
    weights: int
    """Bytes of the weights in the engine."""
    activations: int
    """Bytes of device memory that an execution needs beside input and output."""
    layers: int
    """Layers after fusion."""
    tactics: tuple[str, ...]
    """The kind of runner and the tactic chosen, one for each fused layer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialised engine and the input that it takes."""

    engine: bytes
    profile: Profile | None
    """None for an engine of one size."""
    bits: int
    kernels_key: dict[str, Any]
    """The cache key of kernels that are compiled at the first run."""
    host_code: bool = False
    """True if it contains code that runs on the CPU, as version-compatible engines do."""


def build(
    library: Library,
    graph: bytes,
    *,
    shape: Callable[[int, int], tuple[int, ...]],
    profile: Profile | None,
    options: BuildOptions,
    progress: Progress,
) -> Built:
    """Builds an engine from a wrapped graph; `profile` None means that its shapes are fixed.

    `shape` turns (height, width) into the input's shape. `progress` is called with the phase's name and
    the part done; an exception of it, such as KeyboardInterrupt, stops the builder and is raised here.

    Raises ModelError naming node and operator where the parser refuses the graph, EngineError with the
    library's own words where the builder does, OutOfMemoryError where it ran out of device memory.
    """
    start = time.perf_counter()
    heard = Heard()
    api = library.api
    builder, network, parser = _parsed(library, graph, heard)
    config = builder.create_builder_config()
    monitor = _monitor(library, progress)
    config.progress_monitor = monitor
    if options.capability is not None:
        library.set_target(config, options.capability)
    library.set_compatible(config, version=options.version_compatible, hardware=options.hardware)
    if options.recordable:
        library.set_recordable(config)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.workspace is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options.workspace)
    if profile is not None:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(INPUT, shape(*profile.least), shape(*profile.best), shape(*profile.most))
        config.add_optimization_profile(shapes)
    timings = _timing_cache(library, config, options.timings)
    engine = builder.build_serialized_network(network, config)
    del parser
    if monitor.failure is not None:
        raise monitor.failure
    if engine is None:
        raise heard.failure(f"{library.title} could not build the engine")
    if timings is not None and options.timings is not None:
        # Timings save seconds at the next build; failing to store them must not discard this build.
        with contextlib.suppress(OSError):
            write_whole(options.timings, bytes(timings.serialize()))
    text = heard.text
    chosen = re.findall(r"Chose Runner Type: (\w+) Tactic: (0x[0-9a-fA-F]+)", text)
    return Built(
        engine=bytes(engine),
        seconds=time.perf_counter() - start,
        weights=_bytes_after(text, "Total Weights Memory"),
        activations=_bytes_after(text, "Total Activation Memory"),
        layers=len(re.findall(r"^(?:Layer\(|Name: )", text.partition("Engine Layer Inf")[2], re.M)),
        tactics=tuple(f"{runner} {tactic}" for runner, tactic in chosen),
    )


def check(library: Library, graph: bytes) -> None:
    """Parse a wrapped graph without building, which takes milliseconds.

    Raises ModelError naming node and operator where it refuses the graph.
    """
    _parsed(library, graph, Heard())


def _parsed(library: Library, graph: bytes, heard: Heard) -> tuple[Any, Any, Any]:
    """Returns (builder, network, parser): the network needs the other two to live."""
    builder = make(library, "Builder", heard)
    network = builder.create_network(library.creation_flags())
    parser = library.api.OnnxParser(network, logger(library, heard))
    if not parser.parse(graph):
        raise ModelError(f"{library.title} does not take the model: {_complaint(parser, heard)}")
    return builder, network, parser


def _timing_cache(library: Library, config: Any, path: Path | None) -> Any:
    """Returns the cache of tactic timings with the file's contents; None where the library makes no use
    of it."""
    if path is None or not library.keeps_timings:
        return None
    kept = b""
    with contextlib.suppress(OSError):  # the first build has none
        kept = path.read_bytes()
    for data in (kept, b""):  # another version's or GPU's, or cut: begun anew
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def _complaint(parser: Any, heard: Heard) -> str:
    """Returns the parser's error messages, node and operator first."""
    said: list[str] = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        operator, node = error.node_operator(), error.node_name()
        where = f"operator {operator} (node {node or error.node()}): " if operator else ""
        said.append(f"{where}{error.desc()}")
    return "; ".join(said) or heard.gravest()


def _monitor(library: Library, progress: Progress) -> Any:
    """Returns a monitor that reports the outermost phases' progress, as the library counts it.

    The library swallows what its callbacks raise, after printing it: it is kept in `failure` instead.
    """
    base: Any = library.api.IProgressMonitor

    class Monitor(base):  # type: ignore[misc] - the base is known at run time only
        def __init__(self) -> None:
            base.__init__(self)
            self.outer = ""
            self.steps: dict[str, tuple[int, int]] = {}
            self.failure: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.outer = phase_name
            self.steps[phase_name] = (0, max(num_steps, 1))
            self.tell(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            count = self.steps[phase_name][1]
            self.steps[phase_name] = (count, count)
            self.tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.steps[phase_name] = (step + 1, self.steps[phase_name][1])
            self.tell(phase_name)
            return self.failure is None

        def tell(self, phase: str) -> None:
            done, count = self.steps.get(self.outer, (0, 1))
            if self.failure is not None:
                return
            try:
                progress(phase, min(done / count, 1.0))
            except BaseException as error:  # KeyboardInterrupt, too: the builder's caller gets it
                self.failure = error

    return Monitor()


def _bytes_after(text: str, words: str) -> int:
    found = re.findall(rf"{words}: (\d+) bytes", text)
    return int(found[-1]) if found else 0
