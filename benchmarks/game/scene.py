"""Scene: a small game drawn in software, whose pictures say which frame they are.

A camera flies over a textured plane towards hills, past balloons. Everything is a function of the time:
two runs draw the same. Colour, motion and depth are true, as an engine's own would be. It is drawn by
NumPy in one thread: a game's cost must not depend on how many cores a library finds idle.

Mark: a bar on the strip at the picture's bottom, whose place tells which frame is seen.

It moves by one step a frame, and is drawn before the models see the picture. So it tells the truth once
they have restyled it, and where an earlier frame is shown again, or moved to its present place.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MOST_STEPS = 48
LEAST_STEP = 10
"""Columns by which the bar moves with each frame, at least: models smear."""
WIDE = 4
"""Width of the bar in steps."""
FRONT = 2
"""Steps in front of the bar that it is compared with."""
SMEAR = 0.15
"""Approximate steps by which models spread the bar to its front: none to 0.4 in those that are
shipped."""
CLEAR = 24.0
"""Levels of 255 by which the bar must differ from the strip to be recognised."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The bar on its strip: it starts at the left, moves right by `step` columns a frame, and starts
    again."""

    rows: slice
    height: int
    """Height of the picture that is drawn."""
    step: int
    places: int
    """The number of frames after which the bar is in the same place."""

    @classmethod
    def of(cls, width: int, height: int) -> "Mark":
        """Returns the mark for a picture of that size."""
        steps = min(MOST_STEPS, width // LEAST_STEP)
        rows = slice(height - max(16, height // 10), height)
        return cls(rows, height, width // steps, steps - WIDE - FRONT)

    def columns(self, number: int) -> slice:
        """Returns the columns of the bar in frame `number`."""
        left = number % self.places * self.step
        return slice(left, left + WIDE * self.step)

    def strip_of(self, picture: Pixels) -> Floats:
        """Returns a copy of the strip's levels, (W',), for reading the bar's place; the picture may be
        enlarged."""
        scale = picture.shape[0] / self.height
        top, bottom = self.rows.start * scale, self.rows.stop * scale
        # The middle of the strip: models smear its edges.
        inner = slice(round(top + 0.35 * (bottom - top)), round(top + 0.75 * (bottom - top)), 2)
        steps = self.places + WIDE + FRONT
        return picture[inner, : round(steps * self.step * scale), 1].mean(axis=0, dtype=np.float32)

    def frame_of(self, strip: Floats, number: int) -> int | None:
        """Returns the frame that the strip shows, with `number` the newest; None where that cannot be
        told.

        A model may well make light areas dark: the bar is what differs most, either way. A warped bar
        may leave a part of itself behind: its front counts. It may be moved too far: an eighth of
        `places` counts as ahead, the rest as behind. Just after the bar restarted at the left it has no
        earlier place, and a warped picture does not show it.
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
    """Returns the peak's place between samples: the middle of what reaches nine tenths of it."""
    at = int(np.argmax(values))
    near = np.arange(max(at - reach, 0), min(at + reach + 1, len(values)))
    weight = np.maximum(values[near] - 0.9 * values[at], 0)
    return float((weight * near).sum() / weight.sum())


Packed = npt.NDArray[np.uint32]
"""Pixels of red, green, blue and opacity, from the lowest byte up."""

