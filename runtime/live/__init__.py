"""Live runs: sources that do not wait, held to a deadline."""

from ..adaptive.processor import Processed, Processor, StagesProcessor
from ..meter import Event, Percentiles
from .output import Drop, Output
from .pump import LivePump
from .stats import LiveStats, OutputStats

__all__ = [
    "Drop",
    "Event",
    "LivePump",
    "LiveStats",
    "Output",
    "OutputStats",
    "Percentiles",
    "Processed",
    "Processor",
    "StagesProcessor",
]
