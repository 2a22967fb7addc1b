"""Frames that Python code makes."""

import time
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import numpy as np

from ..errors import SourceError
from ..frame import GRAY, RGB, Array, Frame, PixelFormat, VideoInfo
from .base import SRGB
from .live import TIME_BASE, LiveSource


class GeneratorSource(LiveSource):
    """Frames of an iterable that runs in a thread of its own: it may wait for as long as it likes."""

    def __init__(
        self,
        frames: Iterable[Frame | Array],
        *,
        rate: Fraction | int | None = None,
        patience: float = 10.0,
        keep: bool = True,
    ) -> None:
        """`frames` are frames, or arrays: (H, W, 3) RGB or (H, W) gray, uint8, or uint16 up to 65535.

        With `rate` the iterable is asked for so many a second, else as soon as one is taken; their
        times are those at which they come. Without `keep` the iterable does not wait for its reader,
        and the newest frame replaces older ones. Raises SourceError for an item of another kind, or the
        iterable's own error.
        """
        super().__init__("generator:", keep=keep)
        if rate is not None and rate <= 0:
            raise SourceError(f"a generator cannot be asked for {rate} frames a second")
        self._frames = frames
        self._rate = Fraction(rate) if rate is not None else None
        self._start(patience)

    def _work(self) -> None:
        begin = time.monotonic()
        for index, item in enumerate(self._frames):
            due = time.monotonic()
            if self._rate is not None:
                if index == 0:
                    begin = due
                due = begin + float(index / self._rate)
                if self._pause(due - time.monotonic()):
                    return
            if self._closing.is_set():
                return
            frame = _framed(item)
            if not self._begun.is_set():
                self._describe(frame)
            self._put(
                replace(frame, pts=self._ticks(due), time_base=TIME_BASE, captured=due, index=index)
            )

    def _describe(self, frame: Frame) -> None:
        self.info = VideoInfo(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            rate=self._rate or Fraction(30),
            time_base=TIME_BASE,
            colour=frame.colour,
            aspect=frame.aspect,
            rotation=frame.rotation,
            alpha=frame.alpha is not None,
            codec="generator",
            notes=() if self._rate else ("no rate stated: taken as 30 frames a second",),
        )
        self._opened()


def _framed(item: Any) -> Frame:
    if isinstance(item, Frame):
        return item
    if not isinstance(item, np.ndarray):
        raise SourceError(f"the generator gave a {type(item).__name__}, not a Frame or an array")
    if item.dtype not in (np.uint8, np.uint16) or not (
        item.ndim == 2 or (item.ndim == 3 and item.shape[2] == 3)
    ):
        raise SourceError(
            f"the generator gave an array of {item.shape} {item.dtype}; frames are (H, W, 3) or (H, W) "
            "of uint8 or uint16"
        )
    bits = 8 if item.dtype == np.uint8 else 16
    format = PixelFormat(GRAY.family if item.ndim == 2 else RGB.family, bits)
    return Frame(planes=(cast("Array", item),), format=format, pts=0, time_base=TIME_BASE, colour=SRGB)
