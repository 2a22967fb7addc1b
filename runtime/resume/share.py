"""Share: the part of one output that one of several processes makes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..media.encode import Coding
from ..media.options import Encoding
from .journal import Choices, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of `of` equal parts of an output that is made in segments: every `of`-th segment."""

    path: Path
    """The path of the output."""
    folder: Path
    """The journal's folder, whose lock is held by the process that hands out the shares."""
    state: State
    """The journal's state."""
    coding: Coding
    kind: str
    """FFmpeg's name of the container."""
    encoding: Encoding
    files: tuple[str, ...]
    """The source's files."""
    made: frozenset[int]
    """Numbers of the segments that exist already."""
    number: int = 0
    """The number of this part, from 0."""
    of: int = 1

    @property
    def choices(self) -> Choices:
        """Backend and precision of each model."""
        return self.state.choices

    def takes(self, frame: int) -> bool:
        """Returns whether that frame of the film, from 0, belongs to this share."""
        segment = frame // self.state.length
        return segment % self.of == self.number and segment not in self.made

    def leads(self, frame: int, lead: int) -> bool:
        """Returns whether a segment of this share begins within `lead` frames after that frame."""
        begin = (frame // self.state.length + 1) * self.state.length
        return begin - frame <= lead and self.takes(begin)

    def segments(self) -> Iterator[int]:
        """Yields the numbers of this share's segments, without end."""
        return (n for n in count(self.number, self.of) if n not in self.made)
