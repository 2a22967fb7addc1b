"""The Python client: frames through another process's models, or unchanged when that is not
possible."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ...errors import EngineError
from . import layout
from .segment import check_name, remove
from .slot_client import WORD, Answer, Extras, Link, LostError, Order, Picture, Sending, Sent, lay

if TYPE_CHECKING:
    from ..conventions import DepthConvention, MotionConvention

AGAIN = 0.5
"""Seconds between two attempts to connect."""

Status = Literal["done", "passed", "refused", "late", "busy", "unconnected"]
"""The outcome of a frame; all but `done` show it as it was. `passed`: the server's models are off, not
open yet, or late. `late`: no answer within the deadline. `busy`: too many frames are under way."""

_STATUS: dict[int, Status] = {
    layout.DONE: "done",
    layout.PASSED: "passed",
    layout.REFUSED: "refused",
}


@dataclass(frozen=True, slots=True)
class Collected:
    """A frame that has come back."""

    index: int
    """The number of frames that were submitted before it."""
    picture: Picture
    """(height, width, 4) or 3; in shared memory, valid until the ring comes round or `Client.close`:
    copy what you keep."""
    status: Status
    work_ms: float
    """Milliseconds that the server took for it."""


@dataclass(slots=True)
class Counts:
    """The outcomes of all frames so far."""

    done: int = 0
    passed: int = 0
    refused: int = 0
    late: int = 0
    busy: int = 0
    unconnected: int = 0
    connections: int = 0

    @property
    def frames(self) -> int:
        """The number of all frames."""
        return self.done + self.passed + self.refused + self.late + self.busy + self.unconnected


@dataclass(slots=True)
class _State:
    status: Status = "unconnected"
    work_ms: float = 0.0
    counts: Counts = field(default_factory=Counts)


class Client:
    """Sends frames to `velatura serve --shm NAME`. Used from one thread.

    A frame never waits longer than the deadline, and never fails for the server's sake: where there is
    none, it has died, is late, or answers nonsense, the frame is given back as it was, and `status` and
    `trouble` say why. It tries to connect twice a second.

        client = Client("game")
        shown = client(color, motion, depth)
    """

    def __init__(
        self,
        name: str,
        *,
        deadline_ms: float = 50.0,
        order: Order = "rgba",
        flipped: bool = False,
        motion: "MotionConvention | None" = None,
        depth: "DepthConvention | None" = None,
        require: bool = False,
    ) -> None:
        """`order`, `flipped`, `motion` and `depth` are as for `PostProcess`; pictures are uint8, sRGB.

        Raises ValueError for a bad name, deadline or order; with `require` EngineError where nothing
        serves that name, which is no error otherwise.
        """
        if not 0 < deadline_ms < inf:
            raise ValueError(f"a deadline of {deadline_ms} ms: it must be positive and finite")
        self.name = check_name(name)
        self.deadline_ms = float(deadline_ms)
        self.trouble = ""
        """The reason why it is not connected, or the last error that the server found; empty while all
        is well."""
        self._sending = Sending(order, flipped=flipped, motion=motion, depth=depth)
        self._state = _State()
        self._link: Link | None = None
        self._next_try = 0.0
        self._fresh = True
        self._index = 0
        self._own: Picture = np.zeros((0, 0, 4), np.uint8)
        self._closed = False
        self._connect()
        if require and self._link is None:
            raise EngineError(self.trouble)

    @property
    def connected(self) -> bool:
        """True if there was a server, as far as the last frame could tell."""
        return self._link is not None

    @property
    def status(self) -> Status:
        """The outcome of the last frame."""
        return self._state.status

    @property
    def work_ms(self) -> float:
        """Milliseconds that the server took for the last frame that came back."""
        return self._state.work_ms

    @property
    def counts(self) -> Counts:
        """The outcomes of all frames so far."""
        return self._state.counts

    @property
    def title(self) -> str:
        """The server's models; empty without a server."""
        return self._link.segment.header.title if self._link is not None else ""

    def buffer(self, width: int, height: int) -> Picture:
        """Returns memory for drawing the next frame, uint8 (height, width, 4): when it is given to the
        next call it is sent without a copy. Without a server it is memory of this process, and works as
        well."""
        link = self._linked()
        try:
            if link is not None and link.fits(width, height):
                link.poll()
                if link.room:
                    return link.colour(width, height)
        except LostError as error:
            self._lose(error)
        except EngineError as error:
            # No memory for it.
            self.trouble = str(error)
        if self._own.shape != (height, width, 4):
            self._own = np.zeros((height, width, 4), np.uint8)
        return self._own

    def __call__(
        self,
        color: Any,
        motion: Any = None,
        depth: Any = None,
        reset: bool = False,
        *,
        reactive: Any = None,
        jitter: tuple[float, float] = (0.0, 0.0),
        bypass: bool = False,
        out: Any = None,
    ) -> Picture:
        """Returns the frame processed by the server's models, within the deadline, else `color` itself,
        as NumPy's array.

        `color` is uint8 (height, width, 4), or 3 of order `rgb` or `bgr`; `motion`, `depth`, `reactive`
        and `jitter` are as for `PostProcess`. `reset` starts a new history, after a cut. `bypass` asks
        the server for nothing but the frame itself. The result is in shared memory and valid until the
        ring comes round, for two more frames, or until `close`: copy what you keep. With `out` it is
        copied there, resized where necessary. Raises ValueError for an invalid picture.
        """
        until = time.monotonic() + self.deadline_ms / 1e3
        picture = self._sending.picture(color)
        target = None if out is None else self._sending.picture(out, "out")
        extras = self._sending.extras(motion, depth, reactive, jitter, bypass=bypass)
        sent = self._send(picture, extras, reset, until)
        shown = picture if sent is None else self._await(sent, until)
        if shown is None:
            shown = picture
        if target is None:
            return shown
        lay(shown, target)
        return target

    def submit(
        self,
        color: Any,
        motion: Any = None,
        depth: Any = None,
        reset: bool = False,
        *,
        reactive: Any = None,
        jitter: tuple[float, float] = (0.0, 0.0),
        bypass: bool = False,
    ) -> bool:
        """Sends a frame and does not wait; returns whether it is under way, else `status` says why not.

        Up to three frames may be, the entries of the server's ring, counted until they are collected;
        before a fourth is refused, the oldest that has come back is dropped. Raises ValueError for an
        invalid picture.
        """
        picture = self._sending.picture(color)
        extras = self._sending.extras(motion, depth, reactive, jitter, bypass=bypass)
        return self._send(picture, extras, reset, None) is not None

    def collect(self, wait_ms: float = 0.0) -> Collected | None:
        """Returns the oldest frame that was submitted, once it has come back; None when that takes
        longer, or nothing is under way. Frames of a server that died never come."""
        link = self._link
        if link is None:
            return None
        try:
            answer = link.next(time.monotonic() + wait_ms / 1e3)
        except LostError as error:
            self._lose(error)
            return None
        if answer is None:
            return None
        shown = self._shown(answer)
        if shown is None:
            shown = self._sending.seen(answer.sent.colour)
        return Collected(answer.sent.index, shown, self.status, self.work_ms)

    def close(self) -> None:
        """Leave the server. Later frames are returned unchanged. May be called again.

        The server gives the memory back: pictures that lie there, results and `buffer`s, turn black.
        """
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _linked(self) -> Link | None:
        """Returns the link, if there is one; tries to connect now and then."""
        if self._link is not None and not self._link.held:
            # In a forked child: the link is the parent's.
            self._link = None
        if self._link is None and not self._closed and time.monotonic() >= self._next_try:
            self._connect()
        return self._link

    def _connect(self) -> None:
        try:
            self._link = Link(self.name)
        except EngineError as error:
            self.trouble = str(error)
            self._next_try = time.monotonic() + AGAIN
            return
        self.trouble = ""
        self._fresh = True
        self.counts.connections += 1

    def _lose(self, error: EngineError) -> None:
        link, self._link = self._link, None
        self.trouble = str(error)
        self._next_try = time.monotonic() + AGAIN
        if link is not None:
            link.close()
            # The name must not stay when nobody is there to take it away.
            with suppress(EngineError):
                remove(link.segment.path)

    def _send(self, picture: Picture, extras: Extras, reset: bool, until: float | None) -> Sent | None:
        link = self._linked()
        index, self._index = self._index, self._index + 1
        if link is None:
            return self._noted("unconnected")
        if not (link.fits(picture.shape[1], picture.shape[0]) and extras.fit(link)):
            plan = link.segment.plan
            self.trouble = (
                f"the server takes pictures of up to {plan.max_width}x{plan.max_height} (--max-size)"
            )
            return self._noted("refused")
        try:
            link.poll()
            if not link.room:
                link.check()
                self.trouble = f"{link.ring} frames are under way, and none has come back"
                return self._noted("busy")
            request, colour = self._sending.write(picture, extras, link)
            flags = request.flags | (layout.CUT if reset or self._fresh else 0)
            left = 0 if until is None else max(int((until - time.monotonic()) * 1e6), 1)
            sent = link.submit(
                replace(request, flags=flags, deadline_us=min(left, WORD)), colour, index
            )
        except LostError as error:
            self._lose(error)
            return self._noted("unconnected")
        except EngineError as error:
            # No memory for it.
            self.trouble = str(error)
            return self._noted("refused")
        self._fresh = False
        return sent

    def _await(self, sent: Sent, until: float) -> Picture | None:
        link = self._link
        if link is None:
            return None
        try:
            answer = link.wait(sent, until)
        except LostError as error:
            self._lose(error)
            return self._noted("unconnected")
        if answer is None:
            self.trouble = f"no answer within {self.deadline_ms:g} ms"
            return self._noted("late")
        return self._shown(answer)

    def _shown(self, answer: Answer) -> Picture | None:
        """Returns the picture that came back; None where it is the one that was given."""
        self._noted(_STATUS[answer.status])
        self._state.work_ms = answer.work_ms
        self.trouble = ""
        if answer.status == layout.REFUSED and self._link is not None:
            self.trouble = self._link.trouble or self._link.message or "the server's answer is garbage"
        return None if answer.picture is None else self._sending.seen(answer.picture)

    def _noted(self, status: Status) -> None:
        self._state.status = status
        counts = self._state.counts
        setattr(counts, status, getattr(counts, status) + 1)
