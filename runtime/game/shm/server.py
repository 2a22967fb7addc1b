"""The server: one segment, a thread that watches its slots, and a desk for every client.

Everything that a client writes into its slot is copied once and then checked; errors are answered with
a refusal, and none of it reaches another client's desk.
"""

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...backends import Precision
from ...backoff import Backoff
from ...errors import EngineError, VelaturaError
from ...meter import Histogram, Percentiles
from ...worker import DaemonThread
from . import layout
from .frame_request import Asked, Conventions, OpenPost, Post, check
from .layout import Area, Layout, Request, Result
from .locks import is_held
from .segment import Segment, create, restore, sweep

EVERY = 0.25
"""Seconds after which state and slots are checked, even if nobody rings."""
AGAIN, MOST = 0.5, 30.0
"""Seconds before a post-process that has failed, or was opened for another order, is opened again;
doubled with each failure, up to `MOST`."""
WORD = 0xFFFFFFFF

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStats:
    """The figures of one client so far."""

    slot: int
    pid: int
    """The client's process id by its own statement."""
    size: tuple[int, int] | None
    """Width and height of its last frame."""
    done: int
    passed: int
    refused: int
    work: Percentiles
    """Seconds of the frames that were done, from taking one up to its result."""
    rung: str
    """The present rung of its frames; empty without models."""
    message: str
    """The last error; empty while there was none."""


