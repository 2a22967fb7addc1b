"""The contract between frames and inference libraries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from ..cache import EngineCache
from ..card import ModelCard
from ..errors import EngineError
from ..frame import Array
from ..machine import cpu_and_cores

if TYPE_CHECKING:
    from onnx import ModelProto

Hint = Literal["throughput", "latency"]
"""`throughput` keeps several frames in flight, for files; `latency` finishes one soonest, for live."""

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8", "int8-bf16"]
"""The precision; `auto` takes the fastest that agrees with FP32: measured on a CPU; on a GPU FP16, if
it was found to. `int8-bf16` computes in BF16 what a quantised graph keeps in float."""

Fit = Literal["tile", "resize"]
"""The treatment of frames by a model of one size only: cut into tiles, or resized."""

Progress = Callable[[str, float], None]
"""Called with the name of a step and the part of it that is done, 0..1."""

Pending = Callable[[], Array]
"""Waits for a submitted picture and returns it; to be called once."""


def _nobody(what: str, done: float) -> None:
    del what, done


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options for opening an engine, common to all backends."""

    hint: Hint = "throughput"
    fit: Fit = "tile"
    cache: EngineCache = field(default_factory=EngineCache)
    """The store of built engines and measured choices."""
    cuda_graphs: bool = False
    """True to record copy in, inference and copy out once in a CUDA graph, and launch them as one call;
    NVIDIA GPUs only."""
    pixels: int | None = None
    """The pixels, of all frames together, that the engine is opened for; None where nobody knows."""
    progress: Progress = _nobody
    """Called with the progress of builders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A graph and the card that says how to feed it."""

    proto: "ModelProto"
    card: ModelCard
    path: Path | None = None
    notes: tuple[str, ...] = ()
    """What was assumed about a foreign model, one line each."""


class Engine(ABC):
    """A loaded model. Pictures in and out are the frame's own samples: uint8, or uint16 with `bits`.

    A luma model takes (H, W) and gives (scale * H, scale * W); others take and give (H, W, 3) RGB.
    Any size and any of the two sample types may follow one another; each pair is compiled once and
    kept. An engine may be used from one thread at a time.
    """

    def __init__(self, card: ModelCard, *, backend: str, precision: str, in_flight: int) -> None:
        self.card = card
        self.backend = backend
        self.precision = precision
        self.in_flight = in_flight
        """The number of submitted pictures that keep the device busy."""
        self._notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on assumptions and refusals while opening, and on changes since, one line each."""
        return self._notes

    @notes.setter
    def notes(self, lines: tuple[str, ...]) -> None:
        self._notes = lines

    @abstractmethod
    def submit(self, image: Array, bits: int = 8) -> Pending:
        """Begin inference on a picture of `bits` bits, which must not change until it is done.

        Raises EngineError for a picture of the wrong shape, or when the library fails.
        """

    def run(self, image: Array, bits: int = 8) -> Array:
        """Returns the model's result for one picture, waiting for it."""
        return self.submit(image, bits)()

    def prepare(self, height: int, width: int, bits: int = 8) -> None:
        """Compile for a size now rather than at its first picture. Raises EngineError."""
        del height, width, bits

    @abstractmethod
    def close(self) -> None:
        """Free the device's memory. Pending pictures must have been waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend(ABC):
    """An inference library on a kind of device: what it is called, whether it is here, how it opens.

    The module of a backend lists its own in a tuple `BACKENDS`.
    """

    name: str
    """The name for `--backend`."""
    package: str
    """The package that is imported."""
    advice: str
    """The command that installs it."""
    distributions: tuple[str, ...]
    """The names at the package index of all that its speed and results depend on."""
    on_cpu: bool = False
    """True if it needs no device and no long build: it can inspect foreign models, and stand in while
    a better engine is built."""

    def unavailable(self) -> str | None:
        """Returns the reason why this backend cannot be used here, or None when it can. Cheap; loads no
        model."""
        if find_spec(self.package) is None:
            return f"the package {self.package} is not installed ({self.advice})"
        return None

    def expected(self) -> bool:
        """Returns whether this machine has a device for it, so that a user may wonder why it is not
        used."""
        return self.on_cpu

    @abstractmethod
    def version(self) -> str:
        """Returns the inference library's version."""

    def device(self) -> str:
        """Returns the device that computes and its driver, since measurements on another do not apply.
        Call it only where the backend can be used."""
        return cpu_and_cores()

    @abstractmethod
    def precisions(self) -> tuple[str, ...]:
        """Returns the precisions that this machine supports, FP32 first."""

    def trial(self, model: bytes, image: Array) -> Array:
        """Returns a serialised graph's output for one tensor. Raises the library's own errors.

        Backends on a CPU have it.
        """
        del model, image
        raise EngineError(f"{self.name} runs no graph as it is")

    @abstractmethod
    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        """Opens an engine for the model. Raises EngineError when the library refuses it."""


@cache
def sample_dtype(bits: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """Returns the NumPy type of samples with that many bits."""
    return np.dtype(np.uint8) if bits == 8 else np.dtype(np.uint16)
