"""Conventions: the meaning of an engine's motion vectors and depth, and their conversion to a frame's.

Arrays of other libraries, taken without a copy.
"""

from dataclasses import dataclass
from math import isinf, isnan
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

CPU = (1, 3, 11)
"""DLPack's kDLCPU, and other memory that the CPU can read: page-locked memory of CUDA and of ROCm."""
DEVICES = {2: "a CUDA device", 4: "an OpenCL device", 7: "a Vulkan device", 8: "a Metal device",
           10: "a ROCm device", 13: "CUDA managed memory", 14: "a oneAPI device"}  # fmt: skip
"""Names of the devices, by DLPack's number, from which a picture may come by mistake."""


def as_array(given: Any, what: str) -> npt.NDArray[Any]:
    """Returns NumPy's view of an array in the CPU's memory: one of NumPy's own, or any with DLPack.

    Raises ValueError, naming `what`, for an object that is no array and for an array on a device.
    """
    if isinstance(given, np.ndarray):
        return given  # pyright: ignore[reportUnknownVariableType] - of any type, by the signature
    where = getattr(given, "__dlpack_device__", None)
    if where is None:
        raise ValueError(
            f"{what} is a {type(given).__name__}: give a NumPy array, or one with DLPack, in the "
            "computer's memory"
        )
    kind, number = (int(part) for part in where())
    if kind not in CPU:
        name = DEVICES.get(kind, f"a device of DLPack's kind {kind}")
        raise ValueError(
            f"{what} lies on {name} (number {number}): copy it to the computer's memory first "
            "(PyTorch: .cpu(), CuPy: .get())"
        )
    try:
        return np.from_dlpack(given)
    except (BufferError, RuntimeError, TypeError) as error:
        raise ValueError(f"{what}, a {type(given).__name__}, cannot be read: {error}") from error


Floats = npt.NDArray[np.float32]
Jitter = tuple[float, float]

FARTHEST = 1e9
"""The linear depth that stands for infinity, at the far plane or in the sky."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConvention:
    """The meaning of an engine's motion vectors, in the terms of AMD's FSR2."""

    scale: tuple[float, float] = (1.0, 1.0)
    """The factors that convert a vector to pixels of the colour picture, x right, y down as the picture
    is shown: `(width, height)` for vectors in parts of the picture, `(width / 2, -height / 2)` for
    normalised device coordinates whose y points up."""
    direction: Literal["to_previous", "from_previous"] = "to_previous"
    """`to_previous`: from a pixel's place to its earlier one. `from_previous`: the reverse, which is
    what velocity buffers hold. Either way the vector is stored at the pixel's present place."""
    jittered: bool = False
    """True if the vectors contain the change of the projection's jitter, which is then subtracted."""

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.scale)) or 0 in self.scale:
            raise ValueError(f"a motion scale of {self.scale} says nothing: give two finite numbers")
        if self.direction not in ("to_previous", "from_previous"):
            raise ValueError(
                f"a motion direction {self.direction!r} is unknown: 'to_previous' or 'from_previous'"
            )

    def read(
        self,
        vectors: Floats,
        size: tuple[int, int],
        *,
        jitter: Jitter = (0.0, 0.0),
        before: Jitter = (0.0, 0.0),
    ) -> Floats:
        """Returns vectors (h, w, 2) as `Frame.motion` of a picture of `size` (width, height).

        `jitter` is this frame's, `before` the previous one's, both in pixels, x right, y down. Values
        that are not finite stay so: such a pixel has no history. No value raises an error. The result
        may be `vectors` itself.
        """
        found = resampled(vectors, size)
        sign = 1.0 if self.direction == "to_previous" else -1.0
        scale = (sign * self.scale[0], sign * self.scale[1])
        if scale != (1.0, 1.0):
            found = _floats(cv2.multiply(found, _numbers(*scale)))
        if self.jittered and jitter != before:
            # FSR2 takes (previous - present) jitter out of vectors to the previous frame.
            found = _floats(cv2.add(found, _numbers(jitter[0] - before[0], jitter[1] - before[1])))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthConvention:
    """The meaning of the numbers in an engine's depth buffer."""

    kind: Literal["linear", "device"] = "linear"
    """`linear`: the distance along the view axis, in any unit. `device`: the buffer of a perspective
    projection, 0..1, as Direct3D, Vulkan and (after its viewport transform) OpenGL write it."""
    near: float = 0.1
    """Distance of the near plane; used by `device` depth only."""
    far: float = 1000.0
    """Distance of the far plane; `math.inf` for an infinite one."""
    reversed: bool = False
    """True if 1 is near, as in most engines today."""

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "device"):
            raise ValueError(f"a depth of kind {self.kind!r} is unknown: 'linear' or 'device'")
        if self.kind == "device" and (
            isnan(self.near) or isnan(self.far) or isinf(self.near) or not 0 < self.near < self.far
        ):
            raise ValueError(
                f"near {self.near} and far {self.far} are no planes of a projection: 0 < near < far"
            )

    def read(self, depth: Floats, size: tuple[int, int]) -> Floats:
        """Returns depth (h, w) as `Frame.depth`, linear, of a picture of `size` (width, height).

        Values are clipped to `FARTHEST`, which stands for infinity and for NaN.
        """
        found = resampled(depth, size)
        if self.kind == "device":
            near, far = (self.far, self.near) if self.reversed else (self.near, self.far)
            # z = n f / (f - d (f - n)), with near and far exchanged where 1 is near. Divided by the
            # far plane's distance it also holds for an infinite one.
            if isinf(far):
                slope, base, top = -1.0, 1.0, near
            elif isinf(near):
                slope, base, top = 1.0, 0.0, far
            else:
                slope, base, top = (near - far) / far, 1.0, near
            with np.errstate(over="ignore"):  # as far or as near as can be, then
                under = found * np.float32(slope) + np.float32(base)
            under = np.fmax(under, np.float32(top / FARTHEST))
            return cast("Floats", np.float32(top) / under)
        return cast("Floats", np.fmin(found, np.float32(FARTHEST)))


