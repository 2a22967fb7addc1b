"""How a game's frames are paced: its loop, a frame for each refresh of a simulated display, and the
figures of their times, by the definitions that comparisons of games use."""

import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .scene import Floats, Picture, Pixels, Scene

Times = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
STUTTER = 1.5
"""The factor by which a picture must be shown longer than usual to count as a stutter."""
USUAL = 30
"""Preceding pictures whose median duration is the usual one."""

Spent = Literal["busy", "call", "own"]
_COSTS: tuple[tuple[Spent, float], ...] = (
    ("busy", 50.0), ("busy", 95.0), ("busy", 99.0), ("call", 50.0), ("own", 50.0),
)  # fmt: skip

DEFINITIONS = {
    "frames": "frames that count: all but the first ones of each turn, in which things settle",
    "frame_ms": "from one frame's beginning to the next one's, on the game's thread; percentiles are "
    "interpolated linearly",
    "fps": "frames over the sum of their times",
    "low_1_percent_fps": "1 over the mean of the slowest hundredth of frame times, at least one",
    "low_01_percent_fps": "the same of the slowest thousandth",
    "busy_ms": "from a frame's beginning until its picture is finished, without waiting for a refresh",
    "call_ms": "the part of busy_ms in which the stage was called",
    "own_ms": "the processor time of the game's thread within busy_ms",
    "missed_refreshes": "refreshes of the display that came before the next picture was finished",
    "stutters": f"pictures that stood {STUTTER} times as long as the median of the {USUAL} before",
    "behind_frames": "how many frames what is seen is behind what the game has just drawn",
    "latency_ms": "from the time that a picture's frame simulated until the refresh that shows it",
    "animation_error_ms": "how far the step between two pictures' simulated times is from the step "
    "between the refreshes that show them, as PresentMon defines it",
}
"""The meaning of a report's numbers, by their keys in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive frames of one turn: arrays (N,), times in seconds since the block began."""

    period: float
    """Seconds between two refreshes of the display."""
    skip: int
    """Frames at the beginning, one at least, that are not counted, while the loop settles."""
    start: Times
    """The time at which the game began the frame, which is also the time that it simulated."""
    end: Times
    """The time at which its picture was finished."""
    call: Times
    """Seconds of that spent in the stage."""
    own: Times
    """Seconds of the game's thread on a processor, between start and end."""
    shown: Times
    """The refresh that showed the picture."""
    seen: Counts
    """The frame that the picture shows."""
    simulated: Times
    """The simulated time of this frame."""
    read: "npt.NDArray[np.bool_]"
    """True if that frame was read from the picture; False if it is the stage's statement."""
    kinds: tuple[str, ...]
    """The kind of each picture: fresh or a replacement."""
    rungs: tuple[str, ...]
    """The rung on which each picture was made."""

    @property
    def frame_times(self) -> Times:
        """Seconds from the beginning of a frame to the next one's; one fewer than there are frames."""
        return np.diff(self.start)[self.skip - 1 :]

    @property
    def busy(self) -> Times:
        """Seconds that the game was at work on each frame."""
        return (self.end - self.start)[self.skip :]

    def spent(self, what: Spent) -> Times:
        """Seconds of each frame: at work, in the stage, or on a processor."""
        return self.busy if what == "busy" else getattr(self, what)[self.skip :]

    @property
    def stood(self) -> Times:
        """Seconds for which each picture was shown."""
        return np.diff(self.shown)[self.skip - 1 :]

    @property
    def missed(self) -> int:
        """Refreshes without a new picture."""
        return int((np.rint(self.stood / self.period) - 1).sum())

    @property
    def behind(self) -> Counts:
        """Frames that each picture is behind the one just drawn."""
        return (np.arange(len(self.seen)) - self.seen)[self.skip :]

    @property
    def latency(self) -> Times:
        """Seconds from the simulated time that is seen to the refresh that shows it."""
        return (self.shown - self.simulated)[self.skip :]

    @property
    def animation_errors(self) -> Times:
        """Seconds by which each step on the display differs from the simulation's step."""
        return np.abs(np.diff(self.simulated) - np.diff(self.shown))[self.skip - 1 :]


