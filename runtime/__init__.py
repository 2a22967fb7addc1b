"""The frame pump: sources, neural stages, sinks."""

from .backends import Engine, open_engine
from .card import CardFlags, ModelCard
from .errors import (
    BackendUnavailableError,
    ContractError,
    EngineError,
    ModelError,
    SinkError,
    SourceError,
    StageError,
    TruncatedSourceError,
    VelaturaError,
)
from .frame import Colour, Damage, Frame, Hdr, PixelFormat, VideoInfo
from .pump import Pump, Snapshot, Stats
from .sinks import Encoding, Sink, open_sink
from .sources import Source, open_source

__all__ = [
    "BackendUnavailableError",
    "CardFlags",
    "Colour",
    "ContractError",
    "Damage",
    "Encoding",
    "Engine",
    "EngineError",
    "Frame",
    "Hdr",
    "ModelCard",
    "ModelError",
    "PixelFormat",
    "Pump",
    "Sink",
    "SinkError",
    "Snapshot",
    "Source",
    "SourceError",
    "StageError",
    "Stats",
    "TruncatedSourceError",
    "VelaturaError",
    "VideoInfo",
    "open_engine",
    "open_sink",
    "open_source",
]
