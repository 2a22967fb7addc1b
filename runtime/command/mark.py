"""Mark: a bar on a strip of a picture, whose place tells which frame is seen.

It goes on by one step a frame, and is drawn before the models see the picture. So it tells the truth
once they have restyled it, and where an earlier frame is shown again, or moved to its present place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MOST_STEPS = 48
LEAST_STEP = 10
"""Columns by which the bar goes on with each frame, at least: models smear."""
WIDE = 4
"""Steps that the bar is wide."""
FRONT = 2
"""Steps in front of it that it is told from."""
SMEAR = 0.15
"""Steps by which models spread the bar to its front, about: none to 0.4, of those that are shipped."""
CLEAR = 24.0
"""Levels of 255 by which the bar must differ from the strip to be seen."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The bar on its strip: it begins at the left, goes right by `step` columns a frame, and again."""

    rows: slice
    height: int
    """Of the picture that is drawn."""
    step: int
    places: int
    """Frames so far apart look the same."""

    @classmethod
    def of(cls, width: int, height: int) -> "Mark":
        """For a picture of that size."""
        steps = min(MOST_STEPS, width // LEAST_STEP)
        rows = slice(height - max(16, height // 10), height)
        return cls(rows, height, width // steps, steps - WIDE - FRONT)

    def columns(self, number: int) -> slice:
        """Where frame `number` has the bar."""
        left = number % self.places * self.step
        return slice(left, left + WIDE * self.step)

    def strip_of(self, picture: Pixels) -> Floats:
        """What the bar's place is read from, a copy, levels (W',); the picture may be enlarged."""
        scale = picture.shape[0] / self.height
        top, bottom = self.rows.start * scale, self.rows.stop * scale
        # The middle of the strip: models smear its edges.
        inner = slice(round(top + 0.35 * (bottom - top)), round(top + 0.75 * (bottom - top)), 2)
        steps = self.places + WIDE + FRONT
        return picture[inner, : round(steps * self.step * scale), 1].mean(axis=0, dtype=np.float32)

    def frame_of(self, strip: Floats, number: int) -> int | None:
        """The frame that the strip is of, with `number` the newest; None where that cannot be told.

        A model may well make what is light dark: the bar is what differs most, either way. Moved to its
        place by now, it may leave a part of itself behind: its front counts. It may be moved too far:
        an eighth of `places` counts as ahead, the rest as behind. Just back at the left it was nowhere
        before, and what is moved does not show it.
        """
        if number >= self.places and number % self.places < WIDE:
            return None
        scale = len(strip) / (self.places + WIDE + FRONT)
        wide, front = round(WIDE * scale), round(FRONT * scale)
        sums = np.cumsum(np.concatenate([[0.0], strip]))
        ends = np.arange(wide, len(strip) - front + 1)
        inside = (sums[ends] - sums[ends - wide]) / wide
        before = (sums[ends + front] - sums[ends]) / front
        difference = inside - (sums[-1] - inside * wide) / (len(strip) - wide)
        at = int(np.argmax(np.abs(difference)))
        if abs(difference[at]) < CLEAR:
            return None
        place = _top((inside - before) * np.sign(difference[at]), front // 2) / scale - SMEAR
        ahead = self.places // 8
        return number + ahead - (number + ahead - round(place)) % self.places


def _top(values: "npt.NDArray[Any]", reach: int) -> float:
    """The peak's place between samples: the middle of what reaches nine tenths of it."""
    at = int(np.argmax(values))
    near = np.arange(max(at - reach, 0), min(at + reach + 1, len(values)))
    weight = np.maximum(values[near] - 0.9 * values[at], 0)
    return float((weight * near).sum() / weight.sum())