@dataclass(frozen=True, slots=True)
class Pacing:
    """The timing of a loop over several blocks."""

    blocks: tuple[Block, ...]

    def all(self, name: str) -> "npt.NDArray[Any]":
        """Returns one of the blocks' arrays, of all blocks in a row."""
        return np.concatenate([getattr(block, name) for block in self.blocks])

    def counted(self, name: str) -> "npt.NDArray[Any]":
        """Returns an array with an entry for every frame, of all blocks, without the frames that are
        not counted."""
        return np.concatenate([getattr(block, name)[block.skip :] for block in self.blocks])

    def count(self, what: Literal["kinds", "rungs"]) -> dict[str, int]:
        """Returns the number of pictures of each kind or rung."""
        return dict(Counter(one for block in self.blocks for one in getattr(block, what)[block.skip :]))

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by their names in `DEFINITIONS`, durations in milliseconds."""
        times, behind = self.all("frame_times"), self.all("behind")
        errors = self.all("animation_errors")
        return {
            "frames": len(times),
            "fps": round(len(times) / float(times.sum()), 2),
            "low_1_percent_fps": round(low(times, 0.01), 2),
            "low_01_percent_fps": round(low(times, 0.001), 2),
            "frame_ms": percentiles(times),
            "busy_ms": percentiles(self.all("busy")),
            "call_ms": percentiles(self.counted("call")),
            "own_ms": percentiles(self.counted("own")),
            "missed_refreshes": sum(block.missed for block in self.blocks),
            "stutters": sum(stutters(block.stood) for block in self.blocks),
            "behind_frames": {
                "mean": round(float(behind.mean()), 3),
                "p50": float(np.median(behind)),
                "max": int(behind.max()),
            },
            "latency_ms": percentiles(self.all("latency")),
            "animation_error_ms": {
                "mean": _ms(errors.mean()),
                "p99": _ms(np.percentile(errors, 99)),
                "max": _ms(errors.max()),
            },
        }


def percentiles(seconds: Times) -> dict[str, float]:
    """Returns mean and `PERCENTILES`, interpolated linearly, in milliseconds."""
    found = np.percentile(seconds, list(PERCENTILES.values()))
    return {"mean": _ms(seconds.mean()), **dict(zip(PERCENTILES, map(_ms, found), strict=True))}


def low(frame_times: Times, part: float) -> float:
    """Returns the frames per second of the slowest `part` of the frames: 1 over the mean of their
    times."""
    count = max(1, math.ceil(part * len(frame_times)))
    return 1.0 / float(np.sort(frame_times)[-count:].mean())


def stutters(stood: Times) -> int:
    """Returns the number of pictures that were shown `STUTTER` times as long as the `USUAL` before; the
    first ones have fewer before them."""
    usual = [float(np.median(stood[max(0, n - USUAL) : n])) for n in range(1, len(stood))]
    return int((stood[1:] > STUTTER * np.array(usual)).sum())


def cost(with_stage: Sequence[Block], without: Sequence[Block]) -> dict[str, Any]:
    """Returns what the stage adds to the time that the game's thread takes for a frame, in
    milliseconds.

    `busy_p50`, `busy_p95`, `busy_p99`, `call_p50` and `own_p50` are differences of two loops' figures
    in each round: median, lowest and highest over the rounds. A round's blocks follow each other, under
    the same load of the machine. The game's other work, and other programs, make `busy` differ by up to
    a tenth of a millisecond by themselves: `call` contains less of that, and `own` hardly any of other
    programs.
    """
    found: dict[str, Any] = {"rounds": len(with_stage)}
    for what, at in _COSTS:
        each = [
            float(np.percentile(one.spent(what), at) - np.percentile(other.spent(what), at))
            for one, other in zip(with_stage, without, strict=True)
        ]
        found[f"{what}_p{at:g}"] = {
            "median": _ms(np.median(each)),
            "lowest": _ms(min(each)),
            "highest": _ms(max(each)),
        }
    return found


def _ms(seconds: Any) -> float:
    return round(float(seconds) * 1e3, 4)


SPIN = 3e-4
"""Seconds before a refresh in which the clock is polled: a sleeping thread wakes late by so much."""


class Clock(Protocol):
    """A clock in seconds, with waiting."""

    def now(self) -> float:
        """Returns the seconds since some fixed time."""
        ...

    def own(self) -> float:
        """Returns the seconds that this thread was on a processor."""
        ...

    def wait(self, until: float) -> None:
        """Return at that time, or at once when it has passed."""
        ...


class WallClock:
    """The machine's clock."""

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
    """A stage's statement about the picture that it gave last."""

    behind: int = 0
    """Frames by which the picture is behind the one that went in."""
    kind: str = ""
    """The kind of picture: fresh, or what replaces it."""
    rung: str = ""


class Pass(ABC):
    """The last pass over a picture before it is shown."""

    @abstractmethod
    def __call__(self, picture: Picture) -> Pixels:
        """Returns the picture that is shown."""

    @abstractmethod
    def account(self) -> Account:
        """Returns the statement about the last picture."""


class Bare(Pass):
    """A game without the stage: pictures pass unchanged."""

    def __call__(self, picture: Picture) -> Pixels:
        return picture.color

    def account(self) -> Account:
        return Account()


class _Note(NamedTuple):
    """The facts about a frame that must be recorded while it runs."""

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
    """Play `skip` frames that are not counted, and then for `seconds`, but two frames at least.

    The scene starts at `since` seconds. As with vertical synchronisation, a picture is shown by the
    first refresh after it is finished, and then the next frame begins, which simulates the time at
    which it does. The frame that is seen is read from the picture itself; where it cannot be read, it
    is the one that the stage states.
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
        # Outside of the measurement: a game does not do this.
        strip, account = scene.mark.strip_of(picture), last.account()
        notes.append(_Note(start, end, call, own, refresh * period, strip, account))
        clock.wait(begin + refresh * period)
    marks = [scene.mark.frame_of(note.strip, n) for n, note in enumerate(notes)]
    told = [n - note.account.behind for n, note in enumerate(notes)]
    chosen = [mark if mark is not None else tell for mark, tell in zip(marks, told, strict=True)]
    # The first picture seen may be of the block before: it does not count.
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