SMALLEST = (160, 90)
"""Columns and rows that a scene has at least."""
HEIGHT = 1.2
"""Height of the camera above the plane; it is the unit of depth, too."""
FAR = 1000.0
"""Depth of the sky."""
TEXTURE = 512
"""Texels of the plane's texture along a side: `PER_UNIT` of them for each unit of length."""
PER_UNIT = 64
SPEED = 6.0
"""Units per second that the camera flies."""
HILLS = ((90.0, 0.20, (112, 96, 150)), (45.0, 0.13, (74, 74, 118)), (24.0, 0.07, (44, 60, 78)))
"""Depth, relative height and colour of each range, from the farthest."""
BALLOONS = (
    (17.0, 0.07, 0.15, (222, 170, 60)), (13.0, 0.09, 0.85, (70, 150, 190)),
    (9.0, 0.13, 0.35, (200, 70, 60)), (7.0, 0.16, 0.62, (90, 170, 90)),
    (5.5, 0.19, 0.05, (190, 90, 170)),
)  # fmt: skip
"""Depth, relative radius, place along the way, and colour of each balloon, from the farthest."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The data of an engine. The arrays belong to the scene: the next frame is drawn into them."""

    color: Pixels
    """(H, W, 4), RGBA, sRGB, opaque."""
    motion: Floats
    """(H, W, 2) pixels, right and down, to the same point's place in the previous frame."""
    depth: Floats
    """(H, W), linear, larger is farther."""
    reactive: Floats
    """(H, 1): 1 in the mark's rows, since trails behind the bar would hide its place."""
    reset: bool
    """True if there is no previous frame."""


@dataclass(frozen=True, slots=True)
class _Sprite:
    pixels: Packed
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Camera:
    """The camera's place, and the places of what moves by whole pixels."""

    x: float
    z: float
    hills: tuple[int, ...]
    balloons: tuple[tuple[int, int], ...]


