"""Controls: a person's actions on a live run, by a key, on the page, or in Python."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..adaptive.processor import Tell
from ..errors import SinkError, VelaturaError
from ..frame import Frame
from .stats import LiveStats


@runtime_checkable
class Adjustable(Protocol):
    """A processor whose work a person may change while it runs; any thread may set these."""

    @property
    def off(self) -> bool:
        """True if frames pass through at the output's size."""
        ...

    @off.setter
    def off(self, value: bool) -> None: ...

    @property
    def strength(self) -> float:
        """The part of the models' result in the picture, 0..1."""
        ...

    @strength.setter
    def strength(self, value: float) -> None: ...

    @property
    def split(self) -> float | None:
        """The place at which the picture is split, 0..1 of its width: left of it is the original."""
        ...

    @split.setter
    def split(self, value: float | None) -> None: ...

    @property
    def models(self) -> tuple[str, ...]:
        """The models at work, in order."""
        ...

    def swap(self, models: Sequence[str]) -> None:
        """Switch to other models as soon as they are ready; returns at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Functions that begin and end a recording."""

    begin: Callable[[Path], None]
    end: Callable[[], None]


class Controls:
    """The controls of one run: keys, page and code act through them. Thread-safe.

    What a run cannot do (a strength where no model runs, a recording without a place) raises SinkError
    with the reason.
    """

    def __init__(
        self,
        *,
        adjustable: Adjustable | None,
        available: Sequence[str],
        stats: Callable[[], LiveStats],
        stop: Callable[[], None],
        recorder: Recorder | None = None,
        folder: Path | None = None,
        tell: Tell | None = None,
    ) -> None:
        """`available` are the models that `next_model` goes through; recordings go into `folder`."""
        self.available = tuple(available)
        self.stats = stats
        self.stop = stop
        self.recording: Path | None = None
        self._adjustable = adjustable
        self._recorder = recorder
        self._folder = folder
        self._hears = tell
        self._newest: Frame | None = None
        self._statistics = False
        self._recording_lock = threading.Lock()
        self._closed = False

    @property
    def off(self) -> bool:
        """True if frames pass through unprocessed."""
        return self._adjustable is None or self._adjustable.off

    @off.setter
    def off(self, value: bool) -> None:
        self._processor().off = value
        self._tell("off: frames pass through" if value else "on")

    @property
    def strength(self) -> float:
        """The part of the models' picture: 0 shows the original, 1 the models' picture."""
        return self._adjustable.strength if self._adjustable is not None else 0.0

    @strength.setter
    def strength(self, value: float) -> None:
        self._processor().strength = min(max(value, 0.0), 1.0)

    @property
    def split(self) -> float | None:
        """The place at which the picture is split, 0..1 of its width; None shows it whole."""
        return self._adjustable.split if self._adjustable is not None else None

    @split.setter
    def split(self, value: float | None) -> None:
        self._processor().split = None if value is None else min(max(value, 0.0), 1.0)

    @property
    def models(self) -> tuple[str, ...]:
        """The models at work, in order."""
        return self._adjustable.models if self._adjustable is not None else ()

    @property
    def statistics(self) -> bool:
        """True if figures are drawn over the picture."""
        return self._statistics

    @statistics.setter
    def statistics(self, value: bool) -> None:
        self._statistics = value

    def swap(self, models: Sequence[str]) -> None:
        """Switch to other models as soon as they are ready. Raises SinkError for a model that is not
        available."""
        unknown = [model for model in models if model not in self.available]
        if unknown or not models:
            raise SinkError(
                f"no model {', '.join(unknown) or 'given'}; there are: {', '.join(self.available)}"
            )
        self._processor().swap(tuple(models))

    def next_model(self) -> str:
        """Switches to the model after the present one in `available`; returns its name."""
        if not self.available:
            raise SinkError("there is no other model to go to")
        present = self.models[:1]
        place = self.available.index(present[0]) + 1 if present and present[0] in self.available else 0
        following = self.available[place % len(self.available)]
        self.swap([following])
        return following

    def show(self, frame: Frame) -> None:
        """Record the newest frame that is shown, which `snapshot` gives."""
        self._newest = frame

    def snapshot(self) -> Frame | None:
        """Returns the newest frame at its full size; None before the first."""
        frame = self._newest
        return None if frame is None else replace(frame)

    def record(self, on: bool) -> Path | None:
        """Begins or ends a recording; returns its path. Raises SinkError."""
        if self._recorder is None or self._folder is None:
            raise SinkError("this run has no place for recordings: give --record-to FOLDER")
        with self._recording_lock:
            if self._closed:
                raise SinkError("the run has ended: no recording can be begun or ended any more")
            return self._record(on, self._recorder, self._folder)

    def close(self) -> None:
        """End the controls: nobody begins or ends a recording once it has returned."""
        with self._recording_lock:
            self._closed = True

    def _record(self, on: bool, recorder: Recorder, folder: Path) -> Path | None:
        if on and self.recording is None:
            path = _unused(folder)
            recorder.begin(path)
            self.recording = path
            self._tell(f"recording to {path}")
        elif not on and self.recording is not None:
            path, self.recording = self.recording, None
            try:
                recorder.end()
            except VelaturaError as error:
                self._tell(f"the recording failed: {error}")
                raise
            self._tell(f"recorded {path}")
            return path
        return self.recording

    def _tell(self, text: str) -> None:
        if self._hears is not None:
            self._hears(text)

    def _processor(self) -> Adjustable:
        if self._adjustable is None:
            raise SinkError("no model runs here, so there is nothing to set")
        return self._adjustable


def _unused(folder: Path) -> Path:
    """Returns an unused name for a recording, also after a crash: by time, process and number."""
    stem, number = f"recording-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}", 1
    while True:
        name = f"{stem}-{number}"
        if not any((folder / taken).exists() for taken in (f"{name}.mkv", f".{name}.mkv.lock")):
            return folder / f"{name}.mkv"
        number += 1
