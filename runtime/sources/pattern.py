"""A moving test pattern, for trials without a file."""

import re
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from ..errors import SourceError
from ..frame import YUV420P, Array, Colour, Frame, VideoInfo
from .base import Source
from .kind import Reading

_URI = re.compile(r"pattern:(\d+)x(\d+)(?:@(\d+(?:/\d+)?))?(?:\?frames=(\d+))?")


def open_waiting(uri: str, reading: Reading) -> Source:
    """Open `pattern:WIDTHxHEIGHT[@RATE][?frames=N]`. Raises SourceError for anything else."""
    del reading  # there is nothing to choose
    return PatternSource(uri)


class PatternSource(Source):
    """A zone plate whose rings travel, over a colour sweep: 8-bit 4:2:0, every frame different."""

    def __init__(self, uri: str) -> None:
        """`pattern:WIDTHxHEIGHT[@RATE][?frames=N]`; 30 fps and 90 frames unless given."""
        match = _URI.fullmatch(uri)
        halves = (match[3] or "30").split("/") if match is not None else ["0"]
        if match is None or min(int(match[1]), int(match[2]), *map(int, halves)) < 1:
            raise SourceError(f"{uri!r} is not a pattern; write pattern:640x360@30?frames=90")
        self.uri = uri
        self._first = 0
        rate = Fraction(match[3] or 30)
        frames = int(match[4] or 90)
        self.info = VideoInfo(
            width=int(match[1]),
            height=int(match[2]),
            format=YUV420P,
            rate=rate,
            time_base=1 / rate,
            frames=frames,
            duration=float(frames / rate),
            colour=Colour(matrix="bt709", primaries=1, transfer=1),
            codec="pattern",
        )

    def seek(self, seconds: float) -> bool:
        self._first = max(int(seconds * self.info.rate), 0)
        return True

    def __iter__(self) -> Iterator[Frame]:
        info = self.info
        y, x = np.mgrid[0 : info.height, 0 : info.width].astype(np.float32)
        radius = ((x - info.width / 2) ** 2 + (y - info.height / 2) ** 2) / (2 * info.width)
        # One period of rings in 64 levels, so that a frame is a table look-up.
        phase = (radius * (64 / np.pi)).astype(np.int64)
        table = (126 + 90 * np.sin(np.arange(64) * (2 * np.pi / 64))).astype(np.uint8)
        width, height = YUV420P.chroma_size(info.width, info.height)
        sweep = np.linspace(64, 192, width).astype(np.uint8)
        for index in range(self._first, info.frames or 0):
            luma: Array = table[(phase - 2 * index) % 64]
            u = np.broadcast_to(np.roll(sweep, index), (height, width)).copy()
            v = np.ascontiguousarray(u[:, ::-1])
            yield Frame(
                planes=(luma, u, v),
                format=YUV420P,
                pts=index,
                time_base=info.time_base,
                colour=info.colour,
                index=index,
            )

    def close(self) -> None:
        return None