def jitter_of(jitter: Any) -> Jitter:
    """Returns the two numbers, x and y, of a tuple, list or array. Raises ValueError otherwise."""
    try:
        x, y = (float(number) for number in jitter)
    except (TypeError, ValueError) as error:
        raise ValueError(f"jitter is two numbers, x and y in pixels, not {jitter!r}") from error
    return x, y


def motion_array(motion: Any) -> Floats:
    """Returns an engine's vectors as (h, w, 2) float32, without a copy where they are that.

    Takes (h, w, 2..4), of which the first two numbers count, in any type of float. Raises ValueError.
    """
    return _compact(vectors_of(motion)[..., :2])


def depth_array(depth: Any) -> Floats:
    """Returns an engine's depth as (h, w) float32, from (h, w) or (h, w, 1). Raises ValueError."""
    found = plane_of(depth, "depth", "fu")
    if found.dtype.kind == "u":
        # Unsigned integers are fractions of their largest number, as in texture formats.
        return cast("Floats", found.astype(np.float32) / np.float32(np.iinfo(found.dtype).max))
    return _compact(found)


def reactive_array(reactive: Any) -> Floats:
    """Returns a mask as (h, w) float32 within 0..1, from floats, booleans, or unsigned integers (255 is
    1).

    NaN counts as 1: the history is not trusted there. Raises ValueError.
    """
    found = plane_of(reactive, "reactive", "fub")
    if found.dtype.kind == "b":
        return found.astype(np.float32)
    if found.dtype.kind == "u":
        return cast("Floats", found.astype(np.float32) / np.float32(np.iinfo(found.dtype).max))
    # fmin and fmax take the number where the other is NaN.
    return cast("Floats", np.fmax(np.fmin(found.astype(np.float32), np.float32(1)), np.float32(0)))


def resampled(found: Floats, size: tuple[int, int]) -> Floats:
    """Returns the array at `size` (width, height) by nearest neighbours: a value between two surfaces
    is on neither."""
    if found.shape[1::-1] == size:
        return found
    # The nearest by their centres: INTER_NEAREST is off by up to half a sample.
    return _floats(cv2.resize(found, size, interpolation=cv2.INTER_NEAREST_EXACT))


def vectors_of(motion: Any) -> npt.NDArray[Any]:
    """Returns an engine's vectors, (h, w, 2..4) of any type of float. Raises ValueError for others."""
    found = as_array(motion, "motion")
    if found.ndim != 3 or not 2 <= found.shape[2] <= 4 or 0 in found.shape:
        raise ValueError(f"motion is (height, width, 2), x and y, not {found.shape}")
    return _of_kinds(found, "motion", "f")


def plane_of(given: Any, what: str, kinds: str) -> npt.NDArray[Any]:
    """Returns (h, w) of an array that may be (h, w, 1), of NumPy's `kinds` of numbers. Raises
    ValueError for others."""
    found = as_array(given, what)
    if found.ndim == 3 and found.shape[2] == 1:
        found = found[..., 0]
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"{what} is (height, width), not {found.shape}")
    return _of_kinds(found, what, kinds)


def _of_kinds(found: npt.NDArray[Any], what: str, kinds: str) -> npt.NDArray[Any]:
    if found.dtype.kind not in kinds:
        raise ValueError(f"{what} is float32, or another float, not {found.dtype}")
    return found


def _compact(found: npt.NDArray[Any]) -> Floats:
    if found.dtype == np.float32:
        return np.ascontiguousarray(found)
    with np.errstate(over="ignore", invalid="ignore"):  # such a number is infinite, and stays so
        return np.ascontiguousarray(found.astype(np.float32))


def _numbers(x: float, y: float) -> Any:
    """Returns a number for each channel, which OpenCV takes though its type stubs do not say so."""
    return (x, y, 0.0, 0.0)


def _floats(found: Any) -> Floats:
    return cast("Floats", np.asarray(found))