class Scene:
    """Draws frames of one size, one after another. Raises ValueError for a size below `SMALLEST`."""

    def __init__(self, width: int, height: int) -> None:
        if width < SMALLEST[0] or height < SMALLEST[1]:
            least = "x".join(map(str, SMALLEST))
            raise ValueError(f"a scene of {width}x{height} is too small: {least} at least")
        self.width, self.height = width, height
        self.mark = Mark.of(width, height)
        self._horizon = round(0.42 * height)
        self._focal = 0.8 * width
        self._packed = np.zeros((height, width), np.uint32)
        self._motion = np.zeros((height, width, 2), np.float32)
        self._depth = np.full((height, width), FAR, np.float32)
        rng = np.random.default_rng(7)
        self._sky = _sky(width, self._horizon)
        self._hills = tuple(
            _hills(width, round(part * height), colour, rng) for _, part, colour in HILLS
        )
        self._balloons = tuple(
            _balloon(round(part * height), colour) for _, part, _, colour in BALLOONS
        )
        rows = np.arange(self.mark.rows.start - self._horizon, dtype=np.float32) + 0.5
        self._far = (self._focal * HEIGHT / rows)[:, None]
        self._across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None]
        self._texels, self._levels, self._starts = _texture(self._far[:, 0], self._focal, rng)
        self._reactive = np.zeros((height, 1), np.float32)
        self._reactive[self.mark.rows] = 1
        self._before: _Camera | None = None
        self._number = 0

    def begin(self) -> None:
        """Start again: the next frame is number 0, with no previous one."""
        self._before, self._number = None, 0

    def draw(self, seconds: float) -> Picture:
        """Draws and returns the scene at that time since its beginning."""
        sway = 3.0 * math.sin(0.6 * seconds)
        camera = _Camera(
            sway,
            SPEED * seconds,
            tuple(round(-sway * self._focal / depth) for depth, _, _ in HILLS),
            tuple(self._at(number, seconds, sway) for number in range(len(BALLOONS))),
        )
        before = self._before or camera
        self._draw_sky(camera, before)
        self._draw_plane(camera, before)
        for number, sprite in enumerate(self._balloons):
            (x, y), (old_x, old_y) = camera.balloons[number], before.balloons[number]
            # A balloon that left on one side and comes back on the other was not in the picture.
            moved = old_x - x if abs(old_x - x) < self.width // 2 else self.width
            self._paint(sprite, x, y, (moved, old_y - y), BALLOONS[number][0])
        self._draw_bar(self._number)
        reset, self._before = self._before is None, camera
        self._number += 1
        color = self._packed.view(np.uint8).reshape(self.height, self.width, 4)
        return Picture(color, self._motion, self._depth, self._reactive, reset)

    def _at(self, number: int, seconds: float, sway: float) -> tuple[int, int]:
        """Returns left and top of a balloon."""
        depth, part, along, _ = BALLOONS[number]
        radius = round(part * self.height)
        way = self.width + 4 * radius
        x = along * way + (0.9 * seconds - sway) * self._focal / depth * (-1) ** number
        y = self._horizon * (0.45 + 0.3 * math.sin(1.3 * seconds + 2.1 * number))
        return round(x) % way - 3 * radius, round(y) - radius + round(0.02 * self.height * number)

    def _draw_sky(self, camera: _Camera, before: _Camera) -> None:
        top = slice(0, self._horizon)
        self._packed[top] = self._sky
        self._motion[top] = 0
        self._depth[top] = FAR
        for number, (sprite, (depth, _, _)) in enumerate(zip(self._hills, HILLS, strict=True)):
            shift = camera.hills[number] - self.width // 2
            moved = before.hills[number] - camera.hills[number]
            self._paint(sprite, shift, self._horizon - len(sprite.pixels), (moved, 0), depth)

    def _draw_plane(self, camera: _Camera, before: _Camera) -> None:
        """Draw the plane row by row: a pixel r below the horizon is at a depth of focal * height /
        r."""
        far, focal = self._far, self._focal
        area = slice(self._horizon, self.mark.rows.start)
        levels, starts = self._levels, self._starts
        along = np.floor((far + camera.z) * PER_UNIT).astype(np.int32) & (TEXTURE - 1)
        across = self._across * (far * (PER_UNIT / focal)) + camera.x * PER_UNIT
        texels = np.floor(across, out=across).astype(np.int32)
        texels &= TEXTURE - 1
        texels >>= levels
        texels += starts + (along >> levels) * (TEXTURE >> levels)
        np.take(self._texels, texels, out=self._packed[area], mode="clip")
        # The place of the same point of the plane as seen from the camera's earlier place.
        was_far = far + (camera.z - before.z)
        ratio = far / was_far
        motion = self._motion[area]
        shift = (camera.x - before.x) * focal / was_far
        np.multiply(self._across, ratio - 1, out=motion[..., 0])
        motion[..., 0] += shift
        motion[..., 1] = focal * HEIGHT * (1 / was_far - 1 / far)
        self._depth[area] = far

    def _draw_bar(self, number: int) -> None:
        packed, motion, depth = (a[self.mark.rows] for a in (self._packed, self._motion, self._depth))
        here = self.mark.columns(number)
        packed[:], motion[:], depth[:] = _pack((24, 24, 28)), 0, 0.5
        packed[:, here], depth[:, here] = _pack((244, 240, 230)), 0.4
        # A bar that comes back at the left was not in the picture.
        motion[:, here, 0] = (
            self.mark.columns(number - 1).start - here.start if here.start else self.width
        )

    def _paint(
        self, sprite: _Sprite, x: int, y: int, motion: tuple[float, float], depth: float
    ) -> None:
        """Draw a sprite at that left and top, cut off at the picture's edges."""
        height, width = sprite.pixels.shape
        left, right = max(x, 0), min(x + width, self.width)
        top, bottom = max(y, 0), min(y + height, self.mark.rows.start)
        if left >= right or top >= bottom:
            return
        there = slice(top, bottom), slice(left, right)
        here = slice(top - y, bottom - y), slice(left - x, right - x)
        mask = sprite.mask[here]
        np.copyto(self._packed[there], sprite.pixels[here], where=mask)
        np.copyto(self._motion[there], np.array(motion, np.float32), where=mask[..., None])
        np.copyto(self._depth[there], np.float32(depth), where=mask)


def _pack(colour: tuple[int, int, int]) -> int:
    red, green, blue = colour
    return red | green << 8 | blue << 16 | 255 << 24


