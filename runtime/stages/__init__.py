"""Stages: anything callable that takes a Frame and gives a Frame."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import PipelinedStage, Stage

if TYPE_CHECKING:
    from ..temporal.stabilizer import Stabiliser, Stabilize
    from .blend import Blend, Blending, Mask
    from .geometry import Conform, Resize, Upright
    from .neural import Neural

__all__ = [
    "Blend",
    "Blending",
    "Conform",
    "Mask",
    "Neural",
    "PipelinedStage",
    "Resize",
    "Stabiliser",
    "Stabilize",
    "Stage",
    "Upright",
]

_LAZY = {
    "Blend": ".blend",
    "Blending": ".blend",
    "Conform": ".geometry",
    "Mask": ".blend",
    "Neural": ".neural",
    "Resize": ".geometry",
    "Stabiliser": "..temporal.stabilizer",
    "Stabilize": "..temporal.stabilizer",
    "Upright": ".geometry",
}


def __getattr__(name: str) -> Any:
    # The stages need OpenCV, which the command line and a library's import should not wait for.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
