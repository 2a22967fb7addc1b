"""Photographs as training crops: decoded once into memory, drawn by a seeded generator."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

Image = npt.NDArray[np.uint8]


def data_root() -> Path:
    """Where weights, photographs and paintings lie: `$VELATURA_DATA`, else `../shared/data`.

    Raises FileNotFoundError when neither exists.
    """
    given = os.environ.get("VELATURA_DATA")
    # Beside the checkout: of the code, or, where that is installed, the one that is worked in.
    checkouts = (Path(__file__).resolve().parents[1], Path.cwd())
    roots = [Path(given)] if given else [path.parent / "shared" / "data" for path in checkouts]
    for root in roots:
        if root.is_dir():
            return root
    raise FileNotFoundError(f"no data folder at {roots[-1]}: set VELATURA_DATA to it")


def read_image(path: Path) -> Image:
    """An RGB picture, (H, W, 3) uint8. Raises ValueError when it cannot be decoded."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is not a picture that can be decoded")
    return np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8, copy=False)


class PhotoCrops:
    """Random square crops with flips and quarter turns; batch `i` is a function of the seed and `i`.

    A resumed run therefore sees the batches that the interrupted one would have seen.
    """

    def __init__(self, folders: Sequence[Path], *, crop: int, seed: int, luma: bool) -> None:
        """Decode every photograph of `folders`.

        `luma` keeps BT.601 limited-range luma only. Raises FileNotFoundError for a folder that is
        missing or holds no usable photograph of at least `crop` pixels.
        """
        self.crop = crop
        self.seed = seed
        self.photos: list[Image] = []
        self.skipped = 0
        for folder in folders:
            self._read_folder(folder, luma)
        sides = np.array([photo.shape[0] * photo.shape[1] for photo in self.photos], np.float64)
        # Larger photographs hold more distinct crops.
        self._share = sides / sides.sum()

    def _read_folder(self, folder: Path, luma: bool) -> None:
        before = len(self.photos)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of photographs at {folder}")
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            try:
                photo = read_image(path)
            except ValueError:
                self.skipped += 1
                continue
            if min(photo.shape[:2]) < self.crop:
                self.skipped += 1
                continue
            self.photos.append(limited_luma(photo) if luma else photo)
        if len(self.photos) == before:
            raise FileNotFoundError(
                f"{folder} holds no photograph of at least {self.crop} pixels "
                f"({self.skipped} broken or too small)"
            )

    def batch(self, index: int, size: int) -> Tensor:
        """(size, C, crop, crop) float32 in 0..1, C = 1 for luma and 3 (RGB) otherwise."""
        draw = np.random.default_rng((self.seed, index))
        numbers: list[int] = draw.choice(len(self.photos), size, p=self._share).tolist()
        crops = np.stack([self._cut(self.photos[number], draw) for number in numbers])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255.0)

    def _cut(self, photo: Image, draw: np.random.Generator) -> Image:
        """One crop, turned and mirrored at random: an upscaler knows no up and down."""
        piece = np.rot90(_square(photo, self.crop, draw), _below(draw, 4))
        return piece[:, ::-1] if _below(draw, 2) else piece


class UprightCrops(PhotoCrops):
    """Crops for style: mirrored but never turned, and of a varying part of the photograph.

    Sky belongs above: a style net learns to treat regions by what they show. Some crops are darkened
    or get a flat patch: photographs lack the black and even areas of games and titles, and a network
    that never saw them paints them in colours of its own.
    """

    def _cut(self, photo: Image, draw: np.random.Generator) -> Image:
        largest = min(photo.shape[0], photo.shape[1], 2 * self.crop)
        piece = _square(photo, self.crop + _below(draw, largest + 1 - self.crop), draw)
        small = cv2.resize(piece, (self.crop, self.crop), interpolation=cv2.INTER_AREA)
        piece = _with_even_areas(np.array(small, np.uint8), draw)
        return piece[:, ::-1] if _below(draw, 2) else piece


def _with_even_areas(piece: Image, draw: np.random.Generator) -> Image:
    """Three crops in ten darkened, by up to all their light; one in four with an even rectangle."""
    if draw.random() < 0.3:
        piece = (piece * draw.random()).astype(np.uint8)
    if draw.random() < 0.25:
        side = piece.shape[0]
        top, left = _below(draw, side), _below(draw, side)
        high, wide = side // 8 + _below(draw, side), side // 8 + _below(draw, side)
        even = np.array([_below(draw, 256) for _ in range(3)]) * (draw.random() < 0.5)
        piece[top : top + high, left : left + wide] = even
    return piece


def _square(photo: Image, side: int, draw: np.random.Generator) -> Image:
    top = _below(draw, photo.shape[0] - side + 1)
    left = _below(draw, photo.shape[1] - side + 1)
    return photo[top : top + side, left : left + side]


def _below(draw: np.random.Generator, end: int) -> int:
    """A number from 0 to `end` - 1."""
    return int(cast(Any, draw).integers(end))


def limited_luma(rgb: Image) -> Image:
    """BT.601 limited-range luma, (H, W, 3) uint8 -> (H, W, 1) uint8: what a video's Y plane holds."""
    weights = np.array([65.481, 128.553, 24.966], np.float32) / 255.0
    return np.round(rgb.astype(np.float32) @ weights + 16.0).astype(np.uint8)[:, :, None]


def bicubic_downscale(images: Tensor, scale: int) -> Tensor:
    """Antialiased bicubic (a = -0.5) reduction, quantised to 8 bits as a decoded frame would be.

    (N, C, H, W) in 0..1 -> (N, C, H / scale, W / scale). Agrees with MATLAB's `imresize`, which made
    the field's standard low-resolution pictures.
    """
    height, width = images.shape[2] // scale, images.shape[3] // scale
    low = F.interpolate(images, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return low.clamp(0.0, 1.0).mul(255.0).round().div(255.0)
