"""A run that is not there, for the browser view: frames with colours and a time code, and switches."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from velatura.runtime.colour import to_yuv
from velatura.runtime.errors import SinkError
from velatura.runtime.frame import RGB, YUV420P, Colour, Frame
from velatura.runtime.live import Event, LiveStats
from velatura.runtime.web import ViewSink

WIDTH, HEIGHT = 320, 180
PATCHES = ((200, 40, 40), (40, 160, 60), (50, 70, 200), (230, 200, 60))
"""R, G, B of four upright stripes, in the upper two thirds."""
BITS = 16
"""Of the time code in the lowest sixth: milliseconds of the wall clock, the highest bit first."""
CODE = HEIGHT - HEIGHT // 6


def patches(width: int = WIDTH, height: int = HEIGHT, colour: Colour | None = None) -> Frame:
    """Stripes of colour, without a time code."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    for number, patch in enumerate(PATCHES):
        pixels[: height * 2 // 3, number * width // 4 : (number + 1) * width // 4] = patch
    rgb = Frame(planes=(pixels,), format=RGB, pts=0, time_base=Fraction(1, 1000))
    return to_yuv(rgb, YUV420P, colour or Colour())


def with_code(frame: Frame, captured: float) -> Frame:
    """The frame with the wall clock drawn into it, captured at that time of `time.monotonic`."""
    code = round(time.time() * 1e3) % (1 << BITS)
    luma = frame.planes[0].copy()
    for bit in range(BITS):
        lit = code >> (BITS - 1 - bit) & 1
        luma[CODE:, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 235 if lit else 16
    return replace(frame, planes=(luma, *frame.planes[1:]), captured=captured)


class Feeder:
    """Gives a view a frame every `period` seconds, in a thread of its own."""

    def __init__(self, view: ViewSink, *, period: float = 1 / 30, frame: Frame | None = None) -> None:
        self._view, self._period, self._frame = view, period, frame or patches()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._view.write(with_code(self._frame, time.monotonic()))


class FakePanel:
    """Switches that remember what was set."""

    available: tuple[str, ...] = ("starry-night", "the-scream", "wave")

    def __init__(self, folder: Path | None = None, snapshot: Frame | None = None) -> None:
        self.off = False
        self.strength = 1.0
        self.split: float | None = None
        self.models: tuple[str, ...] = ("wave",)
        self.recording: Path | None = None
        self.swapped: list[tuple[str, ...]] = []
        self.during: Callable[[], None] = lambda: None
        self._folder, self._snapshot, self._begin = folder, snapshot, time.monotonic()

    def swap(self, models: Sequence[str]) -> None:
        self.during()
        self.swapped.append(tuple(models))
        self.models = tuple(models)

    def snapshot(self) -> Frame | None:
        return self._snapshot

    def record(self, on: bool) -> Path | None:
        if self._folder is None:
            raise SinkError("this run has no place for recordings: give --record-to FOLDER")
        path = self._folder / "recording-001.mkv"
        self.recording = path if on else None
        return path

    def stats(self) -> LiveStats:
        elapsed = time.monotonic() - self._begin
        return LiveStats(
            elapsed=elapsed, captured=round(elapsed * 30), processed=round(elapsed * 29), passed=2,
            repeated=3, dropped=4, late=5, rung="half size", stages={}, outputs=(),
            events=(Event(0.0, "wave is open"), Event(1.5, "half size: p99 was 41 ms")),
        )  # fmt: skip
