"""A sink of numbered pictures, one file a frame."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ..colour import over, to_rgb
from ..errors import SinkError
from ..frame import Array, Frame, VideoInfo
from ..media.encode import KEEP_ALPHA, LAID
from ..media.hdr import refuse_hdr
from ..media.side_data import unheld
from ..resume.output_lock import Claim
from .base import Encoding, Quality, Sink
from .kind import Writing
from .output_file import reporting

_NUMBER = re.compile(r"%(0\d+)?d")

ALPHA = frozenset({".png", ".webp", ".tif", ".tiff"})
"""Picture formats that hold an opacity."""
DEEP = frozenset({".png", ".tif", ".tiff"})
"""Picture formats that hold 16 bits."""

_JPEG: dict[Quality, int] = {"draft": 80, "good": 95, "archive": 100}
_PNG: dict[Quality, int] = {"draft": 1, "good": 3, "archive": 9}
_WEBP: dict[Quality, int] = {"draft": 75, "good": 92, "archive": 101}
"""Quality of WebP, where more than 100 is lossless."""


class SequenceSink(Sink):
    """Writes `frames/%05d.png`, numbered from 0 like the source's frames; turned upright.

    A name without a number takes exactly one frame.
    """

    def __init__(self, pattern: str, writing: Writing) -> None:
        """Raises SinkError where a picture of that pattern exists already or the folder does not, and
        for HDR, which such pictures do not hold."""
        like, encoding = writing.like, writing.encoding
        self.uri = pattern
        self.path = Path(pattern)
        self.numbered = _NUMBER.search(self.path.name) is not None
        self._suffix = self.path.suffix.lower()
        refuse_hdr(like.colour.transfer, f"{self._suffix} pictures cannot say")
        self._options = _options(self._suffix, encoding)
        self._background = encoding.background
        folder = self.path.parent
        if not folder.is_dir():
            raise SinkError(f"no folder {folder}: create it first")
        if not os.access(folder, os.W_OK):
            raise SinkError(f"the folder {folder} is not writable")
        name = _NUMBER.sub("[0-9]+", re.escape(self.path.name))
        read = (Path(file).resolve() for file in like.files)
        if any(p.parent == folder.resolve() and re.fullmatch(name, p.name) for p in read):
            raise SinkError(f"{pattern} names pictures of the input itself: choose another folder")
        with reporting(self.path):
            self._claim = Claim(self.path)
        taken = (p for p in folder.iterdir() if re.fullmatch(name, p.name, re.IGNORECASE))
        if not writing.overwrite and (first := next(taken, None)):
            self._claim.release()
            raise SinkError(f"{first} exists: --overwrite replaces it")
        self.notes = (*self._claim.notes, *self._losses(like, audio=writing.audio))

    def write(self, frame: Frame) -> None:
        if not self.numbered and self.frames:
            raise SinkError(f"{self.uri} takes one frame: put a number like %05d into its name")
        named = _NUMBER.sub(lambda number: number[0] % frame.index, self.path.name)
        path = self.path.with_name(named)
        pixels = np.rot90(self._pixels(frame), frame.rotation // 90)
        partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), self._options)
            if not ok:
                raise SinkError(f"{path}: the picture cannot be encoded")
            partial.write_bytes(data.tobytes())
            partial.replace(path)
        except (OSError, cv2.error) as error:
            partial.unlink(missing_ok=True)
            raise SinkError(f"{path} cannot be written: {error}") from error
        self.frames += 1

    def close(self) -> None:
        self._claim.release()

    def abort(self) -> None:
        # Every picture is whole: finished ones stay, as a user who stops early expects.
        self._claim.release()

    def _pixels(self, frame: Frame) -> Array:
        """Returns an array for OpenCV: (H, W) grey, or (H, W, 3 or 4) blue, green, red and opacity."""
        alpha = frame.alpha if self._suffix in ALPHA else None
        grey = frame.format.family == "gray" and alpha is None
        opaque = over(frame, self._background) if alpha is None else replace(frame, alpha=None)
        rgb = to_rgb(opaque).planes[0]
        found: Array = rgb[..., 0] if grey else rgb[..., ::-1]
        if alpha is not None:
            found = np.dstack([found, alpha])
        peak, deep = frame.format.peak, self._suffix in DEEP
        if frame.format.bits == 8 or (frame.format.bits == 16 and deep):
            return found
        if deep:
            return ((found.astype(np.uint32) * 65535 + peak // 2) // peak).astype(np.uint16)
        return ((found.astype(np.uint32) * 255 + peak // 2) // peak).astype(np.uint8)

    def _losses(self, like: VideoInfo, *, audio: bool) -> list[str]:
        notes = [*unheld(like, "pictures")]
        if audio and like.audio:
            notes.append("pictures hold no sound: it is left out")
        if like.aspect != 1:
            notes.append(
                f"pictures cannot say that pixels are {like.aspect} wide: they become square; --bake "
                "makes them as wide as they are shown"
            )
        if like.alpha and self._suffix not in ALPHA:
            notes.append(f"the opacity is left out: {KEEP_ALPHA}; {LAID}")
        if like.format.bits > 8 and self._suffix not in DEEP:
            notes.append(
                f"{like.format.bits} bit becomes 8 bit: {self._suffix} has no more; .png and .tif do"
            )
        return notes


def _options(suffix: str, encoding: Encoding) -> Sequence[int]:
    """Returns OpenCV's parameters. Raises SinkError for options that pictures do not have."""
    if encoding.codec != "auto":
        raise SinkError(f"{suffix} pictures have one codec: leave --codec out")
    if encoding.preset is not None or encoding.options or encoding.pix_fmt is not None:
        raise SinkError(f"{suffix} pictures take no --preset, --pix-fmt or --enc, but a --quality")
    quality, crf = encoding.quality, encoding.crf
    if suffix in (".jpg", ".jpeg"):
        value = _JPEG[quality] if crf is None else _from_crf(crf)
        full = [] if quality == "draft" else [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _FULL_CHROMA]
        return [cv2.IMWRITE_JPEG_QUALITY, value, *full]
    if suffix == ".webp":
        return [cv2.IMWRITE_WEBP_QUALITY, _WEBP[quality] if crf is None else _from_crf(crf)]
    if crf is not None:
        raise SinkError(f"{suffix} pictures are lossless and take no --crf")
    return [cv2.IMWRITE_PNG_COMPRESSION, _PNG[quality]] if suffix == ".png" else []


_FULL_CHROMA = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444


def _from_crf(crf: int) -> int:
    """Returns the quality of JPEG and WebP, 100 to 19, for H.264's 0 to 51: 90 at 18."""
    if not 0 <= crf <= 51:
        raise SinkError(f"--crf {crf}: pictures take 0 (best) to 51 (worst)")
    return 100 - crf * crf // 32


open_film = SequenceSink
