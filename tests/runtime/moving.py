"""A small world of textured planes and a moving camera: pictures with true motion and depth."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from velatura.runtime.frame import RGB, Frame

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plane:
    """origin + u * across + v * down, 0 <= u, v <= 1, with its texture; `velocity` in units a frame."""

    origin: tuple[float, float, float]
    across: tuple[float, float, float]
    down: tuple[float, float, float]
    texture: Image
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def at(self, time: float) -> npt.NDArray[np.float64]:
        return np.array(self.origin) + time * np.array(self.velocity)


@dataclass(frozen=True)
class View:
    """What is seen at one time."""

    picture: Image
    """(H, W, 3), averaged from twice as many samples along each axis."""
    depth: Floats
    motion: Floats
    """To the frame before."""
    onward: Floats
    """To the frame after."""

    def frame(self, index: int, **more: Any) -> Frame:
        return Frame(
            planes=(self.picture,), format=RGB, pts=index, time_base=Fraction(1, 30), index=index,
            depth=self.depth, motion=self.motion, **more,
        )  # fmt: skip


@dataclass(frozen=True)
class World:
    """Planes, and a camera that goes `speed` units and turns `turn` radians a frame."""

    planes: tuple[Plane, ...]
    size: tuple[int, int] = (320, 180)
    speed: tuple[float, float, float] = (0.03, 0.0, 0.02)
    turn: float = 0.0
    focal: float = field(default=0.9)
    """Over the width."""

    def _eye(self, time: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        angle = self.turn * time
        c, s = np.cos(angle), np.sin(angle)
        return time * np.array(self.speed), np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    def view(self, time: float) -> View:
        width, height = self.size
        x, y = np.meshgrid((np.arange(2 * width) + 0.5) / 2, (np.arange(2 * height) + 0.5) / 2)
        picture, _, _ = self._cast(x, y, time)
        small = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        _, depth, points = self._cast(x, y, time)
        flows = [
            np.dstack([u - x, v - y]).astype(np.float32)
            for u, v in (self._project(points(d), time + d) for d in (-1.0, 1.0))
        ]
        return View(small, depth.astype(np.float32), *flows)

    def _project(self, points: Any, time: float) -> tuple[Any, Any]:
        eye, turned = self._eye(time)
        seen = (points - eye) @ turned
        f = self.focal * self.size[0]
        z = np.maximum(seen[..., 2], 1e-3)
        return seen[..., 0] / z * f + self.size[0] / 2, seen[..., 1] / z * f + self.size[1] / 2

    def _cast(self, x: Any, y: Any, time: float) -> tuple[Image, Any, Any]:
        eye, turned = self._eye(time)
        f = self.focal * self.size[0]
        rays = np.dstack([(x - self.size[0] / 2) / f, (y - self.size[1] / 2) / f, np.ones_like(x)])
        rays = rays @ turned.T
        depth = np.full(x.shape, 1e4)
        picture = np.full((*x.shape, 3), 128, np.uint8)
        moved = np.zeros((*x.shape, 3))
        for plane in self.planes:
            across, down = np.array(plane.across), np.array(plane.down)
            normal = np.cross(across, down)
            start = plane.at(time)
            t = ((start - eye) @ normal) / (rays @ normal + 1e-12)
            there = eye + rays * t[..., None] - start
            u, v = there @ across / (across @ across), there @ down / (down @ down)
            hit = (t > 0.05) & (t < depth) & (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
            h, w = plane.texture.shape[:2]
            maps = np.dstack([u * w - 0.5, v * h - 0.5]).astype(np.float32)
            colours = cv2.remap(
                plane.texture, maps, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            picture[hit] = colours[hit]
            depth[hit] = t[hit]
            moved[hit] = plane.velocity
        points = eye + rays * depth[..., None]
        return picture, depth, lambda d: points + d * moved


def texture(seed: int, size: tuple[int, int] = (512, 512), coarse: int = 12) -> Image:
    """Blotches, lines and grain in colours of their own."""
    draw = np.random.default_rng(seed)
    width, height = size
    total = np.zeros((height, width, 3), np.float32)
    for scale, weight, hue in ((coarse, 0.5, 0.4), (coarse * 4, 0.3, 0.2), (coarse * 12, 0.2, 0.0)):
        rows = max(height * scale // width, 2)
        noise = draw.random((rows, scale, 1)) * (1 - hue) + hue * draw.random((rows, scale, 3))
        total += weight * cv2.resize(noise.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    total = np.clip((total - 0.5) * 1.2 + draw.uniform(0.3, 0.7, 3), 0, 1)
    picture = np.ascontiguousarray(np.rint(total * 255).astype(np.uint8))
    for _ in range(12):
        a, b = draw.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(picture, a, b, draw.integers(0, 255, 3).tolist(), 3, cv2.LINE_AA)
    return picture


def street(size: tuple[int, int] = (320, 180), **how: Any) -> World:
    """A floor, a far wall, two posts near the camera, and a sign that goes its own way."""

    def paint(seed: int, width: int, height: int) -> Image:
        """As fine as the picture's pixels."""
        scale = size[0] / 640
        return texture(seed, (round(width * scale), round(height * scale)), round(width * scale / 40))

    planes = (
        Plane((-12, -6, 14), (24, 0, 0), (0, 9, 0), paint(1, 1024, 384)),
        Plane((-12, 1.2, 14), (24, 0, 0), (0, 0, -14), paint(2, 1024, 640)),
        Plane((-2.6, -2, 5), (0.7, 0, 0), (0, 3.2, 0), paint(3, 128, 512)),
        Plane((1.4, -2, 3.6), (0.5, 0, 0), (0, 3.2, 0), paint(4, 128, 512)),
        Plane((-0.8, -0.6, 4.4), (0.9, 0, 0), (0, 0.7, 0), paint(5, 256, 200), (0.03, 0, 0)),
    )
    return World(planes, size, **how)
