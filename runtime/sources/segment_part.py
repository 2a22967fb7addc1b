"""A part of a source's frames, which no other process makes or has made."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..errors import SourceError
from ..frame import Damage, Frame
from .base import Source


class PartSource(Source):
    """The frames for whose number, from 0, `wanted` is true, at most `limit`; the others are decoded,
    too.

    Nothing is sought: an index or a key frame may be wrong, and then other frames would come than in a
    run over all of them. The inner source stays its owner's to close.
    """

    def __init__(
        self,
        source: Source,
        wanted: Callable[[int], bool],
        *,
        limit: int | None = None,
        least: int = 0,
    ) -> None:
        """Read the first frame. Raises SourceError where there is none.

        Of the source at `least` so many frames were seen in an earlier run: fewer are an error.
        """
        self.uri = source.uri
        self.info = source.info
        self.seen = 0
        """The number of frames that have come from the inner source."""
        self._source = source
        self._frames = iter(source)
        self._wanted = wanted
        self._limit = limit
        self._least = least
        first = next(self._frames, None)
        if first is None:
            raise SourceError(f"{source.uri} gave no frame: it holds none that can be decoded")
        self.first = first
        """The first frame, which a stage with memory may have to see before all others."""

    def __iter__(self) -> Iterator[Frame]:
        frame: Frame | None = self.first
        last = -1
        while frame is not None and (self._limit is None or self.seen < self._limit):
            # As a sink does with two frames of one time, so that the result does not depend on the
            # process.
            last = max(frame.pts, last + 1)
            number, self.seen = self.seen, self.seen + 1
            if self._wanted(number):
                yield frame if frame.pts == last else replace(frame, pts=last)
            frame = next(self._frames, None)
        if self.seen < self._least:
            raise SourceError(
                f"{self.uri} has ended after {self.seen} frames, yet {self._least} were made of it "
                "before: it is not what it was; --restart begins anew"
            )

    @property
    def damage(self) -> Damage:
        reached = self._limit is not None and self.seen >= self._limit
        return Damage() if reached else self._source.damage

    @property
    def notes(self) -> tuple[str, ...]:
        return self._source.notes

    def close(self) -> None:
        return None
