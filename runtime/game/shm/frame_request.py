"""The interface of the post-process that a desk opens.

What a client asks of a frame, once every number of it has been checked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..conventions import DepthConvention, MotionConvention
from . import layout
from .layout import Area, Request
from .segment import Segment

Order = Literal["rgba", "bgra"]
_ORDERS: dict[int, Order] = {layout.RGBA: "rgba", layout.BGRA: "bgra"}
_NOWHERE = 1e6
"""Pixels above which a jitter is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """The meaning of a frame's numbers. A post-process is opened for an order of channels and of rows;
    motion and depth may have another meaning in each frame."""

    order: Order
    flipped: bool
    motion: MotionConvention
    depth: DepthConvention
    deadline_ms: float | None = None
    """Milliseconds that the client waits for a frame; None for no limit."""

    def hold_for(self, asked: "Asked") -> bool:
        """Returns whether a post-process that was opened for these fits that frame."""
        theirs = asked.conventions
        return (theirs.order, theirs.flipped) == (self.order, self.flipped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A frame in shared memory: views, no copies."""

    colour: npt.NDArray[np.uint8]
    """(height, width, 4)."""
    motion: npt.NDArray[np.float32] | None
    depth: npt.NDArray[np.float32] | None
    reactive: npt.NDArray[np.uint8] | None
    """The mask, where 255 is 1."""
    jitter: tuple[float, float]
    cut: bool
    bypass: bool
    conventions: Conventions

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.colour.shape[1], self.colour.shape[0]


def check(request: Request, segment: Segment, slot: int, turn: int, count: int) -> Asked:
    """Returns the request of ring entry `turn`, checked; `count` is the low 32 bits of its number.

    Raises ValueError, for the client to read, for whatever is not within the segment's limits.
    """
    plan = segment.plan
    areas = plan.areas(slot, turn)
    flags = request.flags
    if request.sequence & 0xFFFFFFFF != count:
        raise ValueError(f"the frame's number is {request.sequence}, not {count}")
    if flags & ~layout.KNOWN:
        raise ValueError(f"unknown flags {flags & ~layout.KNOWN:#x}")
    order = _ORDERS.get(request.format)
    if order is None:
        raise ValueError(f"format {request.format} is neither 1 (RGBA) nor 2 (BGRA)")
    colour = _colour(request, areas[0], segment)

    def extra(flag: int, width: int, height: int, area: Area, kind: Any, channels: int) -> Any:
        if not flags & flag:
            return None
        _within(width, height, plan.max_width, plan.max_height, _NAMES[flag])
        size = width * height * channels * np.dtype(kind).itemsize
        found = segment.bytes(area)[:size].view(kind)
        return found.reshape((height, width, channels)[: 2 + (channels > 1)])

    jitter = request.jitter_x, request.jitter_y
    if not all(isfinite(part) and abs(part) <= _NOWHERE for part in jitter):
        raise ValueError(f"a jitter of {jitter} pixels")
    return Asked(
        colour=colour,
        motion=extra(
            layout.MOTION, request.motion_width, request.motion_height, areas[2], np.float32, 2
        ),
        depth=extra(layout.DEPTH, request.depth_width, request.depth_height, areas[3], np.float32, 1),
        reactive=extra(
            layout.REACTIVE, request.reactive_width, request.reactive_height, areas[4], np.uint8, 1
        ),
        jitter=jitter,
        cut=bool(flags & layout.CUT),
        bypass=bool(flags & layout.BYPASS),
        conventions=Conventions(
            order=order,
            flipped=bool(flags & layout.FLIPPED),
            motion=_motion(request),
            depth=_depth(request),
            deadline_ms=request.deadline_us / 1e3 or None,
        ),
    )


_NAMES = {layout.MOTION: "motion", layout.DEPTH: "depth", layout.REACTIVE: "reactive mask"}


def _colour(request: Request, area: Area, segment: Segment) -> npt.NDArray[np.uint8]:
    plan = segment.plan
    width, height, stride = request.width, request.height, request.stride
    _within(width, height, plan.max_width, plan.max_height, "picture")
    if stride < width * 4:
        raise ValueError(f"a stride of {stride} bytes for {width} pixels of 4")
    if stride * (height - 1) + width * 4 > area.size:
        raise ValueError(
            f"{height} rows of {stride} bytes are more than the {area.size} that there are"
        )
    return np.ndarray((height, width, 4), np.uint8, segment.bytes(area), 0, (stride, 4, 1))


def _within(width: int, height: int, most_width: int, most_height: int, what: str) -> None:
    if not (1 <= width <= most_width and 1 <= height <= most_height):
        raise ValueError(
            f"a {what} of {width}x{height}: this server takes 1x1 to {most_width}x{most_height} "
            "(--max-size)"
        )


def _motion(request: Request) -> MotionConvention:
    try:
        return MotionConvention(
            scale=(request.motion_scale_x, request.motion_scale_y),
            direction="from_previous" if request.flags & layout.FROM_PREVIOUS else "to_previous",
            jittered=bool(request.flags & layout.JITTERED),
        )
    except ValueError:
        if request.flags & layout.MOTION:
            raise
        # Without motion it need not mean anything.
        return MotionConvention()


def _depth(request: Request) -> DepthConvention:
    if not request.flags & layout.DEVICE_DEPTH:
        return DepthConvention()
    try:
        return DepthConvention(
            kind="device",
            near=request.depth_near,
            far=request.depth_far,
            reversed=bool(request.flags & layout.REVERSED),
        )
    except ValueError:
        if request.flags & layout.DEPTH:
            raise
        return DepthConvention()


class Shown(Protocol):
    """The facts about a post-process's last frame."""

    @property
    def passed(self) -> bool:
        """True if it passed without the models."""
        ...


class Post(Protocol):
    """The interface of `PostProcess` that a desk uses."""

    @property
    def last(self) -> Shown | None: ...

    @property
    def rung(self) -> str: ...

    def __call__(
        self,
        color: Any,
        motion: Any = None,
        depth: Any = None,
        reset: bool = False,
        *,
        reactive: Any = None,
        jitter: tuple[float, float] = (0.0, 0.0),
        out: Any = None,
    ) -> Any: ...

    def interpret(self, motion: MotionConvention, depth: DepthConvention) -> None:
        """Set the meaning of the next frame's numbers."""
        ...

    def listen(self, tell: Callable[[str], None]) -> None: ...

    def close(self) -> None: ...


OpenPost = Callable[[Conventions, tuple[int, int]], Post]
"""Opens a post-process for frames of that width and height, without making anybody wait."""
