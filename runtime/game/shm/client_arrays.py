"""A client's arrays in shared memory: each is copied once, straight to its place."""

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..conventions import as_array
from . import layout
from .layout import Request
from .slot_client import Link

if TYPE_CHECKING:
    from ..conventions import DepthConvention, MotionConvention

Picture = npt.NDArray[np.uint8]
Order = Literal["rgba", "bgra", "rgb", "bgr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """The inputs beside a picture, as they were given."""

    motion: npt.NDArray[Any] | None
    depth: npt.NDArray[Any] | None
    reactive: npt.NDArray[Any] | None
    jitter: tuple[float, float]
    flags: int

    def fit(self, link: Link) -> bool:
        """Returns whether the server takes arrays of these sizes."""
        given = (self.motion, self.depth, self.reactive)
        return all(one is None or link.fits(one.shape[1], one.shape[0]) for one in given)


class Sending:
    """The format of one client's pictures. Raises ValueError for an unknown order."""

    def __init__(
        self,
        order: Order,
        *,
        flipped: bool,
        motion: "MotionConvention | None",
        depth: "DepthConvention | None",
    ) -> None:
        if order not in ("rgba", "bgra", "rgb", "bgr"):
            raise ValueError(f"order {order!r} is not rgba, bgra, rgb or bgr")
        self.channels = len(order)
        self._format = layout.BGRA if order.startswith("b") else layout.RGBA
        self._flags = layout.FLIPPED if flipped else 0
        self._scale = motion.scale if motion is not None else (1.0, 1.0)
        if motion is not None:
            self._flags |= layout.JITTERED if motion.jittered else 0
            self._flags |= layout.FROM_PREVIOUS if motion.direction == "from_previous" else 0
        self._planes = (depth.near, depth.far) if depth is not None else (0.1, 1000.0)
        if depth is not None and depth.kind == "device":
            self._flags |= layout.DEVICE_DEPTH | (layout.REVERSED if depth.reversed else 0)

    def picture(self, color: Any, what: str = "color") -> Picture:
        """Returns a picture as NumPy's array. Raises ValueError for one that is not of this order."""
        found = as_array(color, what)
        if found.ndim != 3 or found.shape[2] != self.channels or 0 in found.shape:
            raise ValueError(f"{what} is (height, width, {self.channels}), not {found.shape}")
        if found.dtype != np.uint8:
            raise ValueError(
                f"{what} is uint8, sRGB, between processes, not {found.dtype}: `PostProcess` takes "
                "floats, in the game's own process"
            )
        return found

    def extras(
        self,
        motion: Any,
        depth: Any,
        reactive: Any,
        jitter: tuple[float, float],
        *,
        bypass: bool,
    ) -> Extras:
        """Returns the inputs beside a picture. Raises ValueError for arrays that do not fit."""
        flags = self._flags | (layout.BYPASS if bypass else 0)
        moved = None if motion is None else as_array(motion, "motion")
        if moved is not None and (moved.ndim != 3 or not 2 <= moved.shape[2] <= 4 or 0 in moved.shape):
            raise ValueError(f"motion is (height, width, 2), x and y, not {moved.shape}")
        if moved is not None and moved.dtype.kind != "f":
            raise ValueError(f"motion is float32, or another float, not {moved.dtype}")
        if not all(isfinite(part) for part in jitter):
            raise ValueError(f"a jitter of {jitter} pixels")
        for flag, one in ((layout.MOTION, motion), (layout.DEPTH, depth), (layout.REACTIVE, reactive)):
            flags |= flag if one is not None else 0
        return Extras(
            motion=moved,
            depth=None if depth is None else _plane(depth, "depth", "fu"),
            reactive=None if reactive is None else _plane(reactive, "reactive", "fub"),
            jitter=(float(jitter[0]), float(jitter[1])),
            flags=flags,
        )

    def write(self, picture: Picture, extras: Extras, link: Link) -> tuple[Request, Picture]:
        """Writes the arrays to the places of the link's next frame. Raises EngineError without
        memory."""
        height, width = picture.shape[:2]
        colour = link.colour(width, height)
        self._copy(picture, colour)
        sizes: dict[str, int] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is infinite then
            if extras.motion is not None:
                rows, columns = extras.motion.shape[:2]
                place = link.extra(2, np.float32, (rows, columns, 2))
                np.copyto(place, extras.motion[..., :2], casting="same_kind")
                sizes |= {"motion_width": columns, "motion_height": rows}
            if extras.depth is not None:
                rows, columns = extras.depth.shape
                place = link.extra(3, np.float32, (rows, columns))
                _depth(extras.depth, place)
                sizes |= {"depth_width": columns, "depth_height": rows}
            if extras.reactive is not None:
                rows, columns = extras.reactive.shape
                place = link.extra(4, np.uint8, (rows, columns))
                _reactive(extras.reactive, place)
                sizes |= {"reactive_width": columns, "reactive_height": rows}
        request = Request(
            sequence=0,
            width=width,
            height=height,
            stride=width * 4,
            format=self._format,
            flags=extras.flags,
            jitter_x=extras.jitter[0],
            jitter_y=extras.jitter[1],
            motion_scale_x=self._scale[0],
            motion_scale_y=self._scale[1],
            depth_near=self._planes[0],
            depth_far=self._planes[1],
            **sizes,
        )
        return request, colour

    def seen(self, picture: Picture) -> Picture:
        """Returns a picture in shared memory with as many channels as were given."""
        return picture[..., : self.channels]

    def _copy(self, picture: Picture, colour: Picture) -> None:
        if _begin(picture) == _begin(colour) and picture.strides == colour.strides:
            return  # it was drawn here
        if self.channels == 4:
            np.copyto(colour, picture)
            return
        import cv2

        # The channels keep their order; four times as fast as NumPy's three of every four bytes.
        cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2RGBA, dst=colour)


