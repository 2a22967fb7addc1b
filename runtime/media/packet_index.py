"""PacketIndex: where parts of a film begin, found in its packets without decoding them."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The packet of a key frame."""

    packet: int
    """Its number among the video's packets, from 0."""
    pts: int
    size: int
    """Bytes."""
    discarded: int
    """Packets before it whose pictures the container cuts off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A frame from which on a film can be read, and the key frames to decode from."""

    number: int
    """The frame's number, from 0, if every packet gives a frame: only decoding shows that."""
    pts: int
    """Its time on the file's own clock, in ticks of the stream."""
    near: Key
    """The last key frame that is not shown later."""
    far: Key
    """The one before that: a whole group of pictures is decoded first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketIndex:
    """What a pass over all packets has told. Plain data, kept in a journal."""

    frames: int
    """Frames of the film, if every packet gives one."""
    starts: tuple[Start, ...]
    """In order; a film's beginning needs none."""

    def start(self, number: int) -> Start | None:
        """Returns the start at that frame."""
        return next((start for start in self.starts if start.number == number), None)

    @classmethod
    def of(
        cls, times: Sequence[int | None], keys: Sequence[Key], *, every: int, ahead: int
    ) -> Self | None:
        """Returns the index of packets with these times, None for those that give no frame.

        Starts are `ahead` frames before each `every`-th frame; one with fewer than two key frames
        before it is left out. None where the times do not tell the order of the frames.
        """
        shown = sorted(time for time in times if time is not None)
        begins = [key.pts for key in keys]
        if any(a == b for a, b in pairwise(shown)) or begins != sorted(begins):
            return None
        starts: list[Start] = []
        for number in range(every - ahead, len(shown), every):
            place = bisect_right(begins, shown[number]) - 1
            if number > 0 and place > 0:
                near, far = keys[place], keys[place - 1]
                starts.append(Start(number=number, pts=shown[number], near=near, far=far))
        return cls(frames=len(shown), starts=tuple(starts))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the index whose `dataclasses.asdict` this was. Raises TypeError or KeyError."""
        starts = tuple(
            Start(number=one["number"], pts=one["pts"], near=Key(**one["near"]), far=Key(**one["far"]))
            for one in fields["starts"]
        )
        return cls(frames=fields["frames"], starts=starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What was seen of the source while the frames of one segment were read.

    Where the `end` of one segment is not the `before` of the next, one of the two was not read where
    its reader thought.
    """

    before: str
    """Digest of the source's frame before the segment; empty before the first one."""
    end: str
    """Digest of the segment's last source frame; empty where the source ended within it."""
    sought: bool = False
    """True if the reader did not come from the film's beginning."""
    steady: bool = True
    """False where frames may depend on all that came before, so that none after it may be sought."""
