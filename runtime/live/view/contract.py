"""What the page acts on; `velatura.runtime.live.controls.Controls` is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ...frame import Frame
from ..stats import LiveStats


class Panel(Protocol):
    """The switches of a run. Called from the view's own threads; what cannot be done raises
    VelaturaError with the reason, which the page shows."""

    @property
    def off(self) -> bool:
        """Frames pass through unprocessed."""
        ...

    @off.setter
    def off(self, value: bool) -> None: ...

    @property
    def strength(self) -> float:
        """How much of the models' work is seen, 0..1."""
        ...

    @strength.setter
    def strength(self, value: float) -> None: ...

    @property
    def split(self) -> float | None:
        """Where the picture is parted, 0..1 of its width, left of it the original; None: whole."""
        ...

    @split.setter
    def split(self, value: float | None) -> None: ...

    @property
    def models(self) -> tuple[str, ...]:
        """The chain at work."""
        ...

    @property
    def available(self) -> tuple[str, ...]:
        """The models that one may change to."""
        ...

    @property
    def recording(self) -> Path | None:
        """Where a recording is being written; None while there is none."""
        ...

    def swap(self, models: Sequence[str]) -> None:
        """Take another chain as soon as it is ready; returns at once."""
        ...

    def stats(self) -> LiveStats:
        """The run so far."""
        ...

    def snapshot(self) -> Frame | None:
        """The newest frame at its full size; None before the first."""
        ...

    def record(self, on: bool) -> Path | None:
        """Begin a recording, or end it; where it lies."""
        ...
