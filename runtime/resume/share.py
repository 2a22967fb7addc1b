"""Share: what several processes that make segments of one output must know of it."""

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
    """The output."""
    folder: Path
    """Its journal's, whose lock the process that hands out the shares holds."""
    state: State
    """The journal's."""
    coding: Coding
    kind: str
    """FFmpeg's name of the container."""
    encoding: Encoding
    files: tuple[str, ...]
    """The source's."""
    made: frozenset[int]
    """Numbers of the segments that are there already."""
    number: int = 0
    """Which of the parts, from 0."""
    of: int = 1

    @property
    def choices(self) -> Choices:
        """Backend and precision of each model."""
        return self.state.choices

    def takes(self, frame: int) -> bool:
        """Whether that frame of the film, from 0, is to be made here."""
        segment = frame // self.state.length
        return segment % self.of == self.number and segment not in self.made

    def leads(self, frame: int, lead: int) -> bool:
        """Whether a segment to be made here begins within `lead` frames after that one."""
        begin = (frame // self.state.length + 1) * self.state.length
        return begin - frame <= lead and self.takes(begin)

    def segments(self) -> Iterator[int]:
        """The numbers of the segments to be made here, without end."""
        return (n for n in count(self.number, self.of) if n not in self.made)