def _packed(colours: "npt.NDArray[Any]") -> Packed:
    """Returns packed pixels of (H, W, 3) in 0..255."""
    whole = np.full((*colours.shape[:2], 4), 255, np.uint8)
    whole[..., :3] = np.clip(np.rint(colours), 0, 255)
    return whole.view(np.uint32)[..., 0]


def _sky(width: int, rows: int) -> Packed:
    down = np.linspace(0, 1, rows)[:, None, None] ** 1.3
    sky = (1 - down) * np.array([58, 84, 150.0]) + down * np.array([250, 190, 140.0])
    sky = np.broadcast_to(sky, (rows, width, 3)).copy()
    y, x = np.mgrid[:rows, :width]
    radius = np.hypot(x - 0.7 * width, y - 0.5 * rows) / (0.16 * rows)
    glow = np.exp(-radius / 2.5)[..., None]
    sky += glow * (np.array([255, 240, 200.0]) - sky)
    sky[radius < 1] = (255, 244, 214)
    return _packed(sky)


def _noise(shape: tuple[int, int], rng: np.random.Generator, power: float) -> "npt.NDArray[Any]":
    """Returns periodic noise whose amplitude falls as the frequency's `power`; mean 0, deviation 1."""
    spectrum = np.fft.fft2(rng.standard_normal(shape))
    across = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
    across[0, 0] = np.inf
    found = np.fft.ifft2(spectrum / across**power).real
    return (found - found.mean()) / found.std()


def _hills(width: int, rows: int, colour: tuple[int, int, int], rng: np.random.Generator) -> _Sprite:
    """Returns a range of hills twice as wide as the picture."""
    crest = _noise((1, 2 * width), rng, 1.4)[0]
    crest = (crest - crest.min()) / (crest.max() - crest.min())
    y = np.arange(rows)[:, None]
    below = y / rows - (1 - crest)[None] * 0.9
    shade = 1 + 0.12 * _noise((rows, 2 * width), rng, 1.0)[..., None] + 0.25 * (y / rows)[..., None]
    return _Sprite(_packed(shade * np.array(colour, np.float64)), below > 0)


def _balloon(radius: int, colour: tuple[int, int, int]) -> _Sprite:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1] / radius
    round_ = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    light = np.clip(0.35 + 0.75 * (round_ * 0.7 - 0.5 * y - 0.35 * x), 0, 1.3)[..., None]
    turn = np.arcsin(np.clip(x / np.maximum(np.sqrt(1 - y * y), 1e-6), -1, 1)) / np.pi
    gores = np.where(np.floor(6 * turn + 3) % 2, 1.0, 0.72)
    return _Sprite(_packed(light * gores[..., None] * np.array(colour, np.float64)), x * x + y * y <= 1)


def _texture(far: Floats, focal: float, rng: np.random.Generator) -> "tuple[Packed, Any, Any]":
    """Returns the plane's texture at all its sizes in one row, and each row's size and the start of
    that."""
    y, x = np.mgrid[:TEXTURE, :TEXTURE] // (PER_UNIT)
    soil = np.where((x + y) % 2, 1.0, 0.82)[..., None] * np.array([150, 140, 84.0])
    soil += 14 * _noise((TEXTURE, TEXTURE), rng, 0.9)[..., None]
    edge = (np.mgrid[:TEXTURE, :TEXTURE] % PER_UNIT < 4).any(axis=0)
    soil[edge] = (206, 190, 130)
    # Texels that a pixel covers, between those across and the many more along.
    covered = PER_UNIT * far / focal * np.sqrt(np.maximum(far / HEIGHT, 1))
    levels = np.clip(np.floor(np.log2(covered)), 0, 7).astype(np.int32)[:, None]
    parts: list[Packed] = []
    for level in range(8):
        haze = min(level / 8, 1.0)
        parts.append(_packed(soil + haze * (np.array([226, 178, 140.0]) - soil)).ravel())
        soil = soil.reshape(len(soil) // 2, 2, len(soil) // 2, 2, 3).mean(axis=(1, 3))
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])]).astype(np.int32)
    return np.concatenate(parts), levels, starts[levels]
