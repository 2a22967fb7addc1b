"""The messages that a page may send, and the interface that they act on; all others are refused."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from ..frame import Frame
from ..live.controls import Adjustable
from ..live.stats import LiveStats

LIMIT = 64 * 1024
"""Bytes above which a message closes the connection."""
CHAIN = 8
"""Models that a page may request in a chain."""


class RubbishError(ValueError):
    """An invalid message; the text tells the sender why."""


@dataclass(frozen=True, slots=True)
class Message:
    """A page's command."""

    type: str
    value: Any
    """None, bool, int, float, str, or a tuple of str, checked by `KINDS` for this type."""


def parse(text: str) -> Message:
    """Returns the message. Raises RubbishError for all but {"type": ..., "value": ...} with a known
    type and a valid value."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RubbishError("a message must be a JSON object") from None
    if not isinstance(found, dict) or not set(cast("dict[str, Any]", found)) <= {"type", "value"}:
        raise RubbishError('a message must be {"type": ..., "value": ...}')
    fields = cast("dict[str, Any]", found)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RubbishError(f"a message's type must be one of: {', '.join(KINDS)}")
    return Message(kind, KINDS[kind](kind, fields.get("value")))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _nothing(kind: str, value: Any) -> None:
    if value is not None:
        raise RubbishError(f"{kind} takes no value")


def _switch(kind: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RubbishError(f"{kind} must be true or false")
    return value


def _part(kind: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RubbishError(f"{kind} must be a number from 0 to 1")
    # NaN fails both comparisons; an integer may be too large to become a float.
    if not 0 <= value <= 1 or not math.isfinite(value):
        raise RubbishError(f"{kind} must be a number from 0 to 1")
    return float(value)


def _part_or_none(kind: str, value: Any) -> float | None:
    return None if value is None else _part(kind, value)


def _serial(kind: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise RubbishError(f"{kind} must be the number of a picture")
    return value


def _text(kind: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RubbishError(f"{kind} must be a text")
    return value


def _names(kind: str, value: Any) -> tuple[str, ...]:
    names = cast("list[Any]", value) if isinstance(value, list) else []
    if not 0 < len(names) <= CHAIN or not all(isinstance(name, str) for name in names):
        raise RubbishError(f"{kind} must be a list of 1 to {CHAIN} names")
    return tuple(names)


KINDS: dict[str, Callable[[str, Any], Any]] = {
    "off": _switch,
    "strength": _part,
    "split": _part_or_none,
    "models": _names,
    "record": _switch,
    "offer": _text,
    "key": _nothing,
    "mjpeg": _switch,
    "shown": _serial,
}


class Panel(Adjustable, Protocol):
    """The switches of a run. Called from the view's own threads; an impossible command raises
    VelaturaError with the reason, which the page shows."""

    @property
    def available(self) -> tuple[str, ...]:
        """The models that a page may change to."""
        ...

    @property
    def recording(self) -> Path | None:
        """The path of the recording in progress; None while there is none."""
        ...

    def stats(self) -> LiveStats:
        """Returns the figures of the run so far."""
        ...

    def snapshot(self) -> Frame | None:
        """Returns the newest frame at its full size; None before the first."""
        ...

    def record(self, on: bool) -> Path | None:
        """Begins or ends a recording; returns its path."""
        ...
