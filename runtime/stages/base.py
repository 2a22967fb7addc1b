"""The contract of a stage, and the chain of several."""

from collections.abc import Callable, Sequence
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


class Chain:
    """Stages one after the other, as one stage. It is pipelined as its first stage is."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        first = self.stages[0] if self.stages else None
        self._pipelined = first if isinstance(first, PipelinedStage) else None
        self._later = self.stages if self._pipelined is None else self.stages[1:]
        self.in_flight = 1 if self._pipelined is None else self._pipelined.in_flight

    @property
    def notes(self) -> tuple[str, ...]:
        """The stages' notes."""
        return tuple(note for stage in self.stages for note in getattr(stage, "notes", ()))

    def __call__(self, frame: Frame) -> Frame:
        return self.submit(frame)()

    def submit(self, frame: Frame) -> Callable[[], Frame]:
        """Starts a pipelined first stage; the returned function waits for it, and runs the others."""
        pending = None if self._pipelined is None else self._pipelined.submit(frame)

        def result() -> Frame:
            made = frame if pending is None else pending()
            for stage in self._later:
                made = stage(made)
            return made

        return result
