"""A video at another, constant frame rate."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor

from ..frame import Frame
from .base import DerivedSource, Source

_COUNTED = {"timecode": "timecode", "captions": "closed captions"}
"""Side data that goes by frames, by its name in `SideData`."""


class RateSource(DerivedSource):
    """Gives frame k at k / rate: the frame that the inner source shows then.

    As FFmpeg's filter `fps` has it, with times rounded to the nearest: frames are given twice or left
    out, none is blended of two. A video that begins later than at 0 still does, and it ends where the
    last frame's showing does. The inner source is closed with this one.
    """

    def __init__(self, source: Source, rate: Fraction) -> None:
        super().__init__(source)
        info = source.info
        self._rate = rate
        count = None
        if info.frames is not None:
            length = Fraction(info.duration) if info.duration else info.frames / info.rate
            count = max(_near(length * rate), 1)
        notes = [f"converted from {_words(info.rate)} to {_words(rate)} frames a second"]
        side, counted = info.side, [name for name in _COUNTED if getattr(info.side, name)]
        if counted and rate != info.rate:
            told = " and the ".join(_COUNTED[name] for name in counted)
            notes.append(f"the {told} of the source are left out: they count its own frames")
            side = replace(side, timecode="", captions=False)
        self._counts = rate == info.rate
        self.info = replace(
            info, rate=rate, time_base=1 / rate, frames=count, side=side, notes=(*info.notes, *notes)
        )

    def __iter__(self) -> Iterator[Frame]:
        shown: Frame | None = None
        place = index = 0
        usual = 1 / self._source.info.rate
        for frame in self._source:
            begin = _near(frame.pts * frame.time_base * self._rate)
            if shown is None:
                place = begin
            while shown is not None and place < begin:
                yield self._placed(shown, place, index)
                place, index = place + 1, index + 1
            shown = frame
        if shown is None:
            return
        end = self._source.end or shown.pts * shown.time_base + usual
        # A film of one short picture is still one.
        until = max(_near(end * self._rate), place + (index == 0))
        while place < until:
            yield self._placed(shown, place, index)
            place, index = place + 1, index + 1

    def _placed(self, frame: Frame, place: int, index: int) -> Frame:
        captions = frame.captions if self._counts else b""
        return replace(
            frame, pts=place, time_base=1 / self._rate, index=index, duration=1, captions=captions
        )


def _near(number: Fraction) -> int:
    """Returns the nearest integer; halves round away from zero, as in FFmpeg."""
    return floor(number + Fraction(1, 2)) if number >= 0 else -floor(-number + Fraction(1, 2))


def _words(rate: Fraction) -> str:
    return str(rate) if rate.denominator == 1 else f"{float(rate):.3f}"
