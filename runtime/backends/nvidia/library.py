"""An adapter for TensorRT and TensorRT-RTX; their differences are in `Library`."""

import ctypes
import os
import re
import sys
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ...errors import BackendUnavailableError, EngineError, OutOfMemoryError
from ...machine import nvidia_problem

Name = Literal["tensorrt", "rtx"]

Hardware = Literal["ampere", "same"]
"""GPUs that a TensorRT engine runs on beside the one it was built on: `ampere`, any since Ampere;
`same`, any of the same compute capability."""

ADVICE: dict[Name, str] = {"tensorrt": "pip install 'velatura[gpu]'", "rtx": "pip install 'velatura[rtx]'"}
MODULES: dict[Name, tuple[str, str]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""Modules to try: the whole package first, then the bindings alone."""

RTX_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"
"""The package that carries TensorRT-RTX's shared libraries where its own does not."""


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded library, TensorRT or TensorRT-RTX. Every difference between them, and between versions,
    is here.

    Both are strongly typed: types come from the graph. TensorRT 10 must be told so, 11 and RTX know no
    other way; the flag exists in all three.
    """

    name: Name
    api: Any
    """The module of the bindings."""
    version: str
    """Version of the shared library that builds and runs, such as 11.4.0.106; see `_version`."""

    @property
    def title(self) -> str:
        """The library's name for messages."""
        return "TensorRT-RTX" if self.name == "rtx" else "TensorRT"

    @property
    def targets(self) -> tuple[int, ...]:
        """Compute capabilities, such as 86, that it builds for without such a GPU; empty for
        TensorRT."""
        if self.name != "rtx":
            return ()
        names = [n[2:] for n in self.api.ComputeCapability.__members__ if n.startswith("SM")]
        return tuple(sorted(int(name) for name in names if name.isdigit()))

    @property
    def keeps_timings(self) -> bool:
        """True if a timing cache shortens the next build. RTX times nothing while it builds: it
        compiles its kernels on the user's GPU, and keeps those in a runtime cache."""
        return self.name != "rtx"

    @property
    def keeps_kernels(self) -> bool:
        """True if it compiles kernels at an engine's first run, which are worth keeping."""
        return self.name == "rtx"

    def creation_flags(self) -> int:
        """Returns the flags of a network definition."""
        return 1 << int(self.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def set_target(self, config: Any, capability: int) -> None:
        """Build for another GPU than this machine's. Raises EngineError where the library cannot."""
        if capability not in self.targets:
            known = ", ".join(map(str, self.targets))
            raise EngineError(
                f"{self.title} {self.version} builds for compute capabilities {known}, not {capability}"
                if known
                else f"{self.title} builds for this machine's GPU only; --target rtx builds for others"
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(self.api.ComputeCapability, f"SM{capability}"), 0)

    def own_target(self, capability: int) -> int | None:
        """Returns the target for this machine's GPU, None for the default: RTX leaves Turing out unless
        it is named."""
        return capability if capability in self.targets else None

    def set_compatible(self, config: Any, *, version: bool, hardware: Hardware | None) -> None:
        """Build engines that work with later versions or other GPUs, at a cost in speed."""
        if self.name == "rtx" and (version or hardware):
            raise EngineError(
                "TensorRT-RTX engines are portable by their targets (--sm); the flags for version and "
                "hardware compatibility are TensorRT's"
            )
        if version:
            config.set_flag(self.api.BuilderFlag.VERSION_COMPATIBLE)
        if hardware is not None:
            name = {"ampere": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}[hardware]
            level = getattr(self.api.HardwareCompatibilityLevel, name, None)
            if level is None:  # TensorRT 10 learned SAME_COMPUTE_CAPABILITY on the way
                raise EngineError(f"TensorRT {self.version} has no hardware compatibility {hardware!r}")
            config.hardware_compatibility_level = level

    def set_recordable(self, config: Any) -> None:
        """Allow executions to be recorded in CUDA graphs. RTX may otherwise allocate while it runs."""
        if self.name == "rtx":
            config.set_flag(self.api.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def recordable(self, context: Any, stream: int) -> bool:
        """Returns whether the library reports an execution as recordable; TensorRT has no such
        query."""
        return self.name != "rtx" or bool(context.is_stream_capturable(stream))

    def runtime_config(self, engine: Any, kernels: bytes | None) -> tuple[Any, Any]:
        """Returns (configuration of execution contexts, cache of compiled kernels), both None in
        TensorRT."""
        if not self.keeps_kernels:
            return None, None
        config = engine.create_runtime_config()
        compiled = config.create_runtime_cache()
        if kernels is not None:
            compiled.deserialize(kernels)  # of another driver or version: refused, and compiled anew
        config.set_runtime_cache(compiled)
        return config, compiled


def problem(name: Name) -> str | None:
    """Returns the reason why the library cannot run engines here, or None: its package, then the
    driver. Loads nothing."""
    missing = missing_package(name)
    return missing if missing is not None else nvidia_problem()


def missing_package(name: Name) -> str | None:
    """Returns the reason why the library cannot even build, or None."""
    if not any(find_spec(module) is not None for module in MODULES[name]):
        return f"the package {MODULES[name][0]} is not installed ({ADVICE[name]})"
    return None


@cache
def load(name: Name) -> Library:
    """Returns the library. Raises BackendUnavailableError without its package or its shared
    libraries."""
    missing = missing_package(name)
    if missing is not None:
        raise BackendUnavailableError(missing)
    reason = ""
    for module in MODULES[name]:
        if find_spec(module) is None:
            continue
        try:
            if name == "rtx":
                preload(_rtx_folder())
            api = _imported(module)
            return Library(name, api, _version(name, str(api.__version__)))
        except (ImportError, OSError) as error:
            reason = f"{module}: {error}"
    raise BackendUnavailableError(f"{reason} ({ADVICE[name]} brings the shared libraries, too)")


def _imported(name: str) -> ModuleType:
    return import_module(name)


def _version(name: Name, bindings: str) -> str:
    """Returns the version of the shared library that bindings of that version have opened.

    They name it by its major version alone, so that it may be a newer or an older one than theirs, from
    another package or from the system; and no other loads its engines.
    """
    major, minor = bindings.split(".")[:2]
    file = {
        ("tensorrt", False): f"libnvinfer.so.{major}",
        ("tensorrt", True): f"nvinfer_{major}.dll",
        ("rtx", False): f"libtensorrt_rtx.so.{major}",
        ("rtx", True): f"tensorrt_rtx_{major}_{minor}.dll",
    }[name, sys.platform == "win32"]
    try:
        library = ctypes.CDLL(file)
        parts = [
            getattr(library, f"getInferLib{part}Version")()
            for part in ("Major", "Minor", "Patch", "Build")
        ]
    except (OSError, AttributeError):  # opened under another name, or too old to be asked
        return bindings
    return ".".join(map(str, parts))


def _rtx_folder() -> Path | None:
    """Returns the folder of TensorRT-RTX's shared libraries, found without importing their package."""
    spec = find_spec(RTX_LIBRARIES)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None


def preload(folder: Path | None) -> None:
    """Open the shared libraries for the whole process: the bindings name them by soname and would not
    find them."""
    if folder is None:
        return
    if sys.platform == "win32":
        # There the bindings open the libraries themselves, from the folders in PATH.
        os.environ["PATH"] = os.pathsep.join((str(folder), os.environ.get("PATH", "")))
        return
    for pattern in ("libtensorrt_rtx.so.*.*", "libtensorrt_onnxparser_rtx.so.*.*"):
        for path in sorted(folder.glob(pattern))[-1:]:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


class Heard:
    """Messages of a library since `logger` was given this object."""

    def __init__(self, keep: int | None = None) -> None:
        """`keep` is how many of the last lines are kept; None keeps all."""
        self.lines: deque[tuple[int, str]] = deque(maxlen=keep)
        """Pairs of (severity, text); 0 is the gravest severity."""

    @property
    def text(self) -> str:
        """All lines, whatever their severity."""
        return "\n".join(text for _, text in tuple(self.lines))

    def gravest(self) -> str:
        """Returns the last error among the lines, or the last line."""
        lines = tuple(self.lines)
        errors = [text for severity, text in lines if severity <= 1]
        return (errors or [text for _, text in lines] or ["no reason given"])[-1].strip()

    def failure(self, what: str) -> EngineError:
        """Returns an error with the library's own words: OutOfMemoryError where those speak of
        memory."""
        reason = self.gravest()
        kind = OutOfMemoryError if _MEMORY.search(reason) else EngineError
        return kind(f"{what}: {reason}")


_MEMORY = re.compile(
    r"out ?of ?memory|could not be allocated|(insufficient|enough) .{0,20}memory|workspace limit",
    re.IGNORECASE,
)


def logger(library: Library, heard: Heard) -> Any:
    """Returns the library's logger, which passes its messages to `heard` from now on while that lives.

    There is one for the whole process: the libraries keep the first that they are given, and a
    runtime's would swallow the messages of the next builder.
    """
    ear = _ear(library)
    ear.add(heard)
    return ear


def make(library: Library, kind: Literal["Builder", "Runtime"], heard: Heard) -> Any:
    """Returns one of the library's two root objects, whose messages `heard` receives.

    Raises EngineError with the library's words where there is none, as with a driver that is too old.
    """
    try:
        return getattr(library.api, kind)(logger(library, heard))
    except TypeError as error:  # pybind11's, for a factory that returned nothing
        raise heard.failure(f"{library.title} makes no {kind}") from error


@cache
def _ear(library: Library) -> Any:
    base: Any = library.api.ILogger

    class Ear(base):  # type: ignore[misc] - the base is known at run time only
        def __init__(self) -> None:
            base.__init__(self)
            self.lock = threading.Lock()
            self.listeners: tuple[weakref.ref[Heard], ...] = ()

        def add(self, heard: Heard) -> None:
            with self.lock:
                alive = [listener for listener in self.listeners if listener() is not None]
                self.listeners = (*alive, weakref.ref(heard))

        def log(self, severity: Any, msg: str) -> None:
            for listener in self.listeners:
                heard = listener()
                if heard is not None:
                    heard.lines.append((int(severity), msg))

    return Ear()
