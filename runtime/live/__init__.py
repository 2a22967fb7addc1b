"""Live: sources that do not wait, held to a deadline."""

from .latency import Percentiles
from .mailbox import Drop
from .output import Output
from .processor import Processed, Processor, StagesProcessor
from .pump import LivePump
from .stats import Event, LiveStats, OutputStats

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
