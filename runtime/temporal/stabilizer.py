"""Stabilize: results of models that stay on the surfaces they were painted on.

History has the earlier results, moved to their present places, in higher precision than the samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frame import Array, Frame, PixelFormat
from ..stages.base import Chain, Stage
from ..stages.neural import Neural
from .planes import Floats, Mask, Planes, cv, grid
from .reprojection_map import Track, Tracker

GROWTH = 0.85
"""The part by which the confidence in a pixel's history grows with each result, from 0 to 1.

It grows slowly, since a surface that was just uncovered has been painted with the foreground in view,
which must not stay.
"""
TAPS = (0.52, 0.05)
"""Weights of the second and fourth differences in the luma's interpolation between samples, by q.

Linear interpolation at the part f between two samples dims a wave of w radians a pixel by sqrt(1 - q
l), q = f (1 - f), l = 2 - 2 cos w; its inverse is 1 + q l / 2 + 3 q^2 l^2 / 8 + ... With these weights
waves of five pixels and longer keep 97% at any f, and none exceeds 102.4%: the history is moved again
with every frame, and its weight could not limit a larger growth.
"""
FINE = 5
"""Pixels, per side, of the neighbourhood from whose mean detail is measured."""
PULL = 0.1
"""The largest change of detail in one frame towards the strength of the newest result."""
ENOUGH = 0.94
"""The part of the newest result's gradient energy that the whole picture must have."""
AIM = (0.6, 1.5)
"""Least and most energy that is aimed at in a tile for that; some tiles fall short of it."""
TILE = 16
"""Pixels, per side, of the tiles in which gradient energy is compared."""
COARSE = 32
"""Pixels, per side, of the tiles in which coarse colours are compared."""
LIGHT = (1.5, 4.0)
"""Levels of 255 by which a tile of the source must have brightened or darkened recently for coarse
colours to start following, and to follow by `FOLLOW`."""
LATE = 0.9
"""The part of a change of light that still counts one frame later: slow changes add up."""
FOLLOW = 0.8
"""The largest part of the way to the newest result's coarse colours in one frame."""

SPARSE = 3
"""Step of rows and columns in which changes from one frame to the next are compared."""
RESTRAINED = 24
"""Pixels, per side, of the tiles in which they are."""
RESTRAINT = 8
"""The power of the ratio of both changes by which earlier results lose weight in a tile."""
REGAINED = 0.03
"""The part by which earlier results come back into a tile with each frame that they have calmed."""

_CURVE = np.array(TAPS) @ np.array([[0.0, -1.0, 2.0, -1.0, 0.0], [1.0, -4.0, 6.0, -4.0, 1.0]])
_ONE = np.array([1.0])
# BT.601's luma and two differences from it: any invertible matrix would do.
_OPPONENT = np.array([[0.299, 0.587, 0.114], [0.701, -0.587, -0.114], [-0.299, -0.587, 0.886]])
_PACKED = np.linalg.inv(_OPPONENT)


@dataclass(slots=True, eq=False)
class Layers:
    """A picture in float32, in the samples' own levels."""

    luma: Floats
    """(H, W)"""
    chroma: tuple[Floats, ...] = ()
    """Up to two planes of (h, w)."""

    def fits(self, other: "Layers") -> bool:
        """Returns whether the other picture has planes of the same shapes."""
        mine, others = ([p.shape for p in (a.luma, *a.chroma)] for a in (self, other))
        return mine == others


