"""The choice of an encoder's pixel format for an output, warnings about what frames lose, and
palettes."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
import av.filter
from av.video.frame import VideoFrame

from ..errors import SinkError
from ..frame import PixelFormat, VideoInfo
from .codecs import spoken
from .encoder_planes import Layout, layout_of, layouts_of, nearest_layout
from .options import Encoding, Quality

PALETTE = Layout(name="pal8", format=PixelFormat("rgb"), packing="packed", order="rgb")
"""The pixel format of GIF; frames are converted to RGB for it."""

_DITHER: dict[Quality, str] = {
    # Its pattern does not crawl, and packs better.
    "draft": "bayer:bayer_scale=3",
    "good": "sierra2_4a",
    "archive": "floyd_steinberg",
}


_TICK = Fraction(1, 1000)


class Palette:
    """FFmpeg's palettegen and paletteuse, picture by picture, so that no whole clip must fit in
    memory."""

    def __init__(self, quality: Quality) -> None:
        self._dither = _DITHER[quality]
        self._graph: av.filter.Graph | None = None
        self._size = (0, 0)
        self._pushed = 0

    def reduce(self, picture: VideoFrame) -> VideoFrame:
        """Returns an rgb24 picture as pal8, with a palette of 256 of its colours."""
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


LOSSLESS = frozenset({"ffv1", "rawvideo"})

KEEP_ALPHA = "--codec ffv1, prores in .mov, vp9 in .webm, and PNG, WebP and TIFF pictures keep it"

LAID = "the picture is laid over black, or over --background"


class Choice:
    """The pixel formats that one output's encoder can be given."""

    def __init__(self, codec: "av.Codec", encoding: Encoding, *, suffix: str, like: VideoInfo) -> None:
        """Raises SinkError for a pixel format that the encoder does not take."""
        self._name, self._canonical = codec.name, codec.canonical_name
        self._encoding = encoding
        self._from_rgb = like.format.family == "rgb"
        self._layouts = self._possible(layouts_of(codec), suffix.lower())

    def layout(self, format: PixelFormat, *, alpha: bool) -> Layout:
        """Returns the layout for frames of a format, with an opacity or without."""
        # RGB results of models have no more chroma than their source.
        archive = self._encoding.quality == "archive"
        rgb = self._canonical in LOSSLESS and (self._from_rgb or archive)
        return nearest_layout(self._layouts, format, alpha=alpha, rgb=rgb)

    def losses(self, format: PixelFormat, layout: Layout, *, alpha: bool) -> tuple[str, ...]:
        """Returns one line for each loss when frames of a format are put into a layout."""
        given, chosen = layout.format, self._encoding.pix_fmt is not None
        why = f"--pix-fmt {layout.name} says so" if chosen else f"{spoken(self._name)} has no more"
        notes: list[str] = []
        if given.bits < format.bits and layout is not PALETTE:
            keeping = "hevc or ffv1 keeps it" if format.bits <= 12 else "ffv1 keeps it"
            notes.append(f"{format.bits} bit becomes {given.bits} bit: {why}; --codec {keeping}")
        if given.family == "gray" and format.family != "gray":
            notes.append(f"colours are left out: {why}")
        elif (format.family, given.family) == ("yuv", "yuv"):
            if any(g > w for g, w in zip(given.subsample, format.subsample, strict=True)):
                notes.append(
                    f"{_chroma(format)} becomes {_chroma(given)}: {why}; --codec hevc or ffv1 keeps it"
                )
        elif (format.family, given.family) == ("rgb", "yuv") and self._from_rgb and not chosen:
            more = ", --pix-fmt yuv444p keeps all chroma" if given.subsample != (1, 1) else ""
            notes.append(f"RGB becomes {_chroma(given)}; --codec ffv1 keeps RGB{more}")
        if alpha and not layout.alpha:
            notes.append(f"the opacity is left out: {KEEP_ALPHA}; {LAID}")
        return tuple(notes)

    def _possible(self, layouts: tuple[Layout, ...], suffix: str) -> tuple[Layout, ...]:
        wanted = self._encoding.pix_fmt
        if self._canonical == "gif" and wanted in (None, PALETTE.name):
            return (PALETTE,)
        if wanted is not None:
            if wanted not in (names := [layout.name for layout in layouts]):
                raise SinkError(
                    f"{self._name} does not take {wanted}; it takes {', '.join(names) or 'no others'}"
                )
            return (named(wanted),)
        if not layouts:
            raise SinkError(f"frames cannot be put into what {self._name} takes: use another --codec")
        if self._canonical == "vp9":
            # The opacity lies beside the packets, where only Matroska has room for it; and libvpx lists
            # opacity with 4:2:2 and 4:4:4, which it then refuses.
            holds = suffix in (".webm", ".mkv")
            return tuple(
                one for one in layouts if not one.alpha or (holds and one.format.subsample == (2, 2))
            )
        profile = profile_of(self._encoding)
        if self._name == "prores_ks" and profile is not None:
            full = profile[:1] in ("4", "5")
            return tuple(one for one in layouts if (one.format.subsample == (1, 1)) == full)
        return layouts


def profile_of(encoding: Encoding) -> str | None:
    """Returns the profile of ProRes that was asked for."""
    return dict(encoding.options).get("profile", encoding.preset)


@cache
def named(name: str) -> Layout:
    """Returns the layout of a name, GIF's included. Raises SinkError if frames cannot be put into
    it."""
    layout = PALETTE if name == PALETTE.name else layout_of(name)
    if layout is None:
        raise SinkError(f"frames cannot be put into pixel format {name!r}")
    return layout


def _chroma(format: PixelFormat) -> str:
    return str(replace(format, bits=8)).removeprefix("yuv ").removesuffix(" 8 bit")
