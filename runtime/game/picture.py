"""Conversion of engines' pictures to frames and back: orders, strides, rows upside down, floats."""

import time
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from ..adaptive.guided import linear
from ..buffers import BufferPool
from ..frame import RGB, Array, Colour, Frame, PixelFormat
from ..stages.blend import Mask
from .conventions import as_array

Order = Literal["rgba", "bgra", "rgb", "bgr"]
ColourEncoding = Literal["srgb", "linear"]
Picture = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint16]

ORDERS = ("rgba", "bgra", "rgb", "bgr")
TYPES = (np.dtype(np.uint8), np.dtype(np.float16), np.dtype(np.float32))
DEEP = PixelFormat("rgb", 16)
FULL = Colour(range="full")
"""The colour of RGB for a luma model: full range, which wastes none of it on head room."""
BRIGHTEST = 65504.0
"""The largest float16; brighter pixels, infinite ones included, are clipped to it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A picture converted for the models."""

    frame: Frame
    """RGB, its rows from the top: 8 bits of uint8 pictures, 16 of floats."""
    light: Floats | None = None
    """(H, W), 1 or more: the divisor that brought each pixel within 0..1; None where all were."""


class Pictures:
    """Converts an engine's pictures to frames, and results to such pictures. Used from one thread.

    uint8 pictures are sRGB, as they are shown. Floats are 0..1 in the engine's encoding: linear light
    is encoded by sRGB's curve for the models, and decoded after them. Where the brightest channel of a
    float pixel is above 1, the pixel is divided by it for the models and its result multiplied by it:
    highlights keep their brightness and hue. Negative numbers and NaN count as 0. Alpha is not seen by
    the models and stays unchanged.

    Memory is reused once nobody references it.
    """

    def __init__(
        self, order: Order, *, flipped: bool, encoding: ColourEncoding, opacity: bool = False
    ) -> None:
        """`opacity` gives frames the pictures' alpha, for a mask by it. Raises ValueError for an
        unknown order or encoding."""
        if order not in ORDERS:
            raise ValueError(f"an order of {order!r} is unknown; there are: {', '.join(ORDERS)}")
        if encoding not in ("srgb", "linear"):
            raise ValueError(f"an encoding of {encoding!r} is unknown: 'srgb' or 'linear'")
        self._swapped = order.startswith("b")
        self._flipped = flipped
        self._linear = encoding == "linear"
        self._opacity = opacity
        self._pool = BufferPool()

    def copy(self, picture: Picture) -> Picture:
        """Returns a copy of the picture's pixels, its rows in their own order: the engine may go on
        drawing."""
        copy = self._pool.take(picture.shape, picture.dtype)
        np.copyto(copy, picture)
        return copy

    def frame(self, picture: Picture, index: int, rate: Fraction) -> Taken:
        """Returns the picture as the models see it, without keeping a reference."""
        upright = picture[::-1] if self._flipped else picture
        light: Floats | None = None
        if picture.dtype == np.uint8:
            codes = self._rgb(upright)
        else:
            codes, light = self._codes(upright)
        frame = Frame(
            planes=(codes,),
            format=RGB if picture.dtype == np.uint8 else DEEP,
            pts=index,
            time_base=1 / rate,
            index=index,
            colour=FULL,
            captured=time.monotonic(),
            alpha=self._alpha(upright) if self._opacity and picture.shape[2] == 4 else None,
        )
        return Taken(frame, light)

    def picture(self, made: Frame, taken: Taken, given: Picture, out: Picture | None = None) -> Picture:
        """Returns a result, RGB of the depth of `taken`, in the layout of the picture that it was made
        from.

        It is written to `out`, or to unused memory.
        """
        codes = np.ascontiguousarray(made.planes[0])
        if self._flipped:
            codes = _written(cv2.flip(codes, 0, self._pool.take(codes.shape, codes.dtype)))
        shape = (made.height, made.width, given.shape[2])
        alpha = given[..., 3] if given.shape[2] == 4 else None
        if out is not None and alpha is not None and np.may_share_memory(out, given):
            alpha = alpha.copy()
        target = self._pool.take(shape, given.dtype) if out is None else out
        if given.dtype == np.uint8:
            self._lay(codes, target)
        else:
            self._lay(self._values(codes, taken.light, given.dtype), target)
        if alpha is not None:
            if alpha.shape != shape[:2]:
                alpha = scaled(np.ascontiguousarray(alpha), (made.width, made.height))
            np.copyto(target[..., 3], alpha)
        return target

    def enlarged(self, picture: Picture, size: tuple[int, int], out: Picture | None = None) -> Picture:
        """Returns the unprocessed picture at `size` (width, height), resized fast, for frames that pass
        where results are larger.

        One of that size is returned itself, or copied to `out`.
        """
        if picture.shape[1::-1] != size:
            picture = scaled(self._plain(picture), size)
        if out is None:
            return picture
        np.copyto(out, picture)
        return out

    def _alpha(self, picture: Picture) -> Array:
        """Returns (H, W), a copy in the frame's depth."""
        alpha = picture[..., 3]
        if picture.dtype == np.uint8:
            return np.ascontiguousarray(alpha)
        part = np.nan_to_num(np.clip(alpha.astype(np.float32), 0, 1))
        return np.rint(part * DEEP.peak).astype(DEEP.dtype)

    def _rgb(self, picture: Picture) -> Array:
        """Returns (H, W, 3) in memory of its own: R, G, B, whatever the order was."""
        codes = self._pool.take((*picture.shape[:2], 3), picture.dtype)
        code = _conversion(picture.shape[2], 3, self._swapped)
        if code is None:
            np.copyto(codes, picture)
        else:
            cv2.cvtColor(self._plain(picture), code, codes)
        return codes

    def _lay(self, codes: Picture, target: Picture) -> None:
        """Write R, G, B in the engine's order; alpha is set afterwards."""
        code = _conversion(3, target.shape[2], self._swapped)
        if code is None:
            np.copyto(target, codes)
        elif _is_plain(target) and target.dtype == codes.dtype and target.dtype != np.float16:
            cv2.cvtColor(codes, code, target)
        else:
            made = self._pool.take((*codes.shape[:2], target.shape[2]), codes.dtype)
            if codes.dtype == np.float16:
                # OpenCV 4 takes no half floats, but their bits.
                cv2.cvtColor(codes.view(np.uint16), code, made.view(np.uint16))
            else:
                cv2.cvtColor(codes, code, made)
            np.copyto(target[..., :3], made[..., :3])

    def _plain(self, picture: Picture) -> Picture:
        """Returns the picture for OpenCV: a copy where rows go backwards or pixels have gaps."""
        return picture if _is_plain(picture) else self.copy(picture)

    def _codes(self, picture: Picture) -> tuple[Array, Floats | None]:
        """Returns (H, W, 3) uint16, sRGB, of floats, and the divisors of bright pixels."""
        if picture.dtype == np.float16:
            bits = cast("Codes", self._rgb(picture.view(np.uint16)))
            # Of the signed numbers with the same bits, those of floats above 1 are above 1's.
            if int(bits.view(np.int16).max()) <= ONE:
                table = _codes_of_halves(self._linear)
                return np.take(table, bits), None
            values = bits.view(np.float16).astype(np.float32)
        else:
            values = cast("Floats", self._rgb(picture))
        return self._codes_of(values)

    def _codes_of(self, values: Floats) -> tuple[Array, Floats | None]:
        light: Floats | None = None
        if not float(values.max()) <= 1:  # no number is, where one of them is none
            values = np.fmin(np.fmax(values, np.float32(0)), np.float32(BRIGHTEST))
            light = cast("Floats", np.maximum(values.max(axis=2), np.float32(1)))
            values = cast("Floats", values / light[..., None])
        if self._linear:
            values = cast("Floats", cv2.sqrt(np.maximum(values, np.float32(0))))
        peak = cast("Any", (65535.0,) * 4)  # a number for each channel, which OpenCV's types forget
        codes = cast("Codes", cv2.multiply(values, peak, dtype=cv2.CV_16U))
        if self._linear:
            codes = np.take(_codes_of_roots(), codes)
        return codes, light

    def _values(self, codes: Array, light: Floats | None, dtype: np.dtype[Any]) -> Picture:
        """Returns floats of 16-bit codes, in the engine's encoding."""
        kind = np.dtype(np.float32) if light is not None else dtype
        values: Picture = np.take(_values_of_codes(self._linear, kind.char), cast("Codes", codes))
        if light is None:
            return values
        if self._flipped:
            light = light[::-1]
        large = scaled(np.ascontiguousarray(light), (codes.shape[1], codes.shape[0]))
        values *= large[..., None]
        return values if dtype == np.float32 else values.astype(dtype)


