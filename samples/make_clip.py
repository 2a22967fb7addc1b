"""Renders the sample clip: a 3-D street with camera motion, thin lines, text, fine texture and sound.

Everything is procedural: textured quads with perspective and mip levels, a ray-cast tiled floor, wires
and lattices as projected lines. Frames are drawn twice as large per axis and averaged down.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

SUPERSAMPLE = 2
RATE = 48_000
FOCAL = 1.05
"""Focal length over half the picture's height times 16:9: a slightly wide lens."""
SKY_TOP, SKY_LOW = (70, 120, 205), (245, 215, 175)


@dataclass(frozen=True, slots=True)
class Camera:
    """Eye position, yaw and pitch (radians), for a picture of `size` (width, height)."""

    eye: Points
    yaw: float
    pitch: float
    size: tuple[int, int]

    def view(self, points: Points) -> Points:
        """World points (N, 3) to camera space: x right, y up, z forward."""
        p = points - self.eye
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        x, z = p[:, 0] * c - p[:, 2] * s, p[:, 0] * s + p[:, 2] * c
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        return np.stack([x, p[:, 1] * c - z * s, p[:, 1] * s + z * c], 1)

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL * self.size[1]

    def project(self, points: Points) -> Points:
        """World points (N, 3), all in front of the eye, to pixels (N, 2)."""
        p = self.view(points)
        z = np.maximum(p[:, 2], 0.05)
        x = self.size[0] / 2 + self.focal * p[:, 0] / z
        return np.stack([x, self.size[1] / 2 - self.focal * p[:, 1] / z], 1)


