"""Choice: which of an encoder's pixel formats an output takes, and what frames lose by it."""

from dataclasses import replace

import av

from ..errors import SinkError
from ..frame import PixelFormat, VideoInfo
from .base import Encoding
from .codecs import spoken
from .layout import Layout, layout_of, layouts_of, nearest_layout
from .palette import PALETTE

LOSSLESS = frozenset({"ffv1", "rawvideo"})

KEEP_ALPHA = "--codec ffv1, prores in .mov, vp9 in .webm, and PNG, WebP and TIFF pictures keep it"

LAID = "the picture is laid over black, or over --background"


class Choice:
    """What one output's encoder can be given."""

    def __init__(self, codec: "av.Codec", encoding: Encoding, *, suffix: str, like: VideoInfo) -> None:
        """Raises SinkError for a pixel format that the encoder does not take."""
        self._name, self._canonical = codec.name, codec.canonical_name
        self._encoding = encoding
        self._from_rgb = like.format.family == "rgb"
        self._layouts = self._possible(layouts_of(codec), suffix.lower())

    def layout(self, format: PixelFormat, *, alpha: bool) -> Layout:
        """For frames of that format, with an opacity or without."""
        # What models give in RGB has no more chroma than their source.
        archive = self._encoding.quality == "archive"
        rgb = self._canonical in LOSSLESS and (self._from_rgb or archive)
        return nearest_layout(self._layouts, format, alpha=alpha, rgb=rgb)

    def losses(self, format: PixelFormat, layout: Layout, *, alpha: bool) -> tuple[str, ...]:
        """What of such frames does not reach the file, one line each."""
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
    """The profile of ProRes that was asked for."""
    return dict(encoding.options).get("profile", encoding.preset)


def named(name: str) -> Layout:
    """The layout of that name, GIF's among them. Raises SinkError for what holds no frames."""
    layout = PALETTE if name == PALETTE.name else layout_of(name)
    if layout is None:
        raise SinkError(f"frames cannot be put into pixel format {name!r}")
    return layout


def _chroma(format: PixelFormat) -> str:
    return str(replace(format, bits=8)).removeprefix("yuv ").removesuffix(" 8 bit")
