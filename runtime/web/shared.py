"""The state that all pages of a view share: the newest frame, switches, figures, and the chart's
latencies."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..frame import Frame
from ..meter import Event
from .panel import Panel
from .pictures import Jpegs, Newest

if TYPE_CHECKING:
    from .webrtc import Peers

SECONDS = 180
"""Seconds that the chart shows."""


@dataclass(frozen=True, slots=True)
class Second:
    """The figures of one second of a run."""

    at: int
    """Its number, in whole seconds of `time.monotonic`."""
    frames: int
    p50: float
    """Median seconds from capture to the view of this second's frames."""
    p99: float


class History:
    """Latencies by second. Thread-safe; memory is bounded by the frame rate."""

    def __init__(self) -> None:
        self._done: deque[Second] = deque(maxlen=SECONDS)
        self._at = 0
        self._values: list[float] = []
        self._last = 0.0
        self._lock = threading.Lock()

    def add(self, now: float, latency: float) -> None:
        """Add a frame that came at `now`, in seconds of `time.monotonic`."""
        with self._lock:
            self._turn(int(now))
            self._values.append(max(latency, 0.0))
            self._last = now

    def since(self, now: float, at: int = 0) -> list[Second]:
        """Returns the finished seconds from number `at` on that the chart shows, oldest first."""
        with self._lock:
            self._turn(int(now))
            first = max(at, int(now) - SECONDS)
            return [second for second in self._done if second.at >= first]

    def silent(self, now: float) -> float | None:
        """Returns the seconds since the last frame; None before the first."""
        with self._lock:
            return now - self._last if self._last else None

    def _turn(self, at: int) -> None:
        if at == self._at:
            return
        if self._values:
            values = np.sort(np.array(self._values))
            # The smallest that so many of a hundred do not exceed, as everywhere in the statistics.
            ranks = [int(np.ceil(part * len(values))) - 1 for part in (0.5, 0.99)]
            p50, p99 = (float(values[rank]) for rank in ranks)
            self._done.append(Second(self._at, len(values), p50, p99))
            self._values = []
        self._at = at


STALLED = 2.0
"""Seconds without a frame after which the page says so."""
EVENTS = 40
"""The number of latest events that are sent."""


@dataclass(slots=True, kw_only=True)
class Shared:
    """The data and threads that sessions share; owned by the server."""

    panel: Callable[[], Panel | None]
    """Returns the panel; None until the run is set up."""
    ladder: Callable[[], Sequence[tuple[str, float]]]
    """Returns the governor's rungs, from the best picture to the cheapest, with the seconds that each
    takes; empty where there is no governor."""
    deadline: float
    """Seconds that frames may take."""
    newest: Newest
    history: History
    jpegs: Jpegs
    peers: "Peers | None"
    """The WebRTC connections; None where there is no WebRTC."""
    pictures: Executor
    switches: Executor
    """An executor of one thread, so that commands are executed in the order in which they came."""


def state(shared: Shared) -> dict[str, Any]:
    """Returns the state of the run for the page; durations in milliseconds. Never raises."""
    now = time.monotonic()
    recent = shared.history.since(now, int(now) - 3)
    frame = shared.newest.frame
    silent = shared.history.silent(now)
    found: dict[str, Any] = {
        "type": "state",
        "deadline": round(shared.deadline * 1e3, 2),
        "size": None if frame is None else [frame.width, frame.height],
        "shape": None if frame is None else _shape(frame),
        "fps": recent[-1].frames if recent else 0,
        "p50": _milliseconds(max((second.p50 for second in recent), default=None)),
        "p99": _milliseconds(max((second.p99 for second in recent), default=None)),
        "silent": None if silent is None else round(silent, 1),
        "now": int(now),
        "points": points(shared, 3),
        "ladder": [],
    }
    panel = shared.panel()
    if panel is None:
        return found | {"condition": "starting"}
    try:
        stats, recording = panel.stats(), panel.recording
        found |= {
            "ladder": [[name, _milliseconds(cost)] for name, cost in shared.ladder()],
            "on": not panel.off,
            "strength": float(panel.strength),
            "split": None if panel.split is None else float(panel.split),
            "models": list(panel.models),
            "available": list(panel.available),
            "recording": None if recording is None else str(recording),
            "rung": stats.rung,
            "seconds": round(stats.elapsed, 1),
            "captured": stats.captured,
            "processed": stats.processed,
            "passed": stats.passed,
            "repeated": stats.repeated,
            "dropped": stats.dropped,
            "late": stats.late,
            "events": _events(stats.events),
        }
    except Exception as error:
        # A run that is being taken down; the page keeps what it has, and shows this.
        return found | {"condition": "ended", "trouble": f"{type(error).__name__}: {error}"}
    if silent is None or silent > max(STALLED, 3 * shared.deadline):
        condition = "stalled"
    elif not found["on"]:
        condition = "off"
    else:
        late = any(second.p99 > shared.deadline for second in recent)
        condition = "late" if late else "holding"
    return found | {"condition": condition}


def points(shared: Shared, seconds: int = SECONDS) -> list[list[float | None]]:
    """Returns the chart's last seconds: each one's number, as `now` counts, its p50 and p99 in
    milliseconds."""
    now = time.monotonic()
    return [
        [second.at, _milliseconds(second.p50), _milliseconds(second.p99)]
        for second in shared.history.since(now, int(now) - seconds)
    ]


def to_json(message: dict[str, Any]) -> str:
    """Returns the message as it is sent."""
    return json.dumps(message, allow_nan=False, separators=(",", ":"))


def _shape(frame: Frame) -> list[float]:
    """Returns width and height as they are displayed, in any unit."""
    shape = [float(frame.width * frame.aspect), float(frame.height)]
    return shape[::-1] if frame.rotation % 180 else shape


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds * 1e3, 2)


def _events(events: tuple[Event, ...]) -> list[dict[str, Any]]:
    return [{"at": round(event.at, 1), "text": event.text} for event in events[-EVENTS:]]