def lay(shown: Picture, target: Picture) -> None:
    """Copy a picture into one of the same channels, resized where their sizes differ."""
    if shown.shape == target.shape:
        np.copyto(target, shown)
        return
    import cv2

    size = target.shape[1], target.shape[0]
    np.copyto(target, cv2.resize(np.ascontiguousarray(shown), size, interpolation=cv2.INTER_LINEAR))


def _begin(picture: Picture) -> int:
    return int(picture.__array_interface__["data"][0])


def _plane(given: Any, what: str, kinds: str) -> npt.NDArray[Any]:
    found = as_array(given, what)
    if found.ndim == 3 and found.shape[2] == 1:
        found = found[..., 0]
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"{what} is (height, width), not {found.shape}")
    if found.dtype.kind not in kinds:
        raise ValueError(f"{what} is float32, or another float, not {found.dtype}")
    return found


def _depth(depth: npt.NDArray[Any], place: npt.NDArray[np.float32]) -> None:
    if depth.dtype.kind == "u":
        # Unsigned integers are fractions of their largest number, as in texture formats.
        np.multiply(depth, np.float32(1 / np.iinfo(depth.dtype).max), out=place, casting="unsafe")
    else:
        np.copyto(place, depth, casting="same_kind")


def _reactive(reactive: npt.NDArray[Any], place: npt.NDArray[np.uint8]) -> None:
    if reactive.dtype == np.uint8:
        np.copyto(place, reactive)
    elif reactive.dtype.kind == "b":
        np.multiply(reactive, np.uint8(255), out=place)
    elif reactive.dtype.kind == "u":
        np.multiply(reactive, 255 / np.iinfo(reactive.dtype).max, out=place, casting="unsafe")
    else:
        # fmin takes the number where the other is NaN, which counts as 1.
        codes = np.fmax(np.fmin(reactive.astype(np.float32), np.float32(1)), np.float32(0))
        np.copyto(place, np.rint(codes * np.float32(255)), casting="unsafe")
