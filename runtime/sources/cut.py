"""A part of a source, from one moment to another, as if it were the whole."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Self

from ..errors import SourceError
from ..frame import Damage, Frame
from .base import DerivedSource, Source

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
_FRAME = re.compile(r"(\d+)f")

SLACK = Fraction(1, 2000)
"""Seconds by which a frame may begin earlier than a moment and still be the first from there: times are
typed, and told by players, in whole milliseconds. Half a tick of the file's is enough where that is
less, which is how FFmpeg's `trim` rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A moment of a source: a number of seconds from its beginning, or of frames."""

    seconds: Fraction | None = None
    frame: int | None = None
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the moment that is meant by `12.5`, `1:02:03.250` or `250f`. Raises ValueError with
        the reason."""
        if text.strip().startswith("-"):
            raise ValueError(f"{text!r} is before the beginning, which is 0")
        if (found := _FRAME.fullmatch(text.strip())) is not None:
            number = int(found[1])
            return cls(frame=number, text=f"{number}f")
        found = _TIME.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                f"{text!r} is no moment: write seconds (12.5), hh:mm:ss.mmm (0:01:30.5), or the number "
                "of a frame (250f)"
            )
        hours, minutes, seconds = (Decimal(part or 0) for part in found.groups())
        if (found[2] and seconds >= 60) or (found[1] and minutes >= 60):
            raise ValueError(f"{text!r} has more than 59 minutes or seconds beside what stands before")
        total = hours * 3600 + minutes * 60 + seconds
        return cls(seconds=Fraction(total), text=f"{total.normalize():f}")

    @property
    def zero(self) -> bool:
        """True for the beginning."""
        return not (self.seconds or self.frame)

    def before(self, other: "Moment") -> bool | None:
        """Returns whether it is earlier than another; None where only the frames' times tell."""
        if self.frame is not None and other.frame is not None:
            return self.frame < other.frame
        if self.seconds is not None and other.seconds is not None:
            return self.seconds < other.seconds
        return None if not other.zero else False

    def reached(self, number: int, time: Fraction, tick: Fraction) -> bool:
        """Returns whether the frame of that number, which begins at `time` seconds, is there or later;
        times are multiples of `tick`."""
        if self.frame is not None:
            return number >= self.frame
        assert self.seconds is not None
        return time > self.seconds - min(tick / 2, SLACK)

    def near(self, rate: Fraction) -> Fraction:
        """Returns the seconds from the beginning, of a frame where frames are equally far apart."""
        return self.seconds if self.seconds is not None else (self.frame or 0) / rate


def check_order(start: Moment | None, end: Moment | None) -> None:
    """Raise ValueError where nothing can lie between two moments; None is the beginning or the end."""
    if end is None:
        return
    if end.zero:
        raise ValueError("--end 0 leaves nothing: it is the beginning")
    if start is not None and start.before(end) is False:
        where = "is where --start is" if end.before(start) is False else "lies before"
        told = "" if where.startswith("is") else f" --start {start.text}"
        raise ValueError(f"--end {end.text} {where}{told}: nothing is left")


class CutSource(DerivedSource):
    """The frames that begin at `start` or later, and before `end`; the first of them is at time 0.

    Nothing is sought: what comes before is decoded and left out, so that the frames are those of the
    whole. The inner source is closed with this one.
    """

    def __init__(self, source: Source, start: Moment | None, end: Moment | None) -> None:
        """Read up to the first frame. Raises SourceError where there is none."""
        super().__init__(source)
        self._end = end
        self._frames = enumerate(source)
        start = start if start is not None and not start.zero else None
        first, number, last = None, 0, None
        for number, frame in self._frames:
            if start is None or start.reached(number, _time(frame), frame.time_base):
                first = frame
                break
            last = frame
        if first is None or (end is not None and end.reached(number, _time(first), first.time_base)):
            raise SourceError(self._nothing(start, number, first, last))
        self._first: tuple[int, Frame] = number, first
        # Without a beginning of its own the sound may come first, as it does in the whole.
        self._shift = first.pts if start is not None else 0
        self._over: Fraction | None = None
        self._sought = False
        info = source.info
        begin = self._shift * first.time_base
        length = Fraction(info.duration) if info.duration else None
        if end is not None:
            length = min(filter(None, (length, end.near(info.rate))))
        frames = info.frames and info.frames - number
        if end is not None:
            exact = end.frame is not None and end.frame - number
            between = exact or max(round((end.near(info.rate) - _time(first)) * info.rate), 1)
            frames = min(filter(None, (frames, between)))
        self.info = replace(
            info,
            start=info.start + float(begin),
            part=True,
            frames=frames,
            duration=None if length is None else float(max(length - begin, 1 / info.rate)),
        )

    def _nothing(
        self, start: Moment | None, number: int, first: Frame | None, last: Frame | None
    ) -> str:
        if start is None or (first is None and last is None):
            return f"{self.uri} gave no frame: none can be decoded before --end"
        if first is None and last is not None:
            return (
                f"--start {start.text} is after the end of {self.uri}: its last frame, number "
                f"{number}, begins at {float(_time(last)):.3f} s"
            )
        assert self._end is not None
        return f"no frame of {self.uri} lies between --start {start.text} and --end {self._end.text}"

    def seek(self, seconds: float) -> bool:
        found = self._source.seek(seconds + self._shift * float(self.info.time_base))
        if found:
            self._sought = True
            self._frames = enumerate(self._source)
        return found

    def __iter__(self) -> Iterator[Frame]:
        held: Frame | None = None
        if not self._sought:
            held = self._placed(self._first[1], 0)
        for number, frame in self._frames:
            if self._ends(number, frame):
                if held is not None:
                    # It stands until the next would have come.
                    length = frame.pts - self._shift - held.pts
                    self._over = (held.pts + length) * held.time_base
                    yield replace(held, duration=length)
                return
            if self._sought and frame.pts < self._first[1].pts:
                continue
            if held is not None:
                yield held
            held = self._placed(frame, 0 if held is None else held.index + 1)
        if held is not None:
            yield held

    def _ends(self, number: int, frame: Frame) -> bool:
        if self._end is None:
            return False
        if self._sought:  # the frames' numbers are not known
            return _time(frame) >= self._end.near(self.info.rate)
        return self._end.reached(number, _time(frame), frame.time_base)

    def _placed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, pts=frame.pts - self._shift, index=index)

    @property
    def damage(self) -> Damage:
        return Damage() if self._over is not None else self._source.damage

    @property
    def end(self) -> Fraction | None:
        if self._over is not None:
            return self._over
        end = self._source.end
        return None if end is None else end - self._shift * self.info.time_base


def _time(frame: Frame) -> Fraction:
    return frame.pts * frame.time_base
