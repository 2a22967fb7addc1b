"""Play: a game's loop, a frame for each refresh of a display that is not there."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from .mark import Floats, Pixels
from .pacing import Block
from .scene import Picture, Scene

SPIN = 3e-4
"""Seconds before a refresh in which the clock is watched: a sleeping thread wakes late by so much."""


class Clock(Protocol):
    """Seconds, and waiting for them."""

    def now(self) -> float:
        """Seconds since some time."""
        ...

    def own(self) -> float:
        """Seconds that this thread was on a processor."""
        ...

    def wait(self, until: float) -> None:
        """Return at that time, or at once when it is over."""
        ...


class WallClock:
    """The machine's."""

    def now(self) -> float:
        return time.perf_counter()

    def own(self) -> float:
        return time.thread_time()

    def wait(self, until: float) -> None:
        rest = until - SPIN - time.perf_counter()
        if rest > 0:
            time.sleep(rest)
        while time.perf_counter() < until:
            time.sleep(0)  # other threads of the process may have the interpreter meanwhile


@dataclass(frozen=True, slots=True)
class Account:
    """What a stage says of the picture that it gave last."""

    behind: int = 0
    """Frames that it is behind the one that went in."""
    kind: str = ""
    """Fresh, or something that stands in for it."""
    rung: str = ""


class Pass(ABC):
    """What is done to a picture before it is shown."""

    @abstractmethod
    def __call__(self, picture: Picture) -> Pixels:
        """The picture that is shown."""

    @abstractmethod
    def account(self) -> Account:
        """Of the last one."""


class Bare(Pass):
    """A game without the stage."""

    def __call__(self, picture: Picture) -> Pixels:
        return picture.color

    def account(self) -> Account:
        return Account()


class _Note(NamedTuple):
    """Of a frame, what cannot be known later."""

    start: float
    end: float
    call: float
    own: float
    shown: float
    strip: Floats
    account: Account


def play(
    scene: Scene,
    last: Pass,
    *,
    skip: int,
    seconds: float,
    period: float,
    clock: Clock,
    since: float = 0.0,
) -> Block:
    """Play `skip` frames that do not count, and then for so long, but two frames at least.

    The scene is at `since` seconds in the beginning. As with vertical synchronisation, a picture is
    shown by the first refresh after it is finished, and then the next frame begins, which simulates the
    time at which it does. What is seen is read from the picture itself; where nothing can be read, it
    is what the stage says.
    """
    scene.begin()
    notes: list[_Note] = []
    refresh, until = 0, math.inf
    begin = clock.now()
    while len(notes) < skip + 2 or refresh * period < until:
        if len(notes) == skip:
            # Half a period off: sums of periods are not exact.
            until = (refresh - 0.5) * period + seconds
        start = clock.now() - begin
        own = clock.own()
        drawn = scene.draw(since + start)
        call = clock.now()
        picture = last(drawn)
        call = clock.now() - call
        own = clock.own() - own
        end = clock.now() - begin
        refresh = max(refresh + 1, math.ceil(end / period))
        # On no account: a game does not do this.
        strip, account = scene.mark.strip_of(picture), last.account()
        notes.append(_Note(start, end, call, own, refresh * period, strip, account))
        clock.wait(begin + refresh * period)
    marks = [scene.mark.frame_of(note.strip, n) for n, note in enumerate(notes)]
    told = [n - note.account.behind for n, note in enumerate(notes)]
    chosen = [mark if mark is not None else tell for mark, tell in zip(marks, told, strict=True)]
    # What is seen at first may be of the block before: that does not count.
    seen = np.maximum(np.array(chosen, np.int64), 0)
    start = np.array([note.start for note in notes])
    ahead = np.maximum(seen - np.arange(len(seen)), 0)
    return Block(
        period=period,
        skip=skip,
        start=start,
        end=np.array([note.end for note in notes]),
        call=np.array([note.call for note in notes]),
        own=np.array([note.own for note in notes]),
        shown=np.array([note.shown for note in notes]),
        seen=seen,
        simulated=start[seen - ahead] + ahead * period,
        read=np.array([mark is not None for mark in marks]),
        kinds=tuple(note.account.kind for note in notes),
        rungs=tuple(note.account.rung for note in notes),
    )
