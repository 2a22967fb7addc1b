"""What a figure is worth nothing without: the machine, the spread, the rate it could have."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from velatura.runtime import machine
from velatura.runtime.backends.open import distributions

__all__ = ["facts", "repeat", "spread"]


def facts() -> dict[str, Any]:
    """The machine and the packages of all backends."""
    return machine.facts(distributions())


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest and highest of repeated measurements."""
    return {
        "median": round(statistics.median(values), 4),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
        "runs": len(values),
    }


def repeat(measure: Callable[[], float], times: int) -> list[float]:
    """`times` measurements after one that is thrown away."""
    measure()
    return [measure() for _ in range(times)]
