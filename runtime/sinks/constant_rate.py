"""SteadySink: frames at a constant rate, for sinks that cannot be given times."""

from fractions import Fraction

from ..frame import Frame
from . import Sink

LONGEST = 2
"""Seconds without a frame that are filled with the last one; a longer gap restarts the count."""


class SteadySink(Sink):
    """Repeats or drops frames so that each stands for its time: lost frames do not make the rest
    faster."""

    def __init__(self, sink: Sink, rate: Fraction) -> None:
        """`sink` gets `rate` frames a second, and is closed with this one."""
        self.uri = sink.uri
        self.notes = sink.notes
        self._sink = sink
        self._rate = rate
        self._begin: Fraction | None = None
        self._written = 0

    def write(self, frame: Frame) -> None:
        now = frame.pts * frame.time_base
        if self._begin is None:
            self._begin = now
        due = round((now - self._begin) * self._rate) + 1
        if due - self._written > LONGEST * self._rate:
            self._begin, self._written, due = now, 0, 1
        for _ in range(due - self._written):
            self._sink.write(frame)
        self._written = max(self._written, due)
        self.frames = self._sink.frames

    def close(self) -> None:
        self._sink.close()

    def abort(self) -> None:
        self._sink.abort()