class Desk:
    """Serves one client from its arrival to its departure."""

    def __init__(
        self,
        segment: Segment,
        slot: int,
        scale: int,
        open_post: OpenPost | None,
        tell: Callable[[str], None],
    ) -> None:
        """`open_post` None leaves frames unchanged. The thread runs from here on."""
        self.slot = slot
        self._segment = segment
        self._scale = scale
        self._open_post = open_post
        self._tell = tell
        self._page = segment.plan.slot(slot).offset
        self._control = segment.record(layout.CONTROL, self._page)
        self._submitted = segment.futex(layout.CONTROL, self._page, "submitted")
        self._completed = segment.futex(layout.CONTROL, self._page, "completed")
        entries = [segment.plan.entry(slot, turn).offset for turn in range(segment.plan.ring)]
        self._requests = [segment.record(layout.REQUEST, offset) for offset in entries]
        self._results = [
            segment.record(layout.RESULT, offset + layout.RESULT_OFFSET) for offset in entries
        ]
        self._doorbell = segment.futex(layout.HEADER, 0, "doorbell")
        self._reserved: dict[tuple[int, int], int] = {}
        """Bytes with allocated memory, by entry and area."""
        # Kept in this process, and never read from where the client could write it.
        self._count = self._completed.value
        self._errors = 0
        self._message = ""
        self._post: Post | None = None
        self._opened_for: Conventions | None = None
        self._not_before = 0.0
        self._pauses = Backoff(first=AGAIN, longest=MOST)
        self._size: tuple[int, int] | None = None
        self._done = self._passed = self._refused = 0
        self._work = Histogram(1e-5, 1.0)
        self._leaving = threading.Event()
        self._ending = False
        self._left = threading.Event()
        self._thread = DaemonThread(self._run, f"velatura-desk-{slot}")
        self._thread.start()

    @property
    def closed(self) -> bool:
        """True if the desk no longer uses the slot, which may then be freed."""
        return self._left.is_set()

    @property
    def count(self) -> int:
        """The number of the next frame."""
        return self._count

    @property
    def pid(self) -> int:
        """The client's process id by its own statement."""
        return int(self._control["client_pid"][0])

    def leave(self, *, ending: bool = False) -> None:
        """Leave the slot once the frame under way is done. Returns at once; any thread may call it.

        A server that is `ending` leaves its memory as it is: the client may be showing what lies there,
        and all of it goes with the last mapping of the file.
        """
        self._ending = self._ending or ending
        self._leaving.set()
        self._submitted.wake()

    def join(self, seconds: float) -> bool:
        """Waits until the slot is left; returns whether it is."""
        return self._thread.wait(seconds)

    def stats(self) -> ClientStats:
        """Returns the figures; any thread may call it."""
        post = self._post
        return ClientStats(
            slot=self.slot,
            pid=self.pid,
            size=self._size,
            done=self._done,
            passed=self._passed,
            refused=self._refused,
            work=self._work.percentiles(),
            rung="" if post is None else post.rung,
            message=self._message,
        )

    def _run(self) -> None:
        self._tell(f"client {self.pid} came to slot {self.slot}")
        try:
            while not self._leaving.is_set():
                submitted = self._submitted.value
                waiting = (submitted - self._count) & WORD
                if waiting == 0:
                    self._submitted.wait(submitted, EVERY)
                elif waiting > self._segment.plan.ring:
                    self._reset(submitted)
                else:
                    self._serve()
        finally:
            self._tell(f"client {self.pid} left slot {self.slot}, {self._done} frames done")
            self._close_post()
            if not self._ending:
                self._empty()
            self._left.set()
            self._doorbell.value = self._doorbell.value + 1
            self._doorbell.wake()

    def _serve(self) -> None:
        """Process the next frame of the ring."""
        begin = time.monotonic_ns()
        turn = self._count % self._segment.plan.ring
        request = Request.read(self._requests[turn])
        try:
            _check_version(int(self._control["client_version"][0]))
            asked = check(request, self._segment, self.slot, turn, self._count)
        except ValueError as error:
            self._say(str(error))
            self._refused += 1
            self._answer(turn, request, layout.REFUSED, begin)
            return
        self._size = asked.size
        if self._open_post is None or asked.bypass:
            self._done += 1
            self._answer(turn, request, layout.DONE, begin, size=asked.size, stride=request.stride)
            return
        late = 0 < request.deadline_us * 1000 < begin - request.submitted_ns
        made = None if late else self._make(self._open_post, turn, asked)
        if made is None:
            self._passed += 1
            self._answer(turn, request, layout.PASSED, begin, size=asked.size, stride=request.stride)
            return
        out, passed = made
        if passed:
            self._passed += 1
        else:
            self._done += 1
            self._work.add((time.monotonic_ns() - begin) / 1e9)
        status = layout.PASSED if passed else layout.DONE
        size = out.shape[1], out.shape[0]
        self._answer(turn, request, status, begin, size=size, stride=out.strides[0], area=layout.OUTPUT)

    def _make(self, open_post: OpenPost, turn: int, asked: Asked) -> tuple[Picture, bool] | None:
        """Returns the result in the output area and whether it passed; None where there is none."""
        try:
            post = self._current(open_post, asked)
            if post is None or not self._reserve(turn, asked):
                return None
            out = self._output(turn, asked)
            post(
                asked.colour,
                asked.motion,
                asked.depth,
                asked.cut,
                reactive=asked.reactive,
                jitter=asked.jitter,
                out=out,
            )
        except Exception as error:  # one client's trouble is no other's, and it is told
            self._fail(error)
            return None
        self._pauses.reset()
        last = post.last
        return out, last is not None and last.passed

    def _current(self, open_post: OpenPost, asked: Asked) -> Post | None:
        """Returns the post-process for these conventions; None while it may not be opened."""
        post, theirs = self._post, asked.conventions
        if post is not None and self._opened_for is not None and self._opened_for.hold_for(asked):
            # Games move their far plane and change their resolution; that is no reason to start again.
            post.interpret(theirs.motion, theirs.depth)
            return post
        now = time.monotonic()
        if now < self._not_before:
            return None
        # A client that changes its mind with every frame must not keep the machine opening models.
        self._not_before = now + AGAIN
        self._close_post()
        self._post = open_post(theirs, asked.size)
        self._opened_for = theirs
        self._post.listen(self._hear)
        return self._post

    def _reserve(self, turn: int, asked: Asked) -> bool:
        """Allocates memory for everything of a frame that is read and written here; returns whether
        there is enough.

        That the client has written there is only its word: a read of a hole wants memory as well, and
        where there is none it ends the whole server.
        """
        width, height = asked.size
        output = width * height * 4 * self._scale**2
        extras = asked.motion, asked.depth, asked.reactive
        sizes = [asked.colour.strides[0] * (height - 1) + width * 4, output]
        sizes += [0 if one is None else one.nbytes for one in extras]
        for index, size in enumerate(sizes):
            if size <= self._reserved.get((turn, index), 0):
                continue
            area = self._segment.plan.areas(self.slot, turn)[index]
            try:
                self._segment.reserve(Area(area.offset, size))
            except EngineError as error:
                self._say(str(error))
                return False
            self._reserved[turn, index] = size
        return True

    def _output(self, turn: int, asked: Asked) -> Picture:
        width, height = (side * self._scale for side in asked.size)
        area = self._segment.plan.areas(self.slot, turn)[1]
        return np.ndarray((height, width, 4), np.uint8, self._segment.bytes(area))

    def _fail(self, error: Exception) -> None:
        known = isinstance(error, VelaturaError | ValueError)
        self._say(str(error) if known else f"{type(error).__name__}: {error}")
        self._hear(self._message)
        self._close_post()
        self._not_before = time.monotonic() + self._pauses.pause()

    def _answer(
        self,
        turn: int,
        request: Request,
        status: int,
        begin: int,
        *,
        size: tuple[int, int] = (0, 0),
        stride: int = 0,
        area: int = layout.IN_PLACE,
    ) -> None:
        now = time.monotonic_ns()
        Result(
            result_sequence=request.sequence,
            status=status,
            out_width=size[0],
            out_height=size[1],
            out_stride=stride,
            out_area=area,
            completed_ns=now,
            work_ms=(now - begin) / 1e6,
        ).write(self._results[turn])
        self._count = (self._count + 1) & WORD
        self._completed.value = self._count
        self._completed.wake()

    def _reset(self, submitted: int) -> None:
        """Reset an invalid counter: all frames until now are over."""
        self._say(f"the count of submitted frames jumped from {self._count} to {submitted}")
        self._refused += 1
        self._count = submitted
        self._completed.value = submitted
        self._completed.wake()
        # A client that does this without end occupies this thread only, and must leave the others
        # theirs.
        self._leaving.wait(0.001)

    def _say(self, text: str) -> None:
        self._message = text
        self._errors = (self._errors + 1) & WORD
        self._control["message"] = np.void(layout.pack_text(text, 96))
        self._control["error_count"] = self._errors

    def _close_post(self) -> None:
        post, self._post, self._opened_for = self._post, None, None
        if post is None:
            return
        try:
            post.close()
        except Exception as error:  # nothing more can be done about it, and the desk goes on
            self._hear(f"{type(error).__name__}: {error}")

    def _hear(self, text: str) -> None:
        self._tell(f"client {self.pid}: {text}")

    def _empty(self) -> None:
        """Forget the client's pictures, and free their memory."""
        whole = self._segment.plan.slot(self.slot)
        self._segment.bytes(Area(self._page + layout.ENTRIES, layout.PAGE - layout.ENTRIES))[:] = 0
        # A client that is still here, and has damaged its slot, may be showing these pictures.
        if not is_held(self._segment.fd, layout.SERVER_LOCK + 1 + self.slot):
            self._segment.discard(Area(whole.offset + layout.PAGE, whole.size - layout.PAGE))


