"""What a desk needs of the post-process that it opens."""

from collections.abc import Callable
from typing import Any, Protocol

from ..conventions import DepthConvention, MotionConvention
from .asked import Conventions


class Shown(Protocol):
    """What a post-process did with its last frame."""

    @property
    def passed(self) -> bool:
        """Whether without the models."""
        ...


class Post(Protocol):
    """What a desk needs of a `PostProcess`."""

    @property
    def last(self) -> Shown | None: ...

    @property
    def rung(self) -> str: ...

    def __call__(
        self,
        color: Any,
        motion: Any = None,
        depth: Any = None,
        reset: bool = False,
        *,
        reactive: Any = None,
        jitter: tuple[float, float] = (0.0, 0.0),
        out: Any = None,
    ) -> Any: ...

    def interpret(self, motion: MotionConvention, depth: DepthConvention) -> None:
        """What the next frame's numbers mean."""
        ...

    def listen(self, tell: Callable[[str], None]) -> None: ...

    def close(self) -> None: ...


OpenPost = Callable[[Conventions, tuple[int, int]], Post]
"""Opens one for frames of that width and height, without keeping anybody waiting."""
