"""A link: a client's hold of one slot of a living server.

Nothing that the server writes is believed before it is checked: the link's own counters are kept here,
and views are made within the mapping only. A client's arrays are copied once, straight to their place.
"""

import os
import time
from collections import deque
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ..conventions import as_array
from . import layout
from .layout import Area, Request, Result
from .locks import Lock
from .segment import Segment, attach

WORD = 0xFFFFFFFF
SLICE = 0.05
"""Seconds of waiting between two checks that the server lives."""

Picture = npt.NDArray[np.uint8]


class LostError(EngineError):
    """The server is dead, has stopped, or writes invalid values."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame under way."""

    request: Request
    colour: Picture
    """(height, width, 4), in its colour area."""
    index: int
    """The client's number of the frame."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer for a frame."""

    sent: Sent
    status: int
    """The outcome, a constant of `layout`."""
    picture: Picture | None
    """(height, width, 4) in shared memory, valid until the ring comes round; None where the frame
    itself is to be shown."""
    work_ms: float


class Link:
    """A client's connection through one slot. Used from one thread. The constructor raises EngineError
    where there is no server, or no slot."""

    def __init__(self, name: str) -> None:
        self.segment: Segment = attach(name)
        self._lock: Lock | None = None
        try:
            self._slot = self._take(name)
        except BaseException:
            self.segment.close()
            raise
        page = self.segment.plan.slot(self._slot).offset
        self._control = self.segment.record(layout.CONTROL, page)
        self._state = self.segment.word(layout.CONTROL, page, "state")
        self._submitted = self.segment.futex(layout.CONTROL, page, "submitted")
        self._completed = self.segment.futex(layout.CONTROL, page, "completed")
        entries = [self.segment.plan.entry(self._slot, turn).offset for turn in range(self.ring)]
        self._requests = [self.segment.record(layout.REQUEST, offset) for offset in entries]
        self._results = [
            self.segment.record(layout.RESULT, offset + layout.RESULT_OFFSET) for offset in entries
        ]
        self._reserved: dict[tuple[int, int], int] = {}
        """Bytes with allocated memory, by entry and area."""
        # Both are this process's: the words in shared memory are only written, or compared with them.
        self._count = self._completed.value
        self._answered = self._count
        self._pending: deque[Sent] = deque()
        self.trouble = ""
        """The reason why there is no memory for the server's last result; empty while there is."""
        self.answers: deque[Answer] = deque()
        """Answers for the oldest frames that came back, whose memory is not reused yet."""

    @property
    def ring(self) -> int:
        """The number of frames that may be under way."""
        return self.segment.plan.ring

    @property
    def held(self) -> bool:
        """True if the slot is still held; False in a forked child, whose parent has it."""
        return self._lock is not None and self._lock.held

    @property
    def sequence(self) -> int:
        """The number of the next frame."""
        return self._count

    @property
    def room(self) -> bool:
        """True if another frame may be sent; makes room by dropping the oldest answer."""
        if self._count == 0:
            # Where the count wraps, two numbers in a row have the same entry.
            self.answers.clear()
            return not self._pending
        if len(self._pending) + len(self.answers) >= self.ring and self.answers:
            self.answers.popleft()
        return len(self._pending) + len(self.answers) < self.ring

    @property
    def message(self) -> str:
        """The last error that the server found with this client."""
        return layout.unpack_text(self._control["message"][0].tobytes())

    def alive(self) -> bool:
        """Returns whether the server lives and the slot is still taken."""
        return self.segment.alive() and int(self._state[0]) == layout.TAKEN

    def fits(self, width: int, height: int) -> bool:
        """Returns whether the server takes pictures of that size."""
        plan = self.segment.plan
        return 1 <= width <= plan.max_width and 1 <= height <= plan.max_height

    def colour(self, width: int, height: int) -> Picture:
        """Returns the array for the next frame's picture: (height, width, 4). Raises EngineError."""
        found = self._area(0, width * height * 4)
        return found.reshape(height, width, 4)

    def extra(self, index: int, kind: Any, shape: tuple[int, ...]) -> Any:
        """Returns the array for the next frame's motion (2), depth (3) or mask (4). Raises
        EngineError."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return self._area(index, size).view(kind).reshape(shape)

    def submit(self, request: Request, colour: Picture, index: int) -> Sent:
        """Sends the next frame, whose areas are filled; `room` must be true."""
        request = replace(request, sequence=self._count, submitted_ns=time.monotonic_ns())
        request.write(self._requests[self._count % self.ring])
        sent = Sent(request, colour, index)
        self._pending.append(sent)
        self._count = (self._count + 1) & WORD
        self._submitted.value = self._count
        self._submitted.wake()
        return sent

    def poll(self) -> None:
        """Collect the answers that have come. Raises LostError for invalid counters."""
        done = (self._completed.value - self._answered) & WORD
        if done > len(self._pending):
            raise LostError("the server counts frames that were never sent")
        for _ in range(done):
            self.answers.append(self._answer(self._pending.popleft()))
        self._answered = (self._answered + done) & WORD

    def wait(self, sent: Sent, until: float) -> Answer | None:
        """Returns that frame's answer, until a moment of `time.monotonic`; None when it is late.

        Earlier answers are dropped. Raises LostError when the server is dead.
        """
        while True:
            self.poll()
            while self.answers:
                answer = self.answers.popleft()
                if answer.sent is sent:
                    return answer
            left = until - time.monotonic()
            if left <= 0:
                self.check()
                return None
            if not self._completed.wait(self._answered, min(left, SLICE)):
                self.check()

    def next(self, until: float) -> Answer | None:
        """Returns the oldest answer, until a moment of `time.monotonic`; None when there is none by
        then.

        Raises LostError when the server is dead.
        """
        self.poll()
        while not self.answers:
            left = until - time.monotonic()
            if not self._pending or left <= 0:
                return None
            if not self._completed.wait(self._answered, min(left, SLICE)):
                self.check()
            self.poll()
        return self.answers.popleft()

    def check(self) -> None:
        """Raise LostError when the server is dead or has stopped."""
        if not self.alive():
            raise LostError("the server has stopped or died")

    def close(self) -> None:
        """Leave the slot, which the server frees. Views stay mapped, but their contents are lost,
        unless the server has ended."""
        if self._lock is None:
            return
        held = self._lock.held
        self._lock.release()
        if held:
            self._ring()
        self.segment.close()

    def _ring(self) -> None:
        doorbell = self.segment.futex(layout.HEADER, 0, "doorbell")
        doorbell.value = doorbell.value + 1
        doorbell.wake()

    def _take(self, name: str) -> int:
        plan = self.segment.plan
        for slot in range(plan.slot_count):
            page = plan.slot(slot).offset
            state = self.segment.futex(layout.CONTROL, page, "state")
            if state.value != layout.FREE:
                continue
            lock = Lock(self.segment.fd, layout.SERVER_LOCK + 1 + slot)
            if not lock.take() or state.value != layout.FREE:
                lock.release()
                continue
            self._lock = lock
            control = self.segment.record(layout.CONTROL, page)
            control["client_pid"] = os.getpid()
            control["client_version"] = layout.MAJOR << 16 | layout.MINOR
            control["submitted"] = control["completed"]
            # Last: from here on the server reads it.
            state.value = layout.TAKEN
            self._ring()
            return slot
        raise EngineError(
            f"{name} has {plan.slot_count} clients, and room for no more: start its server with more "
            "(--clients)"
        )

    def _area(self, index: int, size: int) -> Picture:
        turn = self._count % self.ring
        return self.segment.bytes(self._with_memory(turn, index, size))

    def _with_memory(self, turn: int, index: int, size: int) -> Area:
        """Returns the beginning of an area, with allocated memory. Raises EngineError without any."""
        area = Area(self.segment.plan.areas(self._slot, turn)[index].offset, size)
        if size > self._reserved.get((turn, index), 0):
            self.segment.reserve(area)
            self._reserved[turn, index] = size
        return area

    def _answer(self, sent: Sent) -> Answer:
        turn = sent.request.sequence % self.ring
        result = Result.read(self._results[turn])
        if result.result_sequence != sent.request.sequence or result.status not in (
            layout.DONE,
            layout.PASSED,
        ):
            return Answer(sent, layout.REFUSED, None, 0.0)
        picture = None
        if result.out_area == layout.OUTPUT:
            picture = self._output(turn, result)
            if picture is None:
                return Answer(sent, layout.REFUSED, None, 0.0)
        elif result.out_area != layout.IN_PLACE:
            return Answer(sent, layout.REFUSED, None, 0.0)
        elif result.status == layout.DONE:
            picture = sent.colour
        return Answer(sent, result.status, picture, result.work_ms)

    def _output(self, turn: int, result: Result) -> Picture | None:
        plan = self.segment.plan
        width, height, stride = result.out_width, result.out_height, result.out_stride
        area = plan.areas(self._slot, turn)[1]
        if not (
            1 <= width <= plan.max_width * plan.max_scale
            and 1 <= height <= plan.max_height * plan.max_scale
            and stride >= width * 4
            and (size := stride * (height - 1) + width * 4) <= area.size
        ):
            return None
        self.trouble = ""
        try:
            found = self.segment.bytes(self._with_memory(turn, 1, size))
        except EngineError as error:
            self.trouble = str(error)
            return None
        return np.ndarray((height, width, 4), np.uint8, found, 0, (stride, 4, 1))


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
