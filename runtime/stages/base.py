"""The contract of a stage."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from ..frame import Frame

Stage = Callable[[Frame], Frame]
"""A stage is any callable from a frame to a frame. It must not write into the frame it is given."""


@runtime_checkable
class PipelinedStage(Protocol):
    """A stage that can work on several frames at once; the pump keeps their order."""

    in_flight: int
    """The number of frames to submit before the first result is asked for."""

    def __call__(self, frame: Frame) -> Frame: ...

    def submit(self, frame: Frame) -> Callable[[], Frame]:
        """Starts on a frame; the returned function waits for the result and returns it."""
        ...
