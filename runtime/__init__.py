"""The frame pump: sources, neural stages, sinks; and neural networks as the last pass of a game."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .game import DepthConvention, MotionConvention, PostProcess, PostStats

__all__ = [
    "BackendUnavailableError",
    "CardFlags",
    "Colour",
    "ContractError",
    "Damage",
    "DepthConvention",
    "Encoding",
    "Engine",
    "EngineError",
    "Frame",
    "Hdr",
    "ModelCard",
    "ModelError",
    "MotionConvention",
    "PixelFormat",
    "PostProcess",
    "PostStats",
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


def __getattr__(name: str) -> Any:
    # What games need loads OpenCV, which other imports should not wait for.
    if name in ("DepthConvention", "MotionConvention", "PostProcess", "PostStats"):
        return getattr(import_module(".game", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
