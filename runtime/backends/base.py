"""The contract between frames and inference libraries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from ..card import ModelCard
from ..frame import Array

if TYPE_CHECKING:
    from .model import Model

Hint = Literal["throughput", "latency"]
"""`throughput` keeps several frames in flight, for files; `latency` finishes one soonest, for live."""

Precision = Literal["auto", "fp32", "bf16", "int8"]
"""`auto` takes the fastest whose loss the model's card states."""

Pending = Callable[[], Array]
"""Waits for a submitted picture and returns it; call it once."""


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
        self.notes: tuple[str, ...] = ()
        """What was assumed or refused while opening, one line each."""

    @abstractmethod
    def submit(self, image: Array, bits: int = 8) -> Pending:
        """Begin inference on a picture of `bits` bits, which must not change until it is done.

        Raises EngineError for a picture of the wrong shape, or when the library fails.
        """

    def run(self, image: Array, bits: int = 8) -> Array:
        """Inference on one picture, waiting for it."""
        return self.submit(image, bits)()

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

    NAME: str

    def unavailable(self) -> str | None:
        """Why this backend cannot be used here, or None when it can. Cheap; loads no model."""
        ...

    def precisions(self) -> tuple[str, ...]:
        """The precisions that this machine runs faster than the one before, slowest first."""
        ...

    def trial(self, model: bytes, image: Array) -> Array:
        """Run a serialised graph of one input and one output once; raises what the library raises."""
        ...

    def open(self, model: "Model", *, precision: str, hint: Hint) -> Engine:
        """Load the model. Raises EngineError when the library refuses it."""
        ...


def sample_dtype(bits: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """The NumPy type of samples with that many bits."""
    return np.dtype(np.uint8) if bits == 8 else np.dtype(np.uint16)
