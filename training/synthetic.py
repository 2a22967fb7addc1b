"""Crops that look like games and screens, drawn by seed: what photographs do not teach a style.

Photographs have no even areas, no black beside a bright dot, no letters and no pixel art; a network
that never saw them paints them in colours of its own.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Draw = np.random.Generator


def screen_crop(side: int, draw: Draw) -> Image:
    """One of the kinds below, (side, side, 3) uint8 RGB."""
    return KINDS[int(draw.integers(len(KINDS)))](side, draw)


def sprites_on_black(side: int, draw: Draw) -> Image:
    """Bright little shapes on black or nearly black, as in an arcade game."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = _dark(draw) if draw.random() < 0.3 else (0, 0, 0)
    for _ in range(int(draw.integers(3, 40))):
        colour, size = _bright(draw), int(draw.integers(1, 7))
        x, y = (int(n) for n in draw.integers(0, side, 2))
        kind = draw.random()
        if kind < 0.3:
            cv2.circle(picture, (x, y), size, colour, -1)
        elif kind < 0.7:
            stamp = (draw.random((size + 2, size + 2)) < 0.6).astype(np.uint8)
            _paste(picture, np.hstack([stamp, stamp[:, ::-1]]), (x, y), colour)
        else:
            cv2.rectangle(picture, (x, y), (x + size, y + 2 * size), colour, -1)
    return picture


def flat_polygons(side: int, draw: Draw) -> Image:
    """Even areas with straight edges, sometimes outlined: vector graphics and low-poly games."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = _any(draw)
    outline = _dark(draw) if draw.random() < 0.5 else None
    for _ in range(int(draw.integers(2, 14))):
        centre = draw.integers(0, side, 2)
        points = (centre + draw.normal(0, side / 5, (int(draw.integers(3, 7)), 2))).astype(np.int32)
        hull = np.asarray(cv2.convexHull(points), np.int32)
        cv2.fillPoly(picture, [hull], _any(draw), cv2.LINE_AA)
        if outline is not None:
            cv2.polylines(picture, [hull], True, outline, int(draw.integers(1, 4)), cv2.LINE_AA)
    return picture


def pixel_art(side: int, draw: Draw) -> Image:
    """Tiles of a few colours, enlarged without smoothing."""
    zoom = int(draw.choice([2, 3, 4, 6, 8]))
    cells = -(-side // zoom)
    palette = draw.integers(0, 256, (int(draw.integers(3, 9)), 3)).astype(np.uint8)
    tile = int(draw.choice([8, 16]))
    tiles = draw.integers(0, len(palette), (4, tile, tile))
    # Half of each tile is one colour: art has areas, noise has not.
    tiles[:, : tile // 2] = draw.integers(0, len(palette), (4, 1, 1))
    across = -(-cells // tile)
    plan = draw.integers(0, 4, (across, across))
    indices = np.vstack([np.hstack([tiles[n] for n in row]) for row in plan])
    large = np.repeat(np.repeat(palette[indices], zoom, 0), zoom, 1)
    return np.ascontiguousarray(large[:side, :side])


def interface(side: int, draw: Draw) -> Image:
    """Panels, bars, buttons and lines of text."""
    light = draw.random() < 0.4
    paper, ink = (_pale(draw), _dark(draw)) if light else (_dark(draw), _pale(draw))
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = paper
    for _ in range(int(draw.integers(0, 4))):
        x, y = (int(n) for n in draw.integers(-side // 4, side, 2))
        width, height = (int(n) for n in draw.integers(side // 10, side // 2, 2))
        cv2.rectangle(picture, (x, y), (x + width, y + height), _any(draw), -1)
        cv2.rectangle(picture, (x, y), (x + width, y + height), ink, int(draw.integers(1, 3)))
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .,:!"))
    size = float(draw.uniform(0.35, 1.2))
    fonts = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
    font = fonts[int(draw.integers(len(fonts)))]
    for y in range(int(draw.integers(8, 40)), side, int(22 * size) + int(draw.integers(4, 30))):
        text = "".join(draw.choice(letters, int(draw.integers(3, 28))))
        where = (int(draw.integers(-20, side // 2)), y)
        colour = ink if draw.random() < 0.8 else _bright(draw)
        cv2.putText(picture, text, where, font, size, colour, 1 + int(size > 0.9), cv2.LINE_AA)
    return picture


def night(side: int, draw: Draw) -> Image:
    """A dark sky over darker blocks, with lamps, windows and their glow."""
    top, bottom = (np.array(_dark(draw), np.float32) for _ in range(2))
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    picture = np.repeat(top * (1 - ramp) + bottom * ramp, side, 1)
    horizon, x = int(side * draw.uniform(0.2, 0.8)), 0
    while x < side:
        width, rise = int(draw.integers(8, 50)), int(draw.integers(0, side // 3))
        picture[max(0, horizon - rise) :, x : x + width] = np.array(_dark(draw)) * 0.5
        x += width
    glow = np.zeros_like(picture)
    for _ in range(int(draw.integers(3, 40))):
        place = tuple(int(n) for n in draw.integers(0, side, 2))
        cv2.circle(glow, place, int(draw.integers(1, 5)), _bright(draw), -1)
    spread = np.asarray(cv2.GaussianBlur(glow, (0, 0), float(draw.uniform(2, 9))), np.float32)
    return np.clip(picture + glow + 1.5 * spread, 0, 255).astype(np.uint8)


def gradient(side: int, draw: Draw) -> Image:
    """A smooth passage from one colour to another, sky or fog, with a lit ball or two."""
    a, b = (np.array(_any(draw), np.float32) for _ in range(2))
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
    angle = draw.uniform(0, 2 * np.pi)
    along = np.clip(rows * np.sin(angle) + columns * np.cos(angle), 0, 1)[..., None]
    picture = a * (1 - along) + b * along
    for _ in range(int(draw.integers(0, 4))):
        y, x, radius = draw.random(), draw.random(), draw.uniform(0.05, 0.3)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        lit = np.clip(1.0 - np.hypot(rows - y + radius / 3, columns - x + radius / 3) / radius, 0.1, 1)
        picture[inside] = (np.array(_any(draw)) * lit[..., None])[inside]
    return picture.astype(np.uint8)


KINDS: tuple[Callable[[int, Draw], Image], ...] = (
    sprites_on_black, flat_polygons, pixel_art, interface, night, gradient,
)  # fmt: skip
"""All kinds of `screen_crop`, equally often."""


Colour = tuple[int, int, int]


def _colour(draw: Draw, low: int, high: int) -> Colour:
    red, green, blue = (int(n) for n in draw.integers(low, high, 3))
    return red, green, blue


def _any(draw: Draw) -> Colour:
    return _colour(draw, 0, 256)


def _dark(draw: Draw) -> Colour:
    return _colour(draw, 0, 56)


def _pale(draw: Draw) -> Colour:
    return _colour(draw, 190, 256)


def _bright(draw: Draw) -> Colour:
    red, green, blue = (int(n) for n in draw.permutation([255, *draw.integers(0, 256, 2)]))
    return red, green, blue


def _paste(picture: Image, stamp: Image, place: tuple[int, int], colour: Colour) -> None:
    x, y = place
    region = picture[y : y + stamp.shape[0], x : x + stamp.shape[1]]
    region[stamp[: region.shape[0], : region.shape[1]] > 0] = colour
