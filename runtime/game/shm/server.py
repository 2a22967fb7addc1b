"""The server: one segment, a thread that watches its slots, and a desk for every client."""

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...backends import Precision
from ...worker import DaemonThread
from . import layout
from .frame_request import Conventions, OpenPost, Post
from .layout import Layout
from .locks import is_held
from .segment import create, restore, sweep
from .slot_server import ClientStats, Desk, free

EVERY = 0.25
"""Seconds after which the slots are checked though no client rings."""
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
    strength: float = 1.0
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