def free(segment: Segment, slot: int, count: int) -> None:
    """Make a slot ready for another client, whose frames are numbered from `count`.

    Only for the thread that watches all slots: freeing it twice would take it from a new client.
    """
    page = segment.plan.slot(slot).offset
    control = segment.record(layout.CONTROL, page)
    control["message"] = np.void(bytes(96))
    control["error_count"] = 0
    control["client_pid"] = control["client_version"] = 0
    control["submitted"] = control["completed"] = count
    control["generation"] += 1
    # Last: from here on it may be the other client's.
    segment.futex(layout.CONTROL, page, "state").value = layout.FREE


def _check_version(version: int) -> None:
    if version >> 16 != layout.MAJOR:
        raise ValueError(
            f"the client speaks version {version >> 16}.{version & 0xFFFF} of the layout, the server "
            f"{layout.MAJOR}.{layout.MINOR}"
        )


SOONEST = 0.005
"""Seconds at least between two checks, however often clients ring."""
PATIENCE = 5.0
"""Seconds that the end of a server waits for frames under way."""
PART = 0.8
"""The part of a client's deadline that models may take; a post-process waits a quarter longer."""
IDENTITY = "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The processing of every client's frames; the fields are as for `PostProcess`."""

    models: tuple[str, ...]
    budget_ms: float | None = None
    """Milliseconds of a frame; None takes most of the deadline of a client's first frame, and no limit
    where that has none."""
    stability: float = 0.9
    strength: float | None = None
    keep_colours: bool | None = None
    mask: str | None = None
    backend: str = "auto"
    precision: Precision = "auto"

    @property
    def idle(self) -> bool:
        """True if frames are returned as they came, unchanged and uncopied."""
        return all(model == IDENTITY for model in self.models)

    def scale(self) -> int:
        """Returns the factor from a frame's side to its result's. Raises ModelError if unreadable."""
        from ..frame_pass import scale_of

        return math.prod(scale_of(model) for model in self.models)

    def open(self, conventions: Conventions, size: tuple[int, int]) -> Post:
        """Returns a client's post-process, whose models are opened in the background."""
        from ..post import PostProcess

        budget, deadline = self.budget_ms, conventions.deadline_ms
        if budget is None and deadline is not None:
            budget = min(max(PART * deadline, 1.0), 9000.0)

        return PostProcess(
            self.models,
            size,
            mode="inline",
            budget_ms=budget,
            order=conventions.order,
            flipped=conventions.flipped,
            motion=conventions.motion,
            depth=conventions.depth,
            stability=self.stability,
            strength=self.strength,
            keep_colours=self.keep_colours,
            mask=self.mask,
            backend=self.backend,
            precision=self.precision,
            wait=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """The figures of a server."""

    elapsed: float
    """Seconds since it started."""
    clients: tuple[ClientStats, ...]
    """The present clients, and those whose slots are not free yet."""
    served: int
    """The number of clients so far."""
    done: int
    """Frames so far, those of clients that have left included."""
    passed: int
    refused: int


class Server:
    """Serves a name until it is closed.

    `serve` looks after it until `stop`; `start` does so in a thread. Any thread may ask `stats`.
    """

    def __init__(
        self,
        name: str,
        work: Work,
        *,
        max_size: tuple[int, int] = (1920, 1080),
        clients: int = 8,
        open_post: OpenPost | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`max_size` is the width and height of the largest frames. `open_post` replaces `work.open`.
        `tell` is called with each event, a line of text, in the thread that serves or closes.

        Raises ValueError for a bad name or size, ModelError for a model that cannot be read,
        EngineError where there is no shared memory or the name is served already.
        """
        scale = 1 if work.idle else work.scale()
        if scale > layout.MOST_SCALE:
            raise ValueError(f"the models enlarge {scale} times: {layout.MOST_SCALE} times is the most")
        plan = Layout(
            slot_count=clients, max_width=max_size[0], max_height=max_size[1], max_scale=scale
        )
        self._open_post = open_post or (None if work.idle else work.open)
        self._scale = scale
        self._tell = tell or _nobody
        # Desks neither wait for listeners nor fail by their errors.
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        sweep()
        title = ", ".join(Path(model).name for model in work.models)
        self.segment, self._lock = create(name, plan, title)
        self._doorbell = self.segment.futex(layout.HEADER, 0, "doorbell")
        self._heartbeat = self.segment.record(layout.HEADER, 0)["heartbeat_ns"]
        pages = [plan.slot(slot).offset for slot in range(clients)]
        self._states = [self.segment.futex(layout.CONTROL, page, "state") for page in pages]
        self._completed = [self.segment.futex(layout.CONTROL, page, "completed") for page in pages]
        self._desks: dict[int, Desk] = {}
        self._counting = threading.Lock()
        self._served = 0
        self._gone = (0, 0, 0)
        """Frames of clients that have left: done, passed, refused."""
        self._began = time.monotonic()
        # A flag, not an event: a signal's handler may interrupt an event's own lock.
        self._stopping = False
        self._thread: DaemonThread | None = None
        self._closed = False

    def serve(self, turn: Callable[[], None] = lambda: None) -> None:
        """Watch the clients until `stop`; `turn` is called about four times a second."""
        while not self._stopping:
            rung = self._doorbell.value
            self._look()
            self._pass_on()
            turn()
            # A client that rings without end costs the others nothing.
            time.sleep(SOONEST)
            self._doorbell.wait(rung, EVERY)

    def start(self) -> None:
        """Run `serve` in a thread of its own."""
        self._thread = DaemonThread(self.serve, "velatura-serve")
        self._thread.start()

    def stop(self) -> None:
        """End `serve`. Any thread may call it, and any signal's handler."""
        self._stopping = True
        self._doorbell.value = self._doorbell.value + 1
        self._doorbell.wake()

    def stats(self) -> ServerStats:
        """Returns the figures so far."""
        with self._counting:
            desks = list(self._desks.values())
            done, passed, refused = self._gone
        found = [desk.stats() for desk in desks]
        return ServerStats(
            elapsed=time.monotonic() - self._began,
            clients=tuple(found),
            served=self._served,
            done=done + sum(one.done for one in found),
            passed=passed + sum(one.passed for one in found),
            refused=refused + sum(one.refused for one in found),
        )

    def close(self) -> None:
        """Tell the clients, remove the name, and end every desk. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.stop()
        if self._thread is not None:
            # Through any Ctrl-C: nothing else would do later what is left undone here.
            self._thread.outwait(PATIENCE)
        restore(self.segment, layout.STOPPING)
        self.segment.unlink()
        self._lock.release()
        for futex in self._completed:
            futex.wake()
        desks = list(self._desks.values())
        for desk in desks:
            desk.leave(ending=True)
        end = time.monotonic() + PATIENCE
        for desk in desks:
            if not desk.join(max(end - time.monotonic(), 0.0)):
                self._told.put(f"slot {desk.slot} is stuck and was left")
            self._forget(desk.slot)
        self.segment.close()
        self._pass_on()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pass_on(self) -> None:
        while not self._told.empty():
            self._tell(self._told.get())

    def _forget(self, slot: int) -> None:
        with self._counting:
            left = self._desks.pop(slot).stats()
            done, passed, refused = self._gone
            self._gone = done + left.done, passed + left.passed, refused + left.refused

    def _look(self) -> None:
        """Repair what clients have damaged, open a desk for each that has come, and close those of
        clients that are gone."""
        restore(self.segment, layout.READY)
        self._heartbeat[0] = time.monotonic_ns()
        for slot, state in enumerate(self._states):
            desk = self._desks.get(slot)
            if desk is not None and desk.closed:
                free(self.segment, slot, desk.count)
                self._forget(slot)
                desk = None
            found = state.value
            held = is_held(self.segment.fd, layout.SERVER_LOCK + 1 + slot)
            if desk is not None:
                if not held or found != layout.TAKEN:
                    desk.leave()
            elif found == layout.TAKEN and held:
                self._served += 1
                with self._counting:
                    self._desks[slot] = Desk(
                        self.segment, slot, self._scale, self._open_post, self._told.put
                    )
            elif found != layout.FREE and not held:
                # The client died while it connected, or another process has written here.
                free(self.segment, slot, self._completed[slot].value)


def _nobody(text: str) -> None:
    del text
