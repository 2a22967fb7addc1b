"""The contract between frames and inference libraries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from ..cache import EngineCache
from ..card import ModelCard
from ..frame import Array

if TYPE_CHECKING:
    from onnx import ModelProto

Hint = Literal["throughput", "latency"]
"""`throughput` keeps several frames in flight, for files; `latency` finishes one soonest, for live."""

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8", "int8-bf16"]
"""`auto` takes the fastest that agrees with FP32: measured on a CPU; on a GPU FP16, if it was found to.
`int8-bf16` computes in BF16 what a quantised graph keeps in float."""

Fit = Literal["tile", "resize"]
"""What happens to frames where a model takes one size only."""

Progress = Callable[[str, float], None]
"""Called with what is being done and the part of it that is done, 0..1."""

Pending = Callable[[], Array]
"""Waits for a submitted picture and returns it; call it once."""


def _nobody(what: str, done: float) -> None:
    del what, done


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an engine is opened, whatever its backend."""

    hint: Hint = "throughput"
    fit: Fit = "tile"
    cache: EngineCache = field(default_factory=EngineCache)
    """Where built engines and measured choices are kept."""
    cuda_graphs: bool = False
    """On NVIDIA GPUs: record copy in, inference and copy out once, and launch them as one call."""
    progress: Progress = _nobody
    """Hears of builders at work."""


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
        """How many submitted pictures keep the device busy."""
        self._notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or refused while opening, and what changed since, one line each."""
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
        """Inference on one picture, waiting for it."""
        return self.submit(image, bits)()

    def prepare(self, height: int, width: int, bits: int = 8) -> None:
        """Compile for a size now rather than at its first picture. Raises EngineError."""
        del height, width, bits

    @abstractmethod
    def close(self) -> None:
        """Free the device's memory. Pending pictures must have been waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Backend(Protocol):
    """What a module of this package offers; the written contract for a new one."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module's constant
        """What `--backend` calls it."""
        ...

    def unavailable(self) -> str | None:
        """Why this backend cannot be used here, or None when it can. Cheap; loads no model."""
        ...

    def version(self) -> str:
        """The inference library's version."""
        ...

    def device(self) -> str:
        """What computes, and its driver: what was measured on another says nothing. Only where the
        backend can be used."""
        ...

    def precisions(self) -> tuple[str, ...]:
        """The precisions that this machine has, FP32 first."""
        ...

    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        """Load the model. Raises EngineError when the library refuses it."""
        ...


def sample_dtype(bits: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """The NumPy type of samples with that many bits."""
    return np.dtype(np.uint8) if bits == 8 else np.dtype(np.uint16)
