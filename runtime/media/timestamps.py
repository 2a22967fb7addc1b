"""Clock: times and durations of written frames."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame

REORDERED = 512
"""Frames whose times are kept: more than any encoder delays."""


class Clock:
    """The times of written frames, which strictly increase, and the span that they cover."""

    def __init__(self, rate: Fraction) -> None:
        self._step = self._length = 1 / rate
        self._begin: float | None = None
        self._base = Fraction(1)
        self._times: list[int] = []
        self._waiting: list[Packet[Any]] = []
        self.last = -1
        """The last frame's time, in units of its time base."""
        self.end = 0.0
        """Seconds at which the last frame ends."""

    def stamp(
        self, picture: VideoFrame, pts: int, base: Fraction, length: Fraction | None = None
    ) -> None:
        """Give a picture its time, or a tick after the one before where it is not later than that."""
        time = self.pass_by(max(pts, self.last + 1), base, length)
        picture.pts, picture.time_base, self._base = time, base, base
        self._times.append(time)
        if len(self._times) > 2 * REORDERED:
            del self._times[:REORDERED]

    def pass_by(self, pts: int, base: Fraction, length: Fraction | None = None) -> int:
        """Count a frame of that time, which lasts `length` seconds, or a frame's usual length."""
        self.last = pts
        begin = float(pts * base)
        self._length = length or self._step
        self.end = begin + float(self._length)
        self._begin = begin if self._begin is None else self._begin
        return pts

    def timed(self, packets: "Iterable[Packet[Any]]", *, end: bool) -> "Iterator[Packet[Any]]":
        """Yields the packets with their durations; at the `end` all of them.

        A duration is known only from the frame after it, so that the newest picture's packet waits for
        that. The last picture lasts as long as was stated, or as the rate says: without a duration some
        containers show it for no time.
        """
        self._waiting += packets
        while self._waiting:
            packet = self._waiting[0]
            pts = round((packet.pts or 0) * packet.time_base / self._base)
            later = bisect_right(self._times, pts)
            if later < len(self._times):
                length = (self._times[later] - pts) * self._base
            elif end:
                length = self._length
            else:
                return
            packet.duration = round(length / packet.time_base)
            yield self._waiting.pop(0)
        if end:
            self._times = []

    @property
    def duration(self) -> float:
        """Returns the seconds from the first frame's beginning to the last one's end."""
        return self.end - (self._begin or 0.0)
