"""Numbered pictures, one file a frame."""

import os
import re
from pathlib import Path

import cv2
import numpy as np

from ..colour import to_rgb
from ..errors import SinkError
from ..frame import Frame, VideoInfo
from .base import Sink

_NUMBER = re.compile(r"%(0\d+)?d")


class SequenceSink(Sink):
    """Writes `frames/%05d.png`, numbered from 0 like the source's frames; turned upright.

    A name without a number takes exactly one frame.
    """

    def __init__(self, pattern: str, *, like: VideoInfo, overwrite: bool) -> None:
        """Raises SinkError when a picture of that pattern is there already, or the folder is not."""
        self.uri = pattern
        self.path = Path(pattern)
        self.numbered = _NUMBER.search(self.path.name) is not None
        folder = self.path.parent
        if not folder.is_dir():
            raise SinkError(f"no folder {folder}: create it first")
        if not os.access(folder, os.W_OK):
            raise SinkError(f"the folder {folder} is not writable")
        name = _NUMBER.sub("[0-9]+", re.escape(self.path.name))
        read = (Path(file).resolve() for file in like.files)
        if any(p.parent == folder.resolve() and re.fullmatch(name, p.name) for p in read):
            raise SinkError(f"{pattern} names pictures of the input itself: choose another folder")
        taken = folder.glob(_NUMBER.sub("[0-9]*", self.path.name))
        if not overwrite and (first := next(taken, None)):
            raise SinkError(f"{first} exists: --overwrite replaces it")

    def write(self, frame: Frame) -> None:
        if not self.numbered and self.frames:
            raise SinkError(f"{self.uri} takes one frame: put a number like %05d into its name")
        path = Path(self.uri % frame.index) if self.numbered else self.path
        pixels = np.rot90(to_rgb(frame).planes[0], frame.rotation // 90)
        if frame.format.bits not in (8, 16):
            pixels = (pixels.astype(np.uint32) * 65535 // frame.format.peak).astype(np.uint16)
        if pixels.dtype != np.uint8 and path.suffix.lower() not in (".png", ".tif", ".tiff"):
            pixels = (pixels.astype(np.uint16) >> 8).astype(np.uint8)
        partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels[:, :, ::-1]))
            if not ok:
                raise SinkError(f"{path}: the picture cannot be encoded")
            partial.write_bytes(data.tobytes())
            partial.replace(path)
        except (OSError, cv2.error) as error:
            partial.unlink(missing_ok=True)
            raise SinkError(f"{path} cannot be written: {error}") from error
        self.frames += 1

    def close(self) -> None:
        return None

    def abort(self) -> None:
        # Every picture is whole: those that were written stay, as a user who stops early expects.
        return None
