"""Maker: from what a game gives to the picture that it shows, in the thread that does the work."""

import time
from dataclasses import dataclass, replace
from typing import Protocol

from ..live.latency import Histogram, Percentiles
from .given import Given, Reader
from .painter import Painter
from .picture import Picture, Pictures
from .stats import FINE, LONG

WEIGHT = 0.1
"""Of the newest interval between two frames in their average."""
LONGEST = 0.25
"""Seconds between two frames that count as this many: the game stood still."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A frame that can be shown."""

    given: Given
    picture: Picture
    passed: bool = False
    """Whether it is the given one, unchanged but for its size."""
    carried: bool = False
    """Whether an earlier result stands in, moved."""
    again: bool = False
    """Whether nothing came of it, and the picture before is shown again."""
    spare: Picture | None = None
    """The same pixels in other memory, which are never given away."""


class Making(Protocol):
    """What makes pictures; used in one thread from its beginning to its end."""

    def __call__(self, given: Given) -> Finished: ...

    def close(self) -> None: ...


class Maker:
    """Reads, paints, and lays out. One thread's, but for the figures."""

    def __init__(self, pictures: Pictures, read: Reader, painter: Painter, *, period: float) -> None:
        self._period = period
        self.finished = 0
        """Pictures so far."""
        self._pictures, self._read, self._painter = pictures, read, painter
        self._work = Histogram(FINE, LONG)
        self._before: int | None = None
        """The epoch of the last picture, if that was painted."""

    @property
    def work(self) -> Percentiles:
        """Seconds that a frame took."""
        return self._work.percentiles()

    def came(self, seconds: float) -> None:
        """Hear how long after the one before a frame has come; the game's thread says so."""
        self._period += WEIGHT * (min(seconds, LONGEST) - self._period)

    def __call__(self, given: Given, target: Picture | None = None) -> Finished:
        """The picture to show for it, in `target` or in memory that nobody uses.

        One that passes at its own size is `given.color` itself, where there is no `target`.
        """
        begin = time.perf_counter()
        try:
            made = self._made(given, target)
        except Exception as error:  # a picture must come back, and the thread go on
            self._painter.failed(error)
            made = self._passed(given, target)
        seconds = time.perf_counter() - begin
        self._work.add(seconds)
        self._painter.observe(seconds, period=self._period)
        self.finished += not made.again
        return made

    def close(self) -> None:
        """Let the models go."""
        self._painter.close()

    def _made(self, given: Given, target: Picture | None) -> Finished:
        painter, moves = self._painter, bool(given.vectors)
        if painter.plain(moves=moves):
            painter.forget()
            return self._passed(given, target)
        taken = self._read(given, whole=painter.follows(moves=moves))
        painted = painter(taken.frame)
        if painted.frame is None and painted.late and self._before == given.epoch:
            return Finished(given, given.color, again=True)
        if painted.frame is None:
            return self._passed(given, target)
        self._before = given.epoch
        picture = self._pictures.picture(painted.frame, taken, given.color, target)
        return Finished(given, picture, carried=painted.carried)

    def _passed(self, given: Given, target: Picture | None) -> Finished:
        self._before = None
        scale = self._painter.scale
        size = (given.color.shape[1] * scale, given.color.shape[0] * scale)
        return Finished(given, self._pictures.enlarged(given.color, size, target), passed=True)


class Sparing:
    """Makes pictures that may be shown more than once, though whoever shows them draws into them."""

    def __init__(self, make: Making, pictures: Pictures) -> None:
        self._make, self._pictures = make, pictures

    def __call__(self, given: Given) -> Finished:
        made = self._make(given)
        if made.again:
            return made
        return replace(made, spare=self._pictures.copy(made.picture))

    def close(self) -> None:
        """That of what makes them."""
        self._make.close()
