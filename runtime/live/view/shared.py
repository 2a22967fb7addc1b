"""What all pages of a view share: the newest frame, the run's switches and its figures."""

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...frame import Frame
from ..stats import Event
from .contract import Panel
from .history import SECONDS, History
from .mjpeg import Jpegs
from .newest import Newest

if TYPE_CHECKING:
    from .rtc import Peers

STALLED = 2.0
"""Seconds without a frame after which the page says so."""
EVENTS = 40
"""How many of the last events are sent."""


@dataclass(slots=True, kw_only=True)
class Shared:
    """Belongs to the server; a session has it to look at."""

    panel: Callable[[], Panel | None]
    """None until the run has been wired."""
    ladder: Callable[[], Sequence[tuple[str, float]]]
    """The governor's rungs, from the best picture to the cheapest, with the seconds that each takes;
    empty where there is no governor."""
    deadline: float
    """Seconds that frames may take."""
    newest: Newest
    history: History
    jpegs: Jpegs
    peers: "Peers | None"
    """None where there is no WebRTC."""
    pictures: Executor
    switches: Executor
    """One thread, so that wishes are done in the order in which they came."""


def state(shared: Shared) -> dict[str, Any]:
    """Where the run stands, for the page; durations in milliseconds. Never raises."""
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
    """The chart's last seconds: each one's number, as `now` counts, its p50 and p99 in milliseconds."""
    now = time.monotonic()
    return [
        [second.at, _milliseconds(second.p50), _milliseconds(second.p99)]
        for second in shared.history.since(now, int(now) - seconds)
    ]


def to_json(message: dict[str, Any]) -> str:
    """As it is sent."""
    return json.dumps(message, allow_nan=False, separators=(",", ":"))


def _shape(frame: Frame) -> list[float]:
    """Width and height as they are seen, in any unit."""
    shape = [float(frame.width * frame.aspect), float(frame.height)]
    return shape[::-1] if frame.rotation % 180 else shape


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds * 1e3, 2)


def _events(events: tuple[Event, ...]) -> list[dict[str, Any]]:
    return [{"at": round(event.at, 1), "text": event.text} for event in events[-EVENTS:]]