class Canvas:
    """The picture being drawn, far things first."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.pixels = np.zeros((camera.size[1], camera.size[0], 3), np.uint8)
        self.unit = camera.size[1] / 720

    def quad(self, corners: Points, texture: "Texture") -> None:
        """A textured quad; corners top-left, top-right, bottom-right, bottom-left."""
        screen = self.camera.project(corners)
        lowest = np.maximum(np.floor(screen.min(0)) - 1, 0).astype(int)
        highest = np.minimum(np.ceil(screen.max(0)) + 2, self.camera.size).astype(int)
        width, height = highest - lowest
        if width <= 0 or height <= 0:
            return
        sides = [np.linalg.norm(screen[1] - screen[0]), np.linalg.norm(screen[3] - screen[0])]
        image = texture.level(max(sides[0], 1.0), max(sides[1], 1.0))
        rows, columns = image.shape[:2]
        source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32) - 0.5
        target = (screen - lowest - 0.5).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        drawn = cv2.warpPerspective(image, matrix, (int(width), int(height)), flags=cv2.INTER_LINEAR)
        self.blend(drawn, lowest)

    def blend(self, drawn: Image, corner: npt.NDArray[np.int64]) -> None:
        """Lay a picture with alpha (premultiplied) over the canvas."""
        rows = slice(corner[1], corner[1] + drawn.shape[0])
        columns = slice(corner[0], corner[0] + drawn.shape[1])
        below = self.pixels[rows, columns].astype(np.float32)
        alpha = drawn[:, :, 3:].astype(np.float32) / 255
        self.pixels[rows, columns] = np.minimum(drawn[:, :, :3] + below * (1 - alpha), 255)

    def line(self, points: Points, colour: tuple[int, int, int], thickness: float) -> None:
        """A polyline in space; `thickness` in pixels of a 720-line picture."""
        screen = np.round(self.camera.project(points) * 16).astype(np.int32)
        width = max(round(thickness * self.unit), 1)
        cv2.polylines(self.pixels, [screen], False, colour, width, cv2.LINE_AA, 4)

    def polygon(self, points: Points, colour: tuple[int, int, int]) -> None:
        """A flat polygon in space."""
        screen = np.round(self.camera.project(points) * 16).astype(np.int32)
        cv2.fillPoly(self.pixels, [screen], colour, cv2.LINE_AA, 4)


class Texture:
    """A premultiplied RGBA picture with its halved copies."""

    def __init__(self, pixels: Image) -> None:
        if pixels.shape[2] == 3:
            pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        alpha = pixels[:, :, 3:].astype(np.float32) / 255
        pixels[:, :, :3] = (pixels[:, :, :3] * alpha).astype(np.uint8)
        self.levels = [pixels]
        while min(self.levels[-1].shape[:2]) > 8:
            half = cv2.resize(self.levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(half, np.uint8))

    def level(self, width: float, height: float) -> Image:
        """The smallest copy that still has as many pixels as it will cover."""
        ratio = min(self.levels[0].shape[1] / width, self.levels[0].shape[0] / height)
        return self.levels[
            int(np.clip(np.floor(np.log2(max(ratio, 1.0)) + 0.3), 0, len(self.levels) - 1))
        ]


def noise(rng: np.random.Generator, height: int, width: int, octaves: int, cell: int) -> Points:
    """Smooth noise in 0..1: octaves of blurred random grids, each half as large and half as strong."""
    total = np.zeros((height, width))
    for octave in range(octaves):
        size = max(cell >> octave, 1)
        grid = rng.random((height // size + 3, width // size + 3)).astype(np.float32)
        large = cv2.resize(
            grid,
            ((width // size + 3) * size, (height // size + 3) * size),
            interpolation=cv2.INTER_CUBIC,
        )
        total += large[:height, :width] / 2**octave
    total -= total.min()
    return total / total.max()


def sky(rng: np.random.Generator) -> Texture:
    """A gradient with clouds."""
    height, width = 700, 2000
    t = np.linspace(0, 1, height)[:, None, None] ** 0.8
    base = np.array(SKY_TOP) * (1 - t) + np.array(SKY_LOW) * t
    clouds = np.clip((noise(rng, height, width, 6, 256) - 0.5) * 3.2, 0, 1)[:, :, None]
    clouds *= np.clip(1.2 - np.abs(t - 0.45) * 1.8, 0, 1)
    return Texture((base * (1 - clouds) + np.array([255, 246, 235]) * clouds).astype(np.uint8))


def hill(rng: np.random.Generator, near: tuple[int, int, int], height: float) -> Texture:
    """A ridge against the sky, lighter at its top, transparent above."""
    rows, columns = 256, 2048
    ridge = noise(rng, 1, columns, 5, 512)[0] * height + 0.15
    y = 1 - np.arange(rows)[:, None] / rows
    body = np.array(near) * (0.75 + 0.5 * noise(rng, rows, columns, 5, 32)[:, :, None])
    alpha = np.clip((ridge[None] - y) * rows, 0, 1) * 255
    return Texture(np.dstack([np.clip(body, 0, 255), alpha]).astype(np.uint8))


def bricks(rng: np.random.Generator, colour: tuple[int, int, int], windows: int) -> Texture:
    """A brick wall with mortar and a row of windows with bars."""
    rows, columns = 512, 768
    wall = np.zeros((rows, columns, 3))
    for row in range(rows // 16):
        for column in range(-1, columns // 40 + 1):
            left = column * 40 + (row % 2) * 20
            shade = np.array(colour) * rng.uniform(0.78, 1.12)
            wall[row * 16 + 1 : row * 16 + 15, max(left + 1, 0) : max(left + 39, 0)] = shade
    wall[wall.sum(2) == 0] = (196, 188, 176)
    picture = np.clip(wall + rng.normal(0, 6, wall.shape), 0, 255).astype(np.uint8)
    for index in range(windows):
        left = int((index + 0.5) * columns / windows - 55)
        for top in (70, 290):
            cv2.rectangle(picture, (left - 7, top - 7), (left + 117, top + 147), (236, 232, 222), -1)
            cv2.rectangle(picture, (left, top), (left + 110, top + 140), (58, 74, 104), -1)
            cv2.line(
                picture, (left + 8, top + 120), (left + 90, top + 20), (112, 136, 170), 5, cv2.LINE_AA
            )
            for x in (0, 55, 110):
                cv2.line(picture, (left + x, top), (left + x, top + 140), (236, 232, 222), 4)
            for y in (0, 70, 140):
                cv2.line(picture, (left, top + y), (left + 110, top + y), (236, 232, 222), 4)
    return Texture(picture)


def roof(rng: np.random.Generator) -> Texture:
    """Rows of round tiles."""
    y, x = np.mgrid[0:256, 0:512]
    shift = (y // 20 % 2) * 10
    edge = ((y % 20) / 20 * 0.5 + 0.5) * (0.8 + 0.2 * np.cos((x + shift) * np.pi / 10))
    red = np.array([176, 84, 58]) * edge[:, :, None] * (0.9 + 0.2 * rng.random((256, 512, 1)))
    return Texture(np.clip(red, 0, 255).astype(np.uint8))


def sign() -> Texture:
    """The name in large letters, and lines of small print."""
    board = np.full((360, 640, 3), (248, 240, 218), np.uint8)
    cv2.rectangle(board, (8, 8), (631, 351), (52, 70, 110), 8)
    cv2.putText(
        board, "VELATURA", (48, 130), cv2.FONT_HERSHEY_TRIPLEX, 3.35, (150, 44, 40), 7, cv2.LINE_AA
    )
    lines = (
        "A thin, translucent coat laid over",
        "a finished picture, frame by frame.",
        "Open daily 09:30 - 17:45   No. 1884",
    )
    for number, line in enumerate(lines):
        place = (46, 200 + number * 52)
        cv2.putText(board, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.93, (44, 50, 66), 2, cv2.LINE_AA)
    return Texture(board)


def tree(rng: np.random.Generator) -> Texture:
    """A crown of many leaves on a trunk."""
    picture = np.zeros((512, 384, 4), np.uint8)
    cv2.line(picture, (192, 511), (192, 250), (84, 62, 46, 255), 22, cv2.LINE_AA)
    for _ in range(1500):
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        x, y = 192 + 165 * radius * np.cos(angle), 190 + 165 * radius * np.sin(angle)
        light = 0.62 + 0.5 * (1 - y / 380) + rng.uniform(-0.18, 0.18)
        colour = (*(np.clip(np.array([72, 122, 48]) * light, 0, 255)), 255)
        cv2.ellipse(
            picture, (int(x), int(y)), (9, 5), rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA
        )
    return Texture(picture)


def floor(canvas: Canvas, rng_texture: Points) -> None:
    """A tiled square before a meadow, ray-cast; patterns fade where a pixel covers more than a tile."""
    camera = canvas.camera
    width, height = camera.size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    right, up = (x + 0.5 - width / 2) / camera.focal, (height / 2 - y - 0.5) / camera.focal
    c, s = np.cos(camera.pitch), np.sin(camera.pitch)
    rise, ahead = up * c + s, c - up * s
    below = rise < -1e-3
    distance = np.where(below, -camera.eye[1] / np.minimum(rise, -1e-3), 0)
    c, s = np.cos(camera.yaw), np.sin(camera.yaw)
    world_x = camera.eye[0] + distance * (right * c + ahead * s)
    world_z = camera.eye[2] + distance * (ahead * c - right * s)
    # Along the view a pixel covers distance^2 / (focal * eye height).
    footprint = distance * distance / (camera.focal * camera.eye[1])
    fade = np.clip(1.2 - footprint / 0.5, 0, 1)
    even = np.sign(np.sin(np.pi * world_x / 0.8) * np.sin(np.pi * world_z / 0.8)) * fade
    joint_x = np.abs((world_x / 0.8 + 0.5) % 1 - 0.5)
    joint_z = np.abs((world_z / 0.8 + 0.5) % 1 - 0.5)
    joint = (np.minimum(joint_x, joint_z) < 0.025) * np.clip(1 - footprint / 0.08, 0, 1)
    rows, columns = rng_texture.shape
    grain = rng_texture[(world_z * 120).astype(int) % rows, (world_x * 120).astype(int) % columns] - 0.5
    grain = grain * np.clip(1 - footprint / 0.03, 0, 1)
    tiles = 168 + 34 * even - 70 * joint + 50 * grain
    square = np.stack([tiles, tiles * 0.94, tiles * 0.85], 2)
    meadow = np.stack([96 + 40 * grain, 138 + 60 * grain, 70 + 30 * grain], 2)
    on_square = (np.abs(world_x) < 5.6)[:, :, None]
    ground = np.where(on_square, square, meadow)
    haze = np.clip(distance / 90, 0, 0.75)[:, :, None]
    ground = ground * (1 - haze) + np.array([206, 200, 176]) * haze
    canvas.pixels[below] = np.clip(ground, 0, 255).astype(np.uint8)[below]


def wall(left: tuple[float, float], right: tuple[float, float], low: float, high: float) -> Points:
    """An upright quad over a line on the ground, (x, z) to (x, z)."""
    (x0, z0), (x1, z1) = left, right
    return np.array([[x0, high, z0], [x1, high, z1], [x1, low, z1], [x0, low, z0]], np.float64)


class Street:
    """The scene; draws itself at any time."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1884)
        self.sky = sky(rng)
        self.hills = [hill(rng, (118, 138, 158), 0.8), hill(rng, (92, 124, 84), 0.6)]
        self.walls = [
            bricks(rng, (172, 104, 80), 3),
            bricks(rng, (196, 158, 104), 3),
            bricks(rng, (146, 112, 118), 3),
        ]
        self.roof = roof(rng)
        self.sign = sign()
        self.trees = [tree(rng) for _ in range(2)]
        self.grain = noise(rng, 512, 512, 3, 8)

    def camera(self, seconds: float, size: tuple[int, int]) -> Camera:
        """A slow walk forward with a turn of the head."""
        t = seconds / 6.0
        eye = np.array([-1.1 + 1.7 * t, 1.75 + 0.08 * np.sin(2 * np.pi * t), 0.5 + 3.6 * t])
        return Camera(eye, np.radians(-7 + 13 * t), np.radians(3.0), size)

    def draw(self, seconds: float, size: tuple[int, int], *, lamp: bool) -> Image:
        """The picture at a time, (H, W, 3) RGB."""
        large = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
        canvas = Canvas(self.camera(seconds, large))
        canvas.quad(wall((-220, 150), (220, 150), -12, 120), self.sky)
        canvas.quad(wall((-170, 120), (170, 120), -6, 30), self.hills[0])
        canvas.quad(wall((-120, 80), (120, 80), -3, 13), self.hills[1])
        floor(canvas, self.grain)
        self._windmill(canvas, seconds)
        canvas.quad(wall((1.9, 36), (5.9, 36), 0, 5.4), self.trees[0])
        canvas.quad(wall((-8.2, 33), (-4.0, 33), 0, 5.6), self.trees[1])
        self._house(canvas, 5.8, 17, 24, self.walls[1], 4.8)
        self._house(canvas, -5.8, 14, 22, self.walls[0], 5.2)
        self._fence(canvas)
        self._house(canvas, 5.8, 8.5, 14.5, self.walls[2], 4.2)
        self._wires(canvas)
        self._sign(canvas)
        self._lamp(canvas, lit=lamp)
        small = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def _house(
        self, canvas: Canvas, x: float, near: float, far: float, face: Texture, high: float
    ) -> None:
        outer = x + np.sign(x) * 6
        front = ((x, near), (outer, near)) if x > 0 else ((outer, near), (x, near))
        side = ((x, far), (x, near)) if x > 0 else ((x, near), (x, far))
        ridge = high + 2.2
        middle = (x + outer) / 2
        slope = np.array([[middle, ridge, far], [middle, ridge, near], [x, high, near], [x, high, far]])
        canvas.quad(slope if x > 0 else slope[[1, 0, 3, 2]], self.roof)
        canvas.quad(wall(*side, 0, high), face)
        canvas.quad(wall(*front, 0, high), face)
        gable = np.array([[x, high, near], [middle, ridge, near], [outer, high, near]], np.float64)
        canvas.polygon(gable, (188, 168, 140))
        canvas.line(gable, (84, 66, 54), 3)

    def _windmill(self, canvas: Canvas, seconds: float) -> None:
        x, z = -1.2, 40.0
        tower = np.array([[x - 2.4, 0, z], [x - 1.5, 8.5, z], [x + 1.5, 8.5, z], [x + 2.4, 0, z]])
        canvas.polygon(tower, (226, 216, 198))
        canvas.polygon(np.array([[x - 1.8, 8.4, z], [x, 10.6, z], [x + 1.8, 8.4, z]]), (120, 62, 50))
        canvas.polygon(
            np.array([[x - 0.5, 0, z], [x - 0.5, 2.2, z], [x + 0.5, 2.2, z], [x + 0.5, 0, z]]),
            (84, 60, 48),
        )
        hub = np.array([x, 8.3, z - 2])
        for blade in range(4):
            angle = blade * np.pi / 2 + seconds * 0.9
            along = np.array([np.cos(angle), np.sin(angle), 0])
            across = np.array([-np.sin(angle), np.cos(angle), 0])
            canvas.line(np.stack([hub, hub + along * 6.4]), (70, 52, 42), 3)
            for step in np.linspace(1.2, 6.2, 11):
                canvas.line(
                    np.stack([hub + along * step, hub + along * step + across * 1.2]), (96, 76, 60), 1
                )
            canvas.line(
                np.stack([hub + along * 1.2 + across * 1.2, hub + along * 6.2 + across * 1.2]),
                (96, 76, 60),
                1.5,
            )

    def _fence(self, canvas: Canvas) -> None:
        for z in np.arange(24, 8.4, -0.55):
            canvas.line(np.array([[-5.2, 0, z], [-5.2, 1.1, z]]), (64, 60, 62), 2.4 * 9 / z)
        for y in (0.35, 1.0):
            canvas.line(np.array([[-5.2, y, 24], [-5.2, y, 8.5]]), (64, 60, 62), 2)

    def _wires(self, canvas: Canvas) -> None:
        poles = [np.array([4.6, 0, z]) for z in (26.0, 17.0, 9.5)]
        for pole in poles:
            canvas.line(np.stack([pole, pole + np.array([0, 6.2, 0])]), (92, 72, 56), 60 / pole[2])
            canvas.line(
                np.stack([pole + np.array([-0.8, 5.8, 0]), pole + np.array([0.8, 5.8, 0])]),
                (92, 72, 56),
                40 / pole[2],
            )
        t = np.linspace(0, 1, 24)[:, None]
        for first, second in pairwise(poles):
            for offset in (-0.75, -0.25, 0.25, 0.75):
                wire = first * (1 - t) + second * t + [offset, 5.85, 0]
                wire[:, 1] -= 0.55 * (1 - (2 * t[:, 0] - 1) ** 2)
                canvas.line(wire, (48, 46, 52), 1.2)

    def _sign(self, canvas: Canvas) -> None:
        for x in (-3.9, -2.3):
            canvas.line(np.array([[x, 0, 9.0], [x, 2.9, 9.0]]), (74, 58, 48), 7)
        canvas.quad(wall((-4.25, 8.98), (-1.95, 8.98), 1.35, 2.65), self.sign)

    def _lamp(self, canvas: Canvas, *, lit: bool) -> None:
        canvas.line(np.array([[2.5, 0, 8.0], [2.5, 3.0, 8.0]]), (44, 48, 56), 6)
        centre = canvas.camera.project(np.array([[2.5, 3.15, 8.0]]))[0]
        place = (int(centre[0] * 16), int(centre[1] * 16))
        radius = int(17 * canvas.unit * 16)
        if lit:
            glow = np.zeros_like(canvas.pixels)
            cv2.circle(glow, place, radius * 2, (150, 120, 60), -1, cv2.LINE_AA, 4)
            glow = np.asarray(cv2.GaussianBlur(glow, (0, 0), 22 * canvas.unit), np.uint8)
            canvas.pixels = np.asarray(cv2.add(canvas.pixels, glow), np.uint8)
        cv2.circle(
            canvas.pixels,
            place,
            radius,
            (255, 246, 200) if lit else (112, 110, 104),
            -1,
            cv2.LINE_AA,
            4,
        )
        cv2.circle(
            canvas.pixels, place, radius, (44, 48, 56), max(round(3 * canvas.unit), 1), cv2.LINE_AA, 4
        )


