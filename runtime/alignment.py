"""How the frames and the sound of two files lie over each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal

import numpy as np

from .tracks import Track, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How one list of frame times differs from another."""

    missing: tuple[float, ...] = ()
    """Wanted times, in seconds after the first frame, at which nothing is shown."""
    extra: tuple[float, ...] = ()
    """Times at which a frame is shown that was not wanted."""
    kind: Literal["none", "speed", "even", "moved"] = "none"
    """For lists of one length. `speed`: all times are stretched. `even`: varying steps became equal.
    `moved`: anything else."""
    stretch: float = 0.0
    """For `speed`: by how much longer everything takes, as a fraction."""
    clock: float = 0.0
    """Seconds by which the given list lies later as a whole; all other fields count without it."""
    worst: float = 0.0
    """The largest difference of a frame's time, in seconds; positive is later."""
    index: int = 0
    """The first frame that differs by more than the tolerance."""

    @property
    def none(self) -> bool:
        """Whether every frame is there, and at its time."""
        return self.kind == "none" and not self.missing and not self.extra

    def losses(self) -> str:
        """In words, which frames are missing or too many; empty where none is."""
        parts = [
            f"{len(times)} {word}, the first at {times[0]:.3f} s"
            for times, word in ((self.missing, "missing"), (self.extra, "too many"))
            if times
        ]
        return "; ".join(parts)

    def moves(self) -> str:
        """In words, how times moved; empty where they did not."""
        if self.missing and self.extra:
            return "frames are shown at other times than they were meant to"
        if self.kind == "none":
            return ""
        way = "late" if self.worst > 0 else "early"
        if self.kind == "speed":
            slower = "slower" if self.stretch > 0 else "faster"
            return (
                f"the video runs {abs(self.stretch):.2%} {slower}, and comes to be "
                f"{abs(self.worst) * 1e3:.0f} ms {way}"
            )
        moved = f"some frames, the first {self.index}, are up to {abs(self.worst) * 1e3:.0f} ms {way}"
        if self.kind == "even":
            return f"the varying frame rate became a constant one: {moved}"
        return moved


def compare_times(
    wanted: Values, given: Values, tolerance: float, *, clock: float | None = None
) -> Shift:
    """Compare two ordered lists of seconds, neither empty; `tolerance` seconds are no difference.

    `clock` is by how much the given list lies later as a whole, if that is known from elsewhere: it
    tells which frame is missing where all are equally far apart.
    """
    if len(wanted) != len(given):
        clocks = [float(given[end] - wanted[end]) for end in (0, -1)]
        return _align(wanted, given, tolerance, clocks if clock is None else [clock, *clocks])
    late = given - wanted
    # Most frames stand right, so that the median tells where one list begins in the other.
    middle = float(np.median(late))
    moved = late - middle
    far = np.abs(moved) > tolerance
    if not far.any():
        return Shift(clock=middle)
    stretch = _slope(wanted, late)
    if len(wanted) > 2 and np.abs(late - late[0] - stretch * (wanted - wanted[0])).max() <= tolerance:
        return Shift(
            kind="speed", clock=float(late[0]), stretch=stretch, worst=float(late[-1] - late[0])
        )
    # A step is the difference of two rounded times.
    varied, varies = np.ptp(np.diff(wanted)), np.ptp(np.diff(given))
    return Shift(
        kind="even" if varies <= tolerance < varied else "moved",
        clock=middle,
        worst=float(moved[np.argmax(np.abs(moved))]),
        index=int(np.argmax(far)),
    )


def _slope(times: Values, late: Values) -> float:
    """The slope of the straight line that fits best."""
    centred = times - times.mean()
    return float(centred @ (late - late.mean()) / max(float(centred @ centred), 1e-12))


def _align(wanted: Values, given: Values, tolerance: float, clocks: list[float]) -> Shift:
    """Lay the lists over each other by the clock that fits best, the first of equals."""
    fits: list[Shift] = []
    for clock in clocks:
        missing, extra = _unmatched(wanted, given - clock, tolerance)
        fits.append(Shift(missing=missing, extra=extra, clock=clock))
    return min(fits, key=lambda fit: len(fit.missing) + len(fit.extra))


def _unmatched(
    wanted: Values, given: Values, tolerance: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What of each list has no partner in the other, in seconds after the first that is wanted."""
    missing: list[float] = []
    extra: list[float] = []
    i = j = 0
    while i < len(wanted) and j < len(given):
        gap = given[j] - wanted[i]
        if abs(gap) <= tolerance:
            i, j = i + 1, j + 1
        elif gap > 0:
            missing.append(float(wanted[i]))
            i += 1
        else:
            extra.append(float(given[j]))
            j += 1
    start = float(wanted[0])
    missing += wanted[i:].tolist()
    extra += given[j:].tolist()
    return tuple(time - start for time in missing), tuple(time - start for time in extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """From where two tracks are compared, in seconds, and with how many packets from there.

    What is not played, such as an encoder's priming, is counted by some containers and programs and
    left out by others: a track begins at its first packet, or at the first that is played.
    """

    wanted_start: float
    wanted_packets: int
    given_start: float
    given_packets: int


def match_tracks(wanted: Track, given: Track, clock: float, *, near: float) -> Match:
    """The way of counting that explains most of what was given, whose times are `clock` seconds later.

    One of equal counts that starts within `near` seconds; else every packet of both, if those are as
    many; else the one that starts nearest.
    """
    ways = [
        Match(wanted_start=begin, wanted_packets=count, given_start=start, given_packets=number)
        for begin, count in ((wanted.start, wanted.packets), (wanted.heard, wanted.played))
        for start, number in ((given.start, given.packets), (given.heard, given.played))
    ]

    def distance(way: Match) -> float:
        return abs(way.given_start - way.wanted_start - clock)

    equal = [w for w in ways if w.wanted_packets == w.given_packets or not is_counted(wanted)]
    best = min(equal, key=distance, default=None)
    if best is not None and distance(best) <= near:
        return best
    return ways[0] if ways[0] in equal else min(ways, key=distance)


def is_counted(track: Track) -> bool:
    """Whether its packets can be counted: uncompressed sound is cut as each container likes."""
    return not track.codec.startswith(("pcm_", "adpcm_"))


def is_same(wanted: Track, given: Track) -> bool:
    """Whether two tracks are of one codec. MP4 has one code for all layers of MPEG audio."""
    alike = {"mp1", "mp2", "mp3"}
    return wanted.codec in (given.codec, "unknown") or {wanted.codec, given.codec} <= alike


def pair_tracks(wanted: list[Track], given: list[Track]) -> Iterator[tuple[int, Track, Track]]:
    """(number from 1, wanted, given) of tracks of one kind, in order.

    Where some are missing, those are left out without which the others agree best.
    """

    def agreement(numbers: tuple[int, ...]) -> int:
        pairs = zip((wanted[n] for n in numbers), given, strict=False)
        return sum(
            is_same(a, b) * (1 + bool({a.packets, a.played} & {b.packets, b.played})) for a, b in pairs
        )

    count = min(len(wanted), len(given))
    # A file has few streams; one with very many must not take for ever.
    choices = islice(combinations(range(len(wanted)), count), 10_000)
    for number, other in zip(max(choices, key=agreement), given, strict=False):
        yield number + 1, wanted[number], other
