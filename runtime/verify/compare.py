"""The output contract: a written file is read again and compared with its expected contents.

Every difference that a viewer could notice is a mismatch. The tolerances are what containers round, and
no more; each states its reason.

Also the alignment of two files' frames and sound.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Literal

import numpy as np

from ..colour import MATRICES, guess_matrix
from ..errors import ContractError, SourceError
from ..media.passthrough import can_hold
from ..media.tracks import Track, Values
from .expected import COPIED_SYNC, PADDING, Promise, Tally, range_of
from .inspect import Found, inspect
from .picture import Film, Likeness, Verdict, compare_pictures

__all__ = [
    "Check",
    "ContractError",
    "Film",
    "Found",
    "Kind",
    "Likeness",
    "Promise",
    "Shown",
    "Tally",
    "check",
    "check_shown",
    "compare",
    "doubtful",
    "examine",
    "inspect",
    "require",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """The difference between two lists of frame times."""

    missing: tuple[float, ...] = ()
    """Expected times, in seconds after the first frame, at which nothing is shown."""
    extra: tuple[float, ...] = ()
    """Times at which an unexpected frame is shown."""
    kind: Literal["none", "speed", "even", "moved"] = "none"
    """The kind of change, for lists of one length. `speed`: all times are stretched. `even`: varying
    steps became equal. `moved`: anything else."""
    stretch: float = 0.0
    """The fraction, for `speed`, by which everything takes longer."""
    clock: float = 0.0
    """Seconds by which the given list is later as a whole; all other fields are relative to it."""
    worst: float = 0.0
    """The largest difference of a frame's time, in seconds; positive is later."""
    index: int = 0
    """The first frame that differs by more than the tolerance."""

    @property
    def none(self) -> bool:
        """True if every frame is there, and at its time."""
        return self.kind == "none" and not self.missing and not self.extra

    def losses(self) -> str:
        """Returns words that say which frames are missing or too many; empty where none is."""
        parts = [
            f"{len(times)} {word}, the first at {times[0]:.3f} s"
            for times, word in ((self.missing, "missing"), (self.extra, "too many"))
            if times
        ]
        return "; ".join(parts)

    def moves(self) -> str:
        """Returns words that say how times moved; empty where they did not."""
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
    """Returns the slope of the straight line that fits best."""
    centred = times - times.mean()
    return float(centred @ (late - late.mean()) / max(float(centred @ centred), 1e-12))


def _align(wanted: Values, given: Values, tolerance: float, clocks: list[float]) -> Shift:
    """Aligns the lists by the clock offset that fits best, the first of equals."""
    fits: list[Shift] = []
    for clock in clocks:
        missing, extra = _unmatched(wanted, given - clock, tolerance)
        fits.append(Shift(missing=missing, extra=extra, clock=clock))
    return min(fits, key=lambda fit: len(fit.missing) + len(fit.extra))


