"""The contract of a source."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

from ..frame import Damage, Frame, VideoInfo

Deinterlace = Literal["auto", "no", "force", "fields"]
"""`auto`: frames that say they are interlaced become one whole picture each. `no`: left as they are.
`force`: every frame, whatever it says. `fields`: a picture for each field, at twice the rate."""


class Source(ABC):
    """Frames in order of time. Iterate once; close when done."""

    uri: str
    info: VideoInfo

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame. Raises SourceError when nothing more can be read at all."""

    @abstractmethod
    def close(self) -> None:
        """Release files and devices; iteration must have ended."""

    @property
    def damage(self) -> Damage:
        """What was lost so far; complete after the last frame."""
        return Damage()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
