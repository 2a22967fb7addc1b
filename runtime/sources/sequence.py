"""Numbered or globbed pictures as a video."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError
from ..frame import Array, Frame, PixelFormat, VideoInfo
from ..media.packet_index import Key, PacketIndex, Start
from .base import SRGB, Source
from .kind import Reading

_OPACITY = frozenset({".png", ".tif", ".tiff", ".webp"})
_NUMBER = re.compile(r"%(0\d+)?d")


class SequenceSource(Source):
    """Pictures in order of name (`frames/*.png`) or of number (`frames/%05d.png`)."""

    def __init__(self, pattern: str, reading: Reading) -> None:
        """Find the pictures and read the first; they come 25 a second unless told. Raises SourceError
        when there is none."""
        rate = reading.rate or Fraction(25)
        self.uri = pattern
        self.paths = _find(pattern)
        self._first = 0
        if not self.paths:
            raise SourceError(f"no pictures match {pattern}")
        pixels, alpha, format = _read(self.paths[0])
        self.info = VideoInfo(
            width=pixels.shape[1],
            height=pixels.shape[0],
            format=format,
            rate=rate,
            time_base=1 / rate,
            frames=len(self.paths),
            files=tuple(map(str, self.paths)),
            duration=float(len(self.paths) / rate),
            codec=self.paths[0].suffix.lstrip("."),
            alpha=alpha is not None,
            colour=SRGB,
        )

    def seek(self, seconds: float) -> bool:
        self._first = min(max(int(seconds * self.info.rate), 0), len(self.paths) - 1)
        return True

    def index(self, *, every: int, ahead: int) -> PacketIndex | None:
        numbers = range(len(self.paths))
        keys = [Key(packet=number, pts=number, size=0, discarded=0) for number in numbers]
        return PacketIndex.of(numbers, keys, every=every, ahead=ahead)

    def start_at(self, start: Start, *, sure: bool) -> bool:
        del sure  # each picture is a file of its own
        self._first = start.number
        return True

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths[self._first :], self._first):
            pixels, alpha, format = _read(path)
            yield Frame(
                planes=(pixels,),
                format=format,
                pts=index,
                time_base=self.info.time_base,
                colour=self.info.colour,
                index=index,
                alpha=alpha,
            )

    def close(self) -> None:
        return None


open_waiting = SequenceSource


def _find(pattern: str) -> list[Path]:
    path = Path(pattern)
    folder = path.parent
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}")
    match = _NUMBER.search(path.name)
    if match is None:
        hidden = path.name.startswith(".")
        return sorted(p for p in folder.glob(path.name) if p.is_file() and (hidden or p.name[0] != "."))
    digits = f"(\\d{{{int(match[1])},}})" if match[1] else "(\\d+)"
    name = re.compile(
        re.escape(path.name[: match.start()]) + digits + re.escape(path.name[match.end() :])
    )
    numbered = [(int(m[1]), p) for p in folder.iterdir() if (m := name.fullmatch(p.name))]
    return [p for _, p in sorted(numbered)]


def _read(path: Path) -> tuple[Array, Array | None, PixelFormat]:
    """Returns (H, W, 3) RGB, (H, W) opacity where there is one, and their format."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        raise SourceError(f"{path} is not a picture that can be decoded")
    if pixels.dtype.name not in ("uint8", "uint16"):
        raise SourceError(f"{path} holds {pixels.dtype} samples: only 8 and 16 bits are read")
    alpha: Array | None = None
    if path.suffix.lower() in _OPACITY:
        # As it is stored, which the other way of reading drops.
        whole = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if whole is not None and whole.ndim == 3 and whole.shape[2] == 4:
            alpha = np.ascontiguousarray(whole[:, :, 3])
            if alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype:
                alpha = None  # turned by its own description
    bits = 8 if pixels.dtype == np.uint8 else 16
    return np.ascontiguousarray(pixels[:, :, ::-1]), alpha, PixelFormat("rgb", bits)