class History:
    """The accumulated earlier results, which are blended with the next one. Used from one thread."""

    def __init__(self) -> None:
        self._before: Layers | None = None
        self._format: PixelFormat | None = None
        self._faith: Floats | None = None
        """(H, W), 0..1: the confidence in each pixel, which grows with the number of results; 0 where
        there was only a replacement."""
        self._energy: tuple[Floats, ...] = ()
        """Gradient energies of the newest result's luma and chroma, by tiles; empty without a
        result."""
        self._aims = [ENOUGH, ENOUGH]
        """The parts of the result's energy that tiles of luma and chroma are brought to."""
        self._drift: Floats | None = None
        """The recent brightening of each tile."""
        self._changed: tuple[Floats, Floats] | None = None
        """Some samples of the luma of the last result, and of what was shown."""
        self._part: Floats | None = None
        """The part, by tiles, of what the blend may change of a result; None is all."""
        self._planes = Planes()

    @property
    def empty(self) -> bool:
        """True if there is no earlier result."""
        return self._before is None

    def forget(self) -> None:
        """Forget all earlier results."""
        self._before = self._faith = None
        self._energy = ()
        self._aims = [ENOUGH, ENOUGH]
        self._drift = None
        self._changed = self._part = None

    def blend(
        self,
        made: Frame,
        track: Track | None,
        weight: float,
        *,
        fresh: bool,
        uncovered: Array | Mask | None = None,
    ) -> Frame:
        """Returns `made` with `weight` (0..1) of what was shown before, where `track` trusts it.

        Without `fresh`, returns only what was shown before, and where there is nothing, `made` in the
        colours of that; where `uncovered`, `made` in its own colours, which the caller must match.
        """
        planes, before, faith = self._planes, self._before, self._faith
        now = self._layers(made)
        if before is None or faith is None or track is None or made.format != self._format:
            return self._begun(made, now, fresh=fresh, uncovered=uncovered)
        if not before.fits(now):
            return self._begun(made, now, fresh=fresh, uncovered=uncovered)
        height, width = now.luma.shape
        places, trust = self._scaled(track, width, height)
        moved, faith = self._moved(before, faith, track, places)
        faith = planes.product(faith, trust)
        # Any earlier picture is better than one that no model has made.
        if fresh:
            hole = None if uncovered is None else _hole(uncovered, width, height)
            following = self._following(track)
            if following is not None:
                alike = trust if hole is None else np.where(hole, np.float32(0), trust)
                self._tint(moved, now, alike, following)
            self._energy = _energies(now)
            share = planes.product(faith, weight)
            grown = cv.addWeighted(faith, 1 - GROWTH, faith, 0.0, GROWTH, planes.new(faith.shape))
            if hole is not None:
                share[hole] = np.minimum(faith[hole] / GROWTH, trust[hole])
                grown[hole] = faith[hole]
            faith = grown
        else:
            share = np.minimum(planes.product(faith, 1 / GROWTH), trust)
            self._tint(now, moved, share)
        self._faith = faith
        self._mix(moved, now, share)
        self._sharpen(moved, trust, made.format.peak / 255)
        if fresh and track.estimated:
            self._restrain(moved, now)
        self._before = moved
        return made.with_planes(self._samples(moved, made.format), made.format)

    def _begun(self, made: Frame, now: Layers, *, fresh: bool, uncovered: Array | Mask | None) -> Frame:
        """Returns the first frame unchanged, and starts the history with it."""
        self.forget()
        if fresh:
            self._before, self._format = now, made.format
            self._faith, self._energy = np.ones(now.luma.shape, np.float32), _energies(now)
            self._changed = (_sparse(now), _sparse(now))
            if uncovered is not None:
                height, width = now.luma.shape
                self._faith[_hole(uncovered, width, height)] = 0
        return made

    def _layers(self, frame: Frame) -> Layers:
        """Returns a frame's samples as they are blended; those of RGB as luma and differences."""
        planes = self._planes
        if frame.format.family == "rgb":
            pixels = planes.floats(frame.planes[0])
            luma, *chroma = planes.parted(cv.transform(pixels, _OPPONENT, planes.new(pixels.shape)))
        else:
            luma, *chroma = map(planes.floats, frame.planes)
        return Layers(luma, tuple(chroma))

    def _samples(self, layers: Layers, format: PixelFormat) -> tuple[Array, ...]:
        """Returns layers as a frame's planes, rounded."""
        planes = self._planes
        wholes: list[Any] = [layers.luma, *layers.chroma]
        if format.family == "rgb":
            merged = planes.merged(wholes)
            wholes = [cv.transform(merged, _PACKED, planes.new(merged.shape))]
        found: list[Array] = []
        for whole in wholes:
            held, samples = planes.new(whole.shape), planes.new(whole.shape, format.dtype)
            np.clip(whole, 0.0, float(format.peak), held)
            if format.bits == 8:
                cv.convertScaleAbs(held, samples)
            else:
                np.copyto(samples, np.rint(held, out=held), casting="unsafe")
            found.append(samples)
        return tuple(found)

    def _moved(
        self, before: Layers, faith: Floats, track: Track, places: Floats
    ) -> tuple[Layers, Floats]:
        """Returns each pixel from its earlier place, by six samples of luma along each axis and two of
        the rest.

        OpenCV moves four planes in the time of one: the differences that sharpen a plane are moved with
        it.
        """
        planes, luma, chroma = self._planes, before.luma, before.chroma
        across, down = self._curve(luma, 0), self._curve(luma, 1)
        together = bool(chroma) and chroma[0].shape == luma.shape
        fourth = chroma[0] if together else faith
        luma, across, down, fourth = self._fetched((luma, across, down, fourth), places)
        if together:
            two, faith = self._fetched((chroma[1], faith, chroma[1], faith), places)[:2]
            chroma = (fourth, two)
        else:
            faith = fourth
        part = np.floor(places, out=planes.new(places.shape))
        np.subtract(places, part, out=part)
        for q, curve in zip(
            planes.parted(planes.difference(part, planes.product(part, part))),
            (across, down),
            strict=True,
        ):
            cv.add(luma, cv.multiply(q, curve, curve), luma)
        if chroma and not together:
            height, width = chroma[0].shape
            smaller, _ = self._scaled(track, width, height)
            one, two, _, _ = self._fetched((*chroma, *chroma), smaller)
            chroma = (one, two)
        return Layers(luma, chroma), faith

    def _curve(self, plane: Floats, axis: int) -> Floats:
        """Returns the correction of linear interpolation along x (0) or y (1), by q."""
        across, down = (_CURVE, _ONE) if axis == 0 else (_ONE, _CURVE)
        found = self._planes.new(plane.shape)
        cv.sepFilter2D(plane, -1, across, down, found, borderType=cv.BORDER_REPLICATE)
        return found

    def _fetched(self, four: Sequence[Floats], places: Floats) -> list[Floats]:
        """Returns four planes sampled at `places`."""
        planes = self._planes
        return planes.parted(planes.linear(planes.merged(four), places))

    def _scaled(self, track: Track, width: int, height: int) -> tuple[Floats, Floats]:
        """Returns places and trust for a picture of another size."""
        rows, columns = track.trust.shape
        if (rows, columns) == (height, width):
            return track.places, track.trust
        planes, size = self._planes, (width, height)
        motion = planes.difference(track.places, grid(columns, rows))
        # Nearest neighbours: between two surfaces there is no motion.
        motion = planes.resized(motion, size, cv.INTER_NEAREST_EXACT)
        places = planes.product(motion, (width / columns, height / rows, 0.0, 0.0))
        cv.add(places, grid(width, height), places)
        shrinks = width < columns
        return places, planes.resized(track.trust, size, cv.INTER_AREA if shrinks else cv.INTER_LINEAR)

    def _mix(self, moved: Layers, now: Layers, share: Floats) -> None:
        """Blend `share` of the moved picture with the new one, into `moved`."""
        planes = self._planes
        rest = planes.difference(1.0, share)
        cv.blendLinear(moved.luma, now.luma, share, rest, moved.luma)
        for old, new in zip(moved.chroma, now.chroma, strict=True):
            if share.shape != old.shape:
                share = planes.resized(share, (old.shape[1], old.shape[0]), cv.INTER_AREA)
                rest = planes.difference(1.0, share)
            cv.blendLinear(old, new, share, rest, old)

    def _tint(self, layers: Layers, like: Layers, trust: Floats, by: Floats | None = None) -> None:
        """Bring coarse colours to those of `like`, as far as both are trusted to show the same.

        `by` is the part of the way, by tiles; None is all of it.
        """
        rows, columns = (max(side // COARSE, 1) for side in layers.luma.shape)
        for mine, other in zip((layers.luma, *layers.chroma), (like.luma, *like.chroma), strict=True):
            height, width = mine.shape
            step = 4 if min(height, width) >= 4 * COARSE else 1
            apart = cv.subtract(other[::step, ::step], mine[::step, ::step])
            small = (apart.shape[1], apart.shape[0])
            known = cv.resize(trust, small, interpolation=cv.INTER_NEAREST)
            sums: list[Any] = []
            for one in (cv.multiply(apart, known), known):
                tiles = cv.resize(one, (columns, rows), interpolation=cv.INTER_AREA)
                # A plain mean would turn what alternates from tile to tile: it would be corrected away.
                tiles = cv.GaussianBlur(tiles, (3, 3), 0)
                # Where no surrounding tile is known, the mean of all known ones is used.
                sums.append(tiles + 0.01 * float(cv.mean(tiles)[0]))
            tint = sums[0] / np.maximum(sums[1], 1e-6)
            if by is not None:
                tint *= cv.resize(by, (columns, rows), interpolation=cv.INTER_LINEAR)
            cv.add(mine, self._planes.resized(tint, (width, height)), mine)

    def _following(self, track: Track) -> Floats | None:
        """Returns the part by which coarse colours follow, by tiles; None where no light has
        changed."""
        drift = track.brighter
        if self._drift is not None and self._drift.shape == drift.shape:
            drift = drift + LATE * self._drift
        least, most = LIGHT
        # A tile in which another surface is seen is not lit differently.
        size = (drift.shape[1], drift.shape[0])
        same = np.clip(
            4 * cv.resize(track.trust[::4, ::4], size, interpolation=cv.INTER_AREA) - 3, 0, 1
        )
        self._drift = drift = np.asarray(drift * same[..., None], np.float32)
        light = np.abs(drift).max(2)
        if light.max(initial=0.0) <= least:
            return None
        return np.asarray(np.clip((light - least) / (most - least), 0.0, 1.0) * FOLLOW, np.float32)

    def _restrain(self, layers: Layers, now: Layers) -> None:
        """Bring tiles towards the newest result that change more from frame to frame than results do.

        Estimated motion follows grain, and a result that has none would be moved along with it.
        """
        pair = (_sparse(now), _sparse(layers))
        height, width = now.luma.shape
        size = (max(width // RESTRAINED, 1), max(height // RESTRAINED, 1))
        before, self._changed = self._changed, pair
        if before is None:
            return
        changes = [
            cv.resize(cv.absdiff(one, other), size, interpolation=cv.INTER_AREA)
            for one, other in zip(pair, before, strict=True)
        ]
        ratio = np.minimum((changes[0] + 1e-3) / (changes[1] + 1e-3), 1.0)
        part = np.ones_like(ratio) if self._part is None else self._part
        part = np.where(ratio < 1.0, part * ratio**RESTRAINT, np.minimum(part + REGAINED, 1.0))
        self._part = part = np.asarray(part, np.float32)
        if part.min() < 1.0:
            self._mix(layers, now, self._planes.resized(part, (width, height)))
            self._changed = (pair[0], _sparse(layers))

    def _sharpen(self, layers: Layers, trust: Floats, level: float) -> None:
        """Enhance detail where it has less than `ENOUGH` of a result's energy, and reduce it above
        that.

        Strokes that come out differently in each frame fade in their mean, as does all that is
        interpolated. What stays of them is made as strong as strokes of one result are.
        """
        planes, floor = self._planes, level * level
        parts = ((layers.luma,), layers.chroma)
        energies = zip(self._energy, _energies(layers), parts, strict=False)
        for number, (wanted, found, part) in enumerate(energies):
            ratio = (wanted + floor) / (found + floor)
            aim = self._aims[number]
            gain = np.sqrt(np.maximum(aim * ratio, 1.0) * np.minimum(max(aim, 1.0) * ratio, 1.0))
            pull = np.clip(gain - 1.0, -PULL, PULL)
            if not pull.any():
                continue
            height, width = part[0].shape
            whole = planes.resized(pull, (width, height))
            if trust.shape != (height, width):
                trust = planes.resized(trust, (width, height), cv.INTER_AREA)
            cv.multiply(whole, trust, whole)
            for plane in part:
                mean = cv.blur(plane, (FINE, FINE), planes.new(plane.shape))
                detail = cv.subtract(plane, mean, mean)
                cv.add(plane, cv.multiply(detail, whole, detail), plane)
            reached = ENOUGH * (floor + wanted.mean()) / (floor + sum(_energy(p).mean() for p in part))
            self._aims[number] = float(np.clip(aim * np.sqrt(reached), *AIM))


def _hole(uncovered: Array | Mask, width: int, height: int) -> Any:
    """Returns the mask at another size."""
    if uncovered.shape != (height, width):
        size, how = (width, height), cv.INTER_NEAREST_EXACT
        uncovered = np.asarray(cv.resize(uncovered.view(np.uint8), size, interpolation=how))
    return uncovered.astype(np.bool_, copy=False)


def _sparse(layers: Layers) -> Floats:
    """Returns some samples of the luma."""
    return layers.luma[::SPARSE, ::SPARSE].copy()


def _energies(layers: Layers) -> tuple[Floats, ...]:
    """Returns the gradient energies of luma, and of chroma if any, by tiles of their own samples."""
    luma = _energy(layers.luma)
    if not layers.chroma:
        return (luma,)
    one, two = map(_energy, layers.chroma)
    return luma, one + two


def _energy(plane: Floats) -> Floats:
    """Returns mean squared differences of neighbours by tiles, sampled in every fifth row.

    Five is no divisor of the patterns of four and eight rows in results of networks, which halve a
    picture repeatedly.
    """
    height, width = plane.shape
    if min(height, width) < TILE:
        return np.zeros((1, 1), np.float32)
    columns, count = width // TILE, (height - 1) // 5
    rows, below = plane[: 5 * count : 5], plane[1 : 5 * count + 1 : 5]
    squares = cv.subtract(below, rows)
    cv.multiply(squares, squares, squares)
    across = cv.subtract(rows[:, 1:], rows[:, :-1])
    cv.accumulateSquare(across, squares[:, 1:])
    # Whole rows first: OpenCV's own mean over an area takes three times as long.
    bands = np.add.reduceat(squares, list(range(0, columns * TILE, TILE)), axis=1)
    bands *= np.float32(1 / TILE)
    tiles = cv.resize(bands, (columns, height // TILE), interpolation=cv.INTER_AREA)
    return np.asarray(cv.GaussianBlur(tiles, (3, 3), 0), np.float32)


MOST = 0.98
"""The part of earlier results in the picture at full strength: errors must fade."""
FADED = 0.05
"""The part of a result in the picture below which it no longer counts."""


class Stabiliser:
    """Blends each result with the one before it, moved along the motion of the source.

    Earlier results count where the source shows what it showed then: not where something else was in
    front of it, not where its colours have changed, and not after a cut. Motion and depth are those of
    the source's frames; without motion it is estimated by optical flow. Used from one thread, with
    frames in order.
    """

    def __init__(self, strength: float = 0.9) -> None:
        """`strength` is 0 (off: results pass as they are) to 1. Raises ValueError beyond."""
        self._tracker = Tracker()
        self._history = History()
        self._heir: History | None = None
        """The history of the next restart, while it is being built up."""
        self.strength = strength

    @property
    def strength(self) -> float:
        """The weight of earlier results, 0..1. Raises ValueError when set out of range."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._weight = weight_of(value)
        self._strength = float(value)

    @property
    def holds(self) -> bool:
        """True if there are earlier results."""
        return not self._history.empty

    @property
    def overlap(self) -> int:
        """The number of frames after which a result has faded."""
        return math.ceil(math.log(FADED) / math.log(self._weight)) if self._weight > FADED else 1

    def __call__(
        self, source: Frame, made: Frame, *, fresh: bool = True, uncovered: Array | Mask | None = None
    ) -> Frame:
        """Returns `made` blended with what was shown before.

        `source` is the input of the models, `made` their result, of the same size or a multiple of it.
        Without `fresh`, `made` only replaces a missing result: the earlier picture is shown again,
        warped, and `made` only where there is none. `uncovered`, (H, W) booleans of the source's size,
        says where `made` is only such a replacement, though it is a result elsewhere. Raises ValueError
        where motion, depth or reactivity are not of the source's size.
        """
        if not self._strength:
            self.forget()
            return made
        return self.blend(made, self.follow(source), fresh=fresh, uncovered=uncovered)

    def follow(self, source: Frame) -> Track | None:
        """Returns the places of a frame's pixels in the frame before; None where that does not
        count."""
        return self._tracker.follow(source)

    def blend(
        self,
        made: Frame,
        track: Track | None,
        *,
        fresh: bool = True,
        uncovered: Array | Mask | None = None,
    ) -> Frame:
        """Returns the blended result of a frame that `follow` has found."""
        shown = self._history.blend(made, track, self._weight, fresh=fresh, uncovered=uncovered)
        if self._heir is not None:
            self._heir.blend(made, track, self._weight, fresh=fresh, uncovered=uncovered)
        return shown

    def prepare(self) -> None:
        """Build up a second history beside the first, from the next frame on."""
        self._heir = History()

    def restart(self) -> None:
        """Replace the history by the second one, or by none."""
        self._history, self._heir = self._heir or History(), None

    def forget_results(self) -> None:
        """Forget the results that were shown, but not the source's last frame."""
        self._history.forget()
        self._heir = None

    def forget(self) -> None:
        """Forget all that was shown."""
        self._tracker.forget()
        self.forget_results()


class Stabilize(Chain):
    """Stages whose result is stabilised: `Stabilize([Neural(engine)], 0.9)`.

    Frames must come in order, as a pump gives them, and results must be asked for in order.
    """

    def __init__(
        self, stages: Sequence[Stage], strength: float = 0.9, *, spell: int | None = None
    ) -> None:
        """`strength` is that of `Stabiliser`.

        With `spell`, the history restarts at every `spell`-th frame of the source, from one that was
        built up over the `overlap` frames before: a process that begins with those makes the same
        frames as one that has made all before. Raises ValueError for a strength beyond 0..1.
        """
        super().__init__(stages)
        self._stabiliser = Stabiliser(strength)
        self.overlap = min(self._stabiliser.overlap, spell or 0)
        """The number of frames before a restart that its history is built up over."""
        names = [str(stage.engine.card.name) for stage in self.stages if isinstance(stage, Neural)]
        self.__name__ = " and ".join([*names, "stabilised"])
        self._spell = spell
        self._first: int | None = None
        self._last = 0

    @property
    def strength(self) -> float:
        """The weight of earlier results, 0..1. Raises ValueError when set out of range."""
        return self._stabiliser.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._stabiliser.strength = value

    def submit(self, frame: Frame) -> Callable[[], Frame]:
        pending = super().submit(frame)

        def result() -> Frame:
            made = pending()
            self._count(frame)
            return self._stabiliser(frame, made)

        return result

    def _count(self, source: Frame) -> None:
        """Switch histories at a restart, and forget all where frames are missing."""
        if self._first is None:
            self._first, self._last = source.index, source.index - 1
        if source.index != self._last + 1:
            self._stabiliser.forget()
        self._last = source.index
        if self._spell is None:
            return
        number = (source.index - self._first) % self._spell
        if number == 0 and source.index != self._first:
            self._stabiliser.restart()
        if number == self._spell - self.overlap or (not number and self.overlap == self._spell):
            self._stabiliser.prepare()


def weight_of(strength: float) -> float:
    """Returns the largest part of the picture that is earlier results. Raises ValueError beyond
    0..1."""
    if not 0 <= strength <= 1:
        raise ValueError(f"a strength of {strength} is not within 0..1")
    return MOST * (1 - (1 - strength) ** 1.7)
