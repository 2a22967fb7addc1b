"""A part of a source's frames: the segments that no other process makes or has made."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

from ..errors import SourceError
from ..frame import Damage, Frame
from ..media.packet_index import PacketIndex, Start, Trace
from .base import DerivedSource, Source


class PartSource(DerivedSource):
    """The frames of the segments that `take` names, and the `lead` frames before them.

    What comes before is sought where it can be proven that the same frames come as in a run over all of
    them, else it is decoded, too: an index or a key frame may be wrong. The inner source stays its
    owner's to close.
    """

    def __init__(
        self,
        source: Source,
        again: Callable[[], Source],
        *,
        length: int,
        lead: int = 0,
        limit: int | None = None,
        least: int = 0,
    ) -> None:
        """Read the first frame. Raises SourceError where there is none.

        `again` opens the source once more, to read it from its beginning; `length` is a segment's.
        At most `limit` frames come. Of the source at `least` so many were made in an earlier run: they
        only lead up to the others, and fewer are an error.
        """
        super().__init__(source)
        self.seen = 0
        """The number of the frame that comes next from the inner source."""
        self.ended = False
        """True once the inner source has come to its end, which is after `seen` frames."""
        self._again = again
        self._opened: Source | None = None
        self._length, self._lead = length, lead
        self._limit = limit
        self._least = least
        self._segment = 0
        self._start: Start | None = None
        self._before = ""
        self._rest = True
        self._sought = False
        self._ends: dict[int, str] = {}
        self._last = -1
        frames = iter(source)
        first = next(frames, None)
        if first is None:
            raise SourceError(f"{source.uri} gave no frame: it holds none that can be decoded")
        self.first = first
        """The first frame, which a stage with memory may have to see before all others."""
        self._frames = chain((first,), frames)

    def index(self, *, every: int, ahead: int) -> PacketIndex | None:
        return self._source.index(every=every, ahead=ahead)

    def take(
        self,
        segment: int,
        *,
        start: Start | None = None,
        before: str = "",
        rest: bool = False,
    ) -> None:
        """Choose the segment that iteration gives next, with the `rest` all that follow, too.

        `start` is where its reading may begin, None where it may not be sought; it is known to be right
        where the frame before the segment has the digest `before`.
        """
        self._segment, self._start, self._before, self._rest = segment, start, before, rest

    def __iter__(self) -> Iterator[Frame]:
        begin = self._segment * self._length
        wanted = max(begin, self._least) - self._lead
        if self.seen != begin or (self._sought and self._start is None):
            self._approach(begin)
        while not self._done(begin):
            frame = self._pull()
            if self._sought and self._strayed(begin):
                self._rewind()
            elif frame is None:
                break
            elif self.seen > wanted:
                yield frame
                wanted = self.seen
        if self.ended and self.seen < self._least:
            raise SourceError(
                f"{self.uri} has ended after {self.seen} frames, yet {self._least} were made of it "
                "before: it is not what it was; --restart begins anew"
            )

    def trace(self, segment: int) -> Trace:
        """Returns what was seen of the source while that segment was read; complete once its last frame
        was."""
        return Trace(
            before=self._ends.get(segment - 1, ""),
            end=self._ends.get(segment, ""),
            sought=self._sought,
            steady=self._source.steady,
        )

    @property
    def total(self) -> int | None:
        """The number of frames, where the end of the source or the limit is reached."""
        return self.seen if self.ended or self._limited else None

    @property
    def damage(self) -> Damage:
        return Damage() if self._limited else self._source.damage

    def close(self) -> None:
        """Close what was opened here; the source that was given stays open."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _limited(self) -> bool:
        return self._limit is not None and self.seen >= self._limit

    def _strayed(self, begin: int) -> bool:
        """Returns whether, after seeking, other frames may come than in a reading of all."""
        known = self._before if self.seen == begin else ""
        return not self._source.steady or bool(known and known != self._ends.get(self._segment - 1))

    def _done(self, begin: int) -> bool:
        return self._limited or (not self._rest and self.seen >= begin + self._length)

    def _approach(self, begin: int) -> None:
        """Go to a frame that is near before the segment, or to the beginning."""
        start = self._start
        if start is not None:
            if self._source.start_at(start, sure=bool(self._before)):
                self._frames = chain(self._source)
                self.seen, self.ended, self._sought, self._last = start.number, False, True, -1
            else:
                self._rewind()
        elif self._sought or self.seen > max(begin - max(self._lead, 1), 0):
            self._rewind()

    def _rewind(self) -> None:
        self.close()
        self._source = self._opened = self._again()
        self._frames = chain(self._source)
        self.seen, self.ended, self._sought, self._last = 0, False, False, -1

    def _pull(self) -> Frame | None:
        """Returns the next frame of the inner source."""
        frame = next(self._frames, None)
        if frame is None:
            self.ended = True
            return None
        number, self.seen = self.seen, self.seen + 1
        # As a sink does with two frames of one time, so that the result does not depend on the process.
        self._last = max(frame.pts, self._last + 1)
        if frame.pts != self._last:
            frame = replace(frame, pts=self._last)
        if self.seen % self._length == 0:
            self._ends[number // self._length] = frame.digest()
        return frame
