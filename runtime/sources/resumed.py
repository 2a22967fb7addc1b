"""The rest of a source whose first frames are there already."""

from collections.abc import Callable, Iterator

from ..errors import SourceError
from ..frame import Damage, Frame
from .base import Source


class ResumedSource(Source):
    """Goes on after the first `skipped` frames, which are decoded and dropped.

    Nothing is sought: an index or a key frame may be wrong, and then other frames would follow than
    in a run that was not cut off. The inner source stays its owner's to close.
    """

    EVERY = 1000

    def __init__(self, source: Source, skipped: int, progress: Callable[[int], None]) -> None:
        """Skip, telling `progress` now and then how many are left behind. Raises SourceError."""
        self.uri = source.uri
        self.info = source.info
        self._source = source
        self._frames = iter(source)
        for number in range(skipped):
            if next(self._frames, None) is None:
                raise SourceError(
                    f"{source.uri} has ended after {number} frames, yet {skipped} were made of it "
                    "before: it is not what it was; --restart begins anew"
                )
            if number and number % self.EVERY == 0:
                progress(number)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    @property
    def damage(self) -> Damage:
        return self._source.damage

    def close(self) -> None:
        return None