ONE = 0x3C00
"""The bit pattern of float16's 1."""


def picture_array(color: Any, what: str = "color") -> Picture:
    """Returns the engine's picture as NumPy's array, without a copy. Raises ValueError otherwise."""
    found = as_array(color, what)
    if found.ndim != 3 or found.shape[2] not in (3, 4) or 0 in found.shape:
        raise ValueError(f"{what} is (height, width, 3 or 4), not {found.shape}")
    picture_type(found.dtype, what)
    return found


def picture_type(dtype: npt.DTypeLike, what: str = "color") -> np.dtype[Any]:
    """Returns the type as NumPy's. Raises ValueError for one that pictures do not have."""
    found = np.dtype(dtype)
    if found not in TYPES:
        raise ValueError(f"{what} is uint8, float16 or float32, not {found}")
    return found


def mask_of(mask: Any, size: tuple[int, int], *, flipped: bool) -> Mask | Literal["alpha"] | None:
    """Returns the mask of a post-process for pictures of `size` (width, height): by a file, which is
    upright, or an array, whose rows are in the pictures' order.

    Raises ValueError for an array that is no mask, SourceError for a file that is none or for another
    shape than the pictures'.
    """
    if mask is None:
        return None
    if isinstance(mask, str) and mask == "alpha":
        return "alpha"
    if isinstance(mask, str | Path):
        return Mask.load(mask).fitted(size)
    levels = as_array(mask, "the mask")
    return Mask(levels[::-1] if flipped else levels).fitted(size)