def sound(seconds: float) -> npt.NDArray[np.float32]:
    """(samples, 2): slow chords, and a click at every full second, when the lamp lights."""
    t = np.arange(int(seconds * RATE)) / RATE
    chords = ((220.0, 277.18, 329.63), (196.0, 246.94, 293.66), (174.61, 220.0, 261.63))
    left, right = np.zeros_like(t), np.zeros_like(t)
    for number, chord in enumerate(chords):
        start = number * seconds / 3
        envelope = np.clip((t - start) / 0.25, 0, 1) * np.clip(
            (start + seconds / 3 + 0.3 - t) / 0.5, 0, 1
        )
        for index, pitch in enumerate(chord):
            tone = np.sin(2 * np.pi * pitch * t) + 0.3 * np.sin(4 * np.pi * pitch * t)
            left += envelope * tone * (0.05 + 0.02 * index)
            right += envelope * tone * (0.09 - 0.02 * index)
    since = t % 1.0
    click = 0.5 * np.exp(-since * 90) * np.sin(2 * np.pi * 1760 * since) * (t >= 1.0)
    return np.stack([left + click, right + click], 1).astype(np.float32)


def frames(street: Street, size: tuple[int, int], rate: Fraction, seconds: float) -> Iterator[Image]:
    """All pictures; the lamp is lit for two frames from every full second on."""
    for index in range(round(seconds * rate)):
        moment = float(index / rate)
        lit = moment >= 1 and (index - round(int(moment + 1e-9) * rate)) in (0, 1)
        yield street.draw(moment, size, lamp=lit)


def write(path: Path, size: tuple[int, int], rate: Fraction, seconds: float) -> None:
    """Render and encode; the file appears under its name when it is whole."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    with av.open(str(partial), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream(
            "libx264", rate=rate, options={"crf": "24", "preset": "veryslow", "tune": "animation"}
        )
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        audio.bit_rate = 96_000
        for pixels in frames(Street(), size, rate, seconds):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            coded = picture.reformat(format="yuv420p", dst_colorspace="ITU709", interpolation="AREA")
            container.mux(video.encode(coded))
        container.mux(video.encode(None))
        samples = sound(seconds)
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[start : start + 1024].T)
            heard = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            heard.sample_rate, heard.pts, heard.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(heard))
        container.mux(audio.encode(None))
    partial.replace(path)


def main() -> None:
    """Read the options and render."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).with_name("clip.mp4"))
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--fps", type=Fraction, default=Fraction(30))
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    write(options.out, (width, height), options.fps, options.seconds)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
