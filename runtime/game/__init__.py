"""Post-processing of games: the last pass of a frame, in process and across processes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conventions import DepthConvention, MotionConvention
    from .post import PostProcess
    from .shm.client import Client
    from .stats import PostStats, Shown

__all__ = ["Client", "DepthConvention", "MotionConvention", "PostProcess", "PostStats", "Shown"]

_LAZY = {
    "Client": ".shm.client",
    "DepthConvention": ".conventions",
    "MotionConvention": ".conventions",
    "PostProcess": ".post",
    "PostStats": ".stats",
    "Shown": ".stats",
}


def __getattr__(name: str) -> Any:
    # They need OpenCV, which the command line and a library's import should not wait for.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