def _unmatched(
    wanted: Values, given: Values, tolerance: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the times in each list without a partner in the other, in seconds after the first
    expected one."""
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
    """The ranges in which two tracks are compared: a start in seconds and a count of packets for each.

    Packets that are not played, such as an encoder's priming, are counted by some containers and
    programs and left out by others: a track begins at its first packet, or at the first that is played.
    """

    wanted_start: float
    wanted_packets: int
    given_start: float
    given_packets: int


def match_tracks(wanted: Track, given: Track, clock: float, *, near: float) -> Match:
    """Returns the way of counting that explains most of the given track, whose times are `clock`
    seconds later.

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
    """Returns whether its packets can be counted: containers cut uncompressed sound differently."""
    return not track.codec.startswith(("pcm_", "adpcm_"))


def is_same(wanted: Track, given: Track) -> bool:
    """Returns whether two tracks are of one codec. MP4 has one code for all layers of MPEG audio."""
    alike = {"mp1", "mp2", "mp3"}
    return wanted.codec in (given.codec, "unknown") or {wanted.codec, given.codec} <= alike


PRIMING = 0.1
"""Seconds by which sound that was converted may be longer: WMA's packets do not count what its decoder
holds back, which are 93 ms at 44.1 kHz."""

CONVERTED = frozenset({"aac", "opus", "flac"})
"""Codecs that a run makes of sound that a file cannot hold (`media.passthrough.SOUND`)."""


def pair_tracks(wanted: list[Track], given: list[Track]) -> Iterator[tuple[int, Track, Track]]:
    """Yields (number from 1, wanted, given) for tracks of one kind, in order.

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


TIME = 0.0021
"""Seconds by which a frame's time may differ: Matroska and FLV round to 1 ms, the source's container
may have done so, too, and both times are counted from a first one that was rounded as well."""
BEGIN = 0.1
"""Seconds by which a file may begin later: Matroska moves all streams until none begins before zero,
and an encoder's priming is at most 80 ms (Opus)."""
ASPECT = 0.01
"""Relative difference of pixel aspects: Matroska stores a displayed size in whole pixels."""
SOUND = 0.05
"""Seconds by which a track's length may differ: MP4 cuts the last packet to its last sample, others
count it whole; AAC's 1024 samples last 46 ms at 22 kHz. Tracks of longer packets may differ by the
longest of them."""
SILENT = frozenset({"mpegts", "mpeg", "flv", "live_flv", "avi"})
"""Containers that cannot state the last frame's duration: only its presence can be checked."""
LONGEST_PACKET = 0.25
"""Seconds above which a packet no longer excuses a missing end."""

SDR_PRIMARIES = frozenset({1, 2, 5, 6})
"""BT.709, unspecified, both of BT.601: players take these for one another where a file is silent."""
SDR_TRANSFERS = frozenset({1, 2, 4, 5, 6, 13, 14, 15})
"""Transfer functions that players take for one another: BT.709, BT.601, plain gammas, sRGB, and
BT.2020's for SDR."""
UNSPECIFIED = 2

Kind = Literal[
    "unreadable", "truncated", "frames", "times", "speed", "begin", "duration", "size", "aspect",
    "rotation", "matrix", "range", "primaries", "transfer", "tail", "pictures", "stream", "codec",
    "packets", "offset", "chapters", "picture", "levels", "colours", "order", "side data",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One compared property, in words for display."""

    kind: Kind
    where: str
    """`file`, `video`, or a kind of stream with its number among its kind, from 1."""
    promised: str
    found: str
    holds: bool
    meaning: str
    """The consequence of a difference for a viewer of the file."""

    def __str__(self) -> str:
        return f"{self.where}, {self.kind}: {self.found} instead of {self.promised} ({self.meaning})"


def compare(promise: Promise, found: Found) -> tuple[Check, ...]:
    """Returns every part of the promise that a file breaks; empty where all holds."""
    return tuple(check for check in examine(promise, found) if not check.holds)


def check(promise: Promise, path: str | Path, *, deep: bool = False) -> tuple[Check, ...]:
    """Reads a file and returns the comparison with the promise; `deep` decodes all its frames.

    In some streams packets are not frames (fields, hidden frames, open groups): where they disagree
    with the promise, all frames are decoded before anything is called broken.
    """
    return _read(promise, path, deep=deep)[0]


def _read(promise: Promise, path: str | Path, *, deep: bool) -> tuple[tuple[Check, ...], Found | None]:
    """Returns what `check` does, and what the file holds; None where it cannot be read."""
    try:
        found = inspect(path, deep=deep)
        checks = examine(promise, found)
        if not deep and doubtful(checks):
            found = inspect(path, deep=True)
            checks = examine(promise, found)
    except SourceError as error:
        return (
            Check("unreadable", "file", "a video", str(error), False, "no player will show it"),
        ), None
    return checks, found


def check_shown(
    promise: Promise, source: Found, path: str | Path, *, deep: bool = False
) -> tuple[Check, ...]:
    """Returns what `check` does, and whether the file shows what its source does."""
    checks, found = _read(promise, path, deep=deep)
    if found is None:
        return checks
    shift = _shown(promise, found)[1]
    # A rotation that is lost is told once.
    lies = any(one.kind == "rotation" and not one.holds for one in checks)
    verdicts = compare_pictures(
        Film.of(source),
        Film.of(found),
        clock=shift.clock,
        tolerance=TIME + _grid(promise, found),
        deep=deep,
        upright=not lies,
    )
    return (*checks, *map(_as_check, verdicts))


def _as_check(one: Verdict) -> Check:
    return Check(one.kind, "picture", "as the source's", one.found, one.holds, one.meaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a file that was just written must show."""

    source: Film
    likeness: Likeness
    start: float
    """Seconds on the source's clock that are 0 in the file."""


FEW = 6
"""Frames that are decoded of a short run's source and output, to compare them."""
SHARE = 75
"""One frame in so many is decoded beyond that. All of it takes 0.08 s of a 720p film, and 1.7 to 3 % of
the CPU time of runs of 2 to 4 s without any model; next to a model it is nothing."""


def require(
    promise: Promise,
    path: str | Path,
    *,
    frames: int | None = None,
    name: str | Path | None = None,
    shown: Shown | None = None,
) -> None:
    """Read a file that was just written. Raises ContractError, which names every mismatch.

    `frames` is how many went to the encoder, which must have kept them all; `name` is what the file is
    called in the error; `shown` is what a few of its frames are compared with.
    """
    read, found = _read(promise, path, deep=False)
    checks = list(read)
    wanted, coded = str(frames), len(promise.times)
    if frames not in (None, coded):
        checks.append(Check("frames", "encoder", wanted, str(coded), False, "it dropped or added some"))
    if shown is not None and found is not None:
        verdicts = compare_pictures(
            shown.source,
            Film.of(found),
            clock=found.begin - promise.begin - shown.start,
            tolerance=TIME + _grid(promise, found),
            likeness=shown.likeness,
            budget=FEW + coded // SHARE,
            upright=promise.rotation is not None,
        )
        checks += map(_as_check, verdicts)
    broken = [check for check in checks if not check.holds]
    if broken:
        raise ContractError(
            f"{name or path} was written but does not hold what was meant: "
            f"{'; '.join(map(str, broken))}"
        )


def doubtful(checks: Sequence[Check]) -> bool:
    """Returns whether decoding every frame might show that a file is good after all."""
    kinds = ("frames", "times", "speed", "tail", "offset")
    return any(not check.holds and check.kind in kinds for check in checks)


def examine(promise: Promise, found: Found) -> tuple[Check, ...]:
    """Returns the comparison part by part, with the parts that hold."""
    parts = (_timing, _geometry, _colours, _side_data, _decoding, _tracks, _beside)
    checks = [check for part in parts for check in part(promise, found)]
    losses = ("frames", "tail", "pictures", "stream", "packets", "duration")
    if found.cut and any(not check.holds and check.kind in losses for check in checks):
        meaning = "the file lost its end, or a part, after it was written"
        checks.insert(0, Check("truncated", "file", "a whole file", found.cut, False, meaning))
    return tuple(checks)


def _side_data(promise: Promise, found: Found) -> Iterator[Check]:
    for name in sorted(promise.states):
        there = name in found.states
        meaning = "players show the picture as if there were none"
        yield Check("side data", "video", name, name if there else f"no {name}", there, meaning)


def _timing(promise: Promise, found: Found) -> Iterator[Check]:
    times, shift = _shown(promise, found)
    wanted, given = len(promise.times), len(times)
    yield Check("frames", "video", str(wanted), str(given), wanted == given, shift.losses())
    if not found.timed:
        return
    # With frames missing, the others must at least be shown at their expected times.
    moved = shift.kind != "none" or bool(shift.missing and shift.extra)
    yield Check(
        "speed" if shift.kind == "speed" else "times",
        "video",
        f"{promise.times[0] - promise.begin:.3f} to {promise.times[-1] - promise.begin:.3f} s",
        f"{times[0] - found.begin:.3f} to {times[-1] - found.begin:.3f} s",
        not moved,
        shift.moves(),
    )
    if promise.begins and found.container.startswith(("mov", "matroska")):
        yield Check(
            "begin",
            "file",
            f"{promise.begins[-1]:.3f} s",
            f"{found.begin:.3f} s",
            any(abs(found.begin - begin) <= BEGIN for begin in promise.begins),
            "players show nothing before that time, or count from it",
        )
    # Few say how long the last frame stands; elsewhere it is guessed from the others.
    slack = float(np.diff(promise.times).max(initial=promise.duration / wanted))
    early = found.duration < promise.duration
    wanted_end = promise.duration
    if found.container in SILENT and early:
        wanted_end = min(wanted_end, float(promise.times[-1] - promise.times[0]))
    yield Check(
        "duration",
        "video",
        f"{promise.duration:.3f} s",
        f"{found.duration:.3f} s",
        abs(found.duration - wanted_end) <= slack + TIME + _grid(promise, found),
        "the picture ends early" if early else "the last picture stands too long",
    )


def _shown(promise: Promise, found: Found) -> tuple[Values, Shift]:
    """Returns the file's frame times, by its packets or by its decoded frames, whichever fits
    better."""
    tolerance = TIME + _grid(promise, found)
    candidates = [found.times]
    if found.pictures is not None and len(found.pictures):
        candidates.append(found.pictures)
    clock = found.begin - promise.begin
    compared = [
        (times, compare_times(promise.times, times, tolerance, clock=clock)) for times in candidates
    ]
    compared.sort(key=lambda pair: (not pair[1].none, len(pair[0]) != len(promise.times)))
    return compared[0]


def _grid(promise: Promise, found: Found) -> float:
    """Returns one frame's length for AVI, else 0: AVI counts frames in place of times and stores no
    order of display, and either may shift times by a frame."""
    span = float(promise.times[-1] - promise.times[0])
    return span / max(len(promise.times) - 1, 1) if found.container == "avi" else 0.0


def _geometry(promise: Promise, found: Found) -> Iterator[Check]:
    width, height, rotation = promise.width, promise.height, promise.rotation or 0
    fits, kept = promise.fits(found), found.rotation == rotation
    turned = promise.scalable and not kept and found.rotation == 0
    if turned and rotation in (90, 270):
        turned = promise.fits(found, turned=True)
    if turned and fits:
        turned = promise.turned_in(found)
    if turned and rotation in (90, 270):
        width, height = height, width
    same = promise.aspect is None or abs(float(found.aspect / promise.aspect) - 1) <= ASPECT
    x, y = found.width / width, found.height / height
    scale = f"{x:.4g}x" if abs(x - y) * width <= PADDING else f"{x:.4g}x{y:.4g}"
    yield Check(
        "size",
        "video",
        f"{width}x{height}{', or a scale of it' if promise.scalable else ''}",
        f"{found.width}x{found.height}{f', {scale}' if promise.scalable else ''}",
        # Where pixels of another shape are to blame, the next check says so.
        fits or turned or (promise.scalable and not same),
        "the picture is cropped, padded or of another shape",
    )
    if promise.aspect is not None:
        # Other pixels are no fault where the size makes up for them.
        squared = promise.scalable and (fits or turned)
        wanted, given = f"pixels {promise.aspect}", f"pixels {found.aspect}"
        meaning = "the picture is shown stretched"
        yield Check("aspect", "video", wanted, given, same or squared, meaning)
    if promise.rotation is not None and found.rotation is not None:
        yield Check(
            "rotation",
            "video",
            f"{rotation} degrees",
            f"{found.rotation} degrees{', turned already' if turned else ''}",
            kept or turned,
            "the picture lies on its side or stands on its head",
        )
    if promise.mirrored or found.mirrored:
        wrong = promise.mirrored_in(found, turned=turned)
        shown, meaning = "mirrored" if wrong else "as in the source", "left and right are exchanged"
        yield Check("rotation", "picture", "as in the source", shown, not wrong, meaning)


def _colours(promise: Promise, found: Found) -> Iterator[Check]:
    coded = not found.pixels.startswith(("gbr", "rgb", "bgr", "0rgb", "gray", "pal"))
    if promise.matrix is not None and coded:
        guess = guess_matrix(found.height)
        silent = found.matrix == UNSPECIFIED
        matrix = guess if silent else MATRICES.get(found.matrix, f"code {found.matrix}")
        yield Check(
            "matrix",
            "video",
            promise.matrix,
            f"unspecified, taken for {guess}" if silent else matrix,
            matrix == promise.matrix,
            "colours shift, most in reds and greens",
        )
    if promise.range is not None and coded:
        given = range_of(found)
        meaning = "dark and light parts are crushed, or the picture is greyish"
        yield Check("range", "video", promise.range, given, given == promise.range, meaning)
    tags: tuple[tuple[Literal["primaries", "transfer"], int, int, frozenset[int]], ...] = (
        ("primaries", promise.primaries, found.primaries, SDR_PRIMARIES),
        ("transfer", promise.transfer, found.transfer, SDR_TRANSFERS),
    )
    for kind, before, after, alike in tags:
        same = before == after or (UNSPECIFIED in (before, after) and {before, after} <= alike)
        meaning = "colours or brightness are shown wrongly"
        yield Check(kind, "video", _code(before), _code(after), same, meaning)


def _code(number: int) -> str:
    return "unspecified" if number == UNSPECIFIED else f"code {number}"


def _decoding(promise: Promise, found: Found) -> Iterator[Check]:
    meaning = "the last pictures are damaged or missing"
    tail = found.tail or "it decodes"
    yield Check("tail", "video", "a last packet that decodes", tail, not found.tail, meaning)
    if found.pictures is not None and not found.tail:
        came, failed = len(found.pictures), found.failed
        yield Check(
            "pictures",
            "video",
            "frames that all decode",
            f"{came} decode{f', {failed} of them with damage' if failed else ''}",
            not failed and came >= min(len(promise.times), len(found.times)),
            "some pictures are damaged or missing",
        )


def _tracks(promise: Promise, found: Found) -> Iterator[Check]:
    for kind in dict.fromkeys(("audio", *(track.kind for track in promise.tracks))):
        wanted = [track for track in promise.tracks if track.kind == kind]
        given = [track for track in found.tracks if track.kind == kind and track.packets]
        if kind == "attachment":
            given = [track for track in found.tracks if track.kind == kind]
        before, after = _codecs(wanted), _codecs(given)
        meaning = "a stream is missing" if len(given) < len(wanted) else "there is one too many"
        if wanted or given:
            # Muxers add data and text of their own, such as MP4's track of chapters.
            all_there = len(given) == len(wanted) or (kind != "audio" and len(given) > len(wanted))
            yield Check("stream", kind, before, after, all_there, meaning)
        for number, one, other in pair_tracks(wanted, given):
            yield from _track(promise, found, f"{kind} {number}", one, other)


def _beside(promise: Promise, found: Found) -> Iterator[Check]:
    """Yields what a run keeps of subtitles, fonts and chapters wherever the container can."""
    for kind in dict.fromkeys(track.kind for track in promise.beside):
        wanted = [track for track in promise.beside if track.kind == kind]
        held = [track for track in wanted if can_hold(found.path, track.kind, track.codec)]
        given = [t for t in found.tracks if t.kind == kind and (t.packets or kind == "attachment")]
        lost = len(wanted) - len(held)
        excuse = f"; {lost} that {Path(found.path).suffix} files cannot hold" if lost else ""
        yield Check(
            "stream",
            kind,
            _codecs(wanted),
            f"{_codecs(given)}{excuse}",
            len(given) >= len(held),
            "subtitles are missing" if kind == "subtitle" else "fonts or other attachments are missing",
        )
    if promise.chapters and can_hold(found.path, "chapters", ""):
        wanted, given = promise.chapters, found.chapters
        meaning = "chapters are missing"
        yield Check("chapters", "file", str(wanted), str(given), given >= wanted, meaning)


def _codecs(tracks: list[Track]) -> str:
    return ", ".join(track.codec for track in tracks) or "none"


def _track(promise: Promise, found: Found, where: str, before: Track, after: Track) -> Iterator[Check]:
    same = is_same(before, after)
    meaning = "it was encoded again, or another stream stands in its place"
    # Of a source's sound a run makes another codec where the file cannot hold it.
    made = promise.scalable and before.kind == "audio" and after.codec in CONVERTED
    yield Check("codec", where, before.codec, after.codec, same or made, meaning)
    # Counted from the frames as a whole: where the first is missing, the others still have their sound.
    first, clock = float(promise.times[0]), _shown(promise, found)[1].clock
    sync, near = promise.sync + _grid(promise, found), COPIED_SYNC + _grid(promise, found)
    match = match_tracks(before, after, clock, near=near)
    if before.packets and same and is_counted(before):
        wanted, given = match.wanted_packets, match.given_packets
        # MP4 fills the time between two subtitles with empty ones.
        whole = wanted == given or (before.kind == "subtitle" and given > wanted)
        meaning = "parts of it are missing" if given < wanted else "parts of it come twice"
        yield Check("packets", where, str(wanted), str(given), whole, meaning)
    if before.kind != "audio" or not before.packets:
        return
    length, now = before.end - match.wanted_start, after.end - match.given_start
    slack = max(SOUND, min(max(before.longest, after.longest), LONGEST_PACKET), PRIMING if made else 0)
    meaning = "the sound ends early" if now < length else "the sound ends late"
    yield Check(
        "duration", where, f"{length:.3f} s", f"{now:.3f} s", abs(now - length) <= slack, meaning
    )
    late = match.given_start - match.wanted_start - clock
    yield Check(
        "offset",
        where,
        f"{match.wanted_start - first:+.3f} s",
        f"{match.given_start - first - clock:+.3f} s",
        abs(late) <= sync,
        f"the sound comes {abs(late) * 1e3:.0f} ms {'late' if late > 0 else 'early'}",
    )