def out_array(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Picture:
    """Returns the array that a result is to be written to. Raises ValueError where it does not fit."""
    found = as_array(out, "out")
    if found.shape != shape or found.dtype != dtype:
        raise ValueError(f"out is {found.shape} of {found.dtype}, and the result {shape} of {dtype}")
    if not found.flags.writeable:
        raise ValueError("out is read-only: give an array that can be written to")
    return found


def scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    """Returns the picture at `size` (width, height), bilinear; averaged where it shrinks by much."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    if picture.dtype == np.float16:
        return linear(picture.astype(np.float32), size).astype(np.float16)
    return linear(picture, size)


def _is_plain(picture: Picture) -> bool:
    """Returns whether OpenCV reads and writes it in place: pixels side by side, rows in order."""
    height, width, channels = picture.shape
    row, pixel, sample = picture.strides
    size = picture.itemsize
    return (
        (sample == size or channels == 1)
        and pixel == channels * size  # of one pixel, too: OpenCV looks
        and (row >= width * channels * size or height == 1)
        and row % size == 0
    )


def _conversion(before: int, after: int, swapped: bool) -> int | None:
    """Returns OpenCV's code for a change of order; None where nothing changes."""
    codes = {
        (3, 3, True): cv2.COLOR_BGR2RGB,
        (4, 3, False): cv2.COLOR_RGBA2RGB,
        (4, 3, True): cv2.COLOR_BGRA2RGB,
        (3, 4, False): cv2.COLOR_RGB2RGBA,
        (3, 4, True): cv2.COLOR_RGB2BGRA,
    }
    return codes.get((before, after, swapped))


def _encoded(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns linear light encoded by sRGB's curve (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _decoded(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns sRGB decoded to linear light."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def _codes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    return np.rint(values * 65535).astype(np.uint16)


@lru_cache(maxsize=2)
def _codes_of_halves(linear: bool) -> npt.NDArray[np.uint16]:
    """Returns the 16-bit sRGB code of every float16 by its bits, clipped to 0..1; NaN gives 0."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    values = np.fmin(np.fmax(halves, 0.0), 1.0)
    return _codes(_encoded(values) if linear else values)


@lru_cache(maxsize=1)
def _codes_of_roots() -> npt.NDArray[np.uint16]:
    """Returns the 16-bit sRGB codes of the square roots of linear light, in 16 bits: fine enough where
    it is dark."""
    return _codes(_encoded((np.arange(65536) / 65535) ** 2))


@lru_cache(maxsize=4)
def _values_of_codes(linear: bool, kind: str) -> Picture:
    """Returns the floats, of the type with that letter, of all 16-bit codes."""
    values = np.arange(65536) / 65535
    return (_decoded(values) if linear else values).astype(np.dtype(kind))


def _written(array: Any) -> Array:
    return cast("Array", np.asarray(array))
