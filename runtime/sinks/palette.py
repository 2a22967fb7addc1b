"""Palette: pictures of at most 256 colours, each with a palette of its own."""

from fractions import Fraction
from typing import Any, cast

import av
import av.filter
from av.video.frame import VideoFrame

from ..frame import PixelFormat
from .base import Quality
from .layout import Layout

PALETTE = Layout(name="pal8", format=PixelFormat("rgb"), packing="packed", order="rgb")
"""What a GIF holds; frames come to it as RGB."""

_DITHER: dict[Quality, str] = {
    # Its pattern does not crawl, and packs better.
    "draft": "bayer:bayer_scale=3",
    "good": "sierra2_4a",
    "archive": "floyd_steinberg",
}


_TICK = Fraction(1, 1000)


class Palette:
    """FFmpeg's palettegen and paletteuse, picture by picture, so that no clip has to fit in memory."""

    def __init__(self, quality: Quality) -> None:
        self._dither = _DITHER[quality]
        self._graph: av.filter.Graph | None = None
        self._size = (0, 0)
        self._pushed = 0

    def reduce(self, picture: VideoFrame) -> VideoFrame:
        """An rgb24 picture with 256 of its colours, as pal8."""
        size = (picture.width, picture.height)
        if self._graph is None or size != self._size:
            self._size = size
            self._graph = self._build(picture.width, picture.height)
        # The filters pair pictures by their times.
        picture.pts, picture.time_base = self._pushed, _TICK
        self._pushed += 1
        self._graph.push(picture)
        return cast(VideoFrame, self._graph.pull())

    def _build(self, width: int, height: int) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add(
            "buffer", f"video_size={width}x{height}:pix_fmt=rgb24:time_base=1/1000:pixel_aspect=1/1"
        )
        split: Any = graph.add("split")
        make = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", f"new=1:dither={self._dither}")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(make, 1, 0)
        make.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph
