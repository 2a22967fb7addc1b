"""What the page acts on; `velatura.runtime.live.controls.Controls` is one."""

from pathlib import Path
from typing import Protocol

from ...frame import Frame
from ..controls import Adjustable
from ..stats import LiveStats


class Panel(Adjustable, Protocol):
    """The switches of a run. Called from the view's own threads; what cannot be done raises
    VelaturaError with the reason, which the page shows."""

    @property
    def available(self) -> tuple[str, ...]:
        """The models that one may change to."""
        ...

    @property
    def recording(self) -> Path | None:
        """Where a recording is being written; None while there is none."""
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
