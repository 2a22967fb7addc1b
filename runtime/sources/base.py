"""The contract of a source."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from typing import Self

from ..frame import Colour, Damage, Frame, VideoInfo
from ..media.options import Deinterlace
from ..media.packet_index import PacketIndex, Start

__all__ = ["FASTEST", "SRGB", "Deinterlace", "DerivedSource", "Source"]

FASTEST = 1000
"""Frames per second above which a rate is taken for a mistake."""


SRGB = Colour(matrix="bt709", range="limited", primaries=1, transfer=13)
"""The colour of pixels that state none; the matrix is for who makes YUV of them."""


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

    def seek(self, seconds: float) -> bool:
        """Seek, before iterating, to a frame shown at that time or earlier, if that can be found.

        Frames then have their own times, but not their numbers, and the first may be damaged: good
        enough for a look, never for an output. False where the source begins at its beginning all the
        same.
        """
        del seconds
        return False

    def index(self, *, every: int, ahead: int) -> PacketIndex | None:
        """Returns the frames `ahead` of every `every`-th one, from which reading may begin.

        None where the source can only be read from its beginning.
        """
        del every, ahead
        return None

    def start_at(self, start: Start, *, sure: bool) -> bool:
        """Read on from that frame of the index, as if all before had been read.

        Unless that frame is `sure` to be recognised by the caller, two key frames must lead to the same
        one. False where it cannot be found; the source is then good for nothing more.
        """
        del start, sure
        return False

    @property
    def steady(self) -> bool:
        """False once something came, such as damage, after which frames and their times may depend on
        all that came before them."""
        return True

    @property
    def damage(self) -> Damage:
        """The damage found so far; complete after the last frame."""
        return Damage()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on repairs, one line each; complete after the last frame."""
        return ()

    @property
    def end(self) -> Fraction | None:
        """Seconds at which the latest frame ends; None where that is not known."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DerivedSource(Source):
    """The frames of an inner source, changed: it is closed with this one, and tells of its damage."""

    def __init__(self, source: Source) -> None:
        self.uri = source.uri
        self.info = source.info
        self._source = source

    @property
    def steady(self) -> bool:
        return self._source.steady

    @property
    def damage(self) -> Damage:
        return self._source.damage

    @property
    def notes(self) -> tuple[str, ...]:
        return self._source.notes

    def close(self) -> None:
        self._source.close()
