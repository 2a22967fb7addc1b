"""VideoEncoder: encoding of frames into packets."""

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Self, cast

import av
import av.filter
import cv2
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import SinkError
from ..frame import Frame, PixelFormat, VideoInfo
from .captions import with_captions
from .codecs import ENCODERS, codec_of, encoder_of, merged, nearest, spoken, wanted_options
from .hdr import check_hdr, hdr_choice, hdr_format, hdr_note, hdr_options
from .options import Encoding, Quality
from .pixel_format import ANY, PALETTE, Layout, fill, layout_of, layouts_of, nearest_layout, picture_of
from .side_data import no_captions

_AVX_512 = 256
"""OpenCV's number of the extensions that x264 calls AVX-512."""

# ITU-T H.273 code points.
_MATRIX_CODES = {"bt601": 6, "bt709": 1, "bt2020": 9}
_RGB, _UNSPECIFIED = 0, 2
_RANGE_CODES = {"limited": 1, "full": 2}

_CENTISECOND = Fraction(1, 100)
"""The time base of GIF."""
LONGEST_DELAY = 3600
"""The longest plausible time in seconds between a packet's decoding and its showing."""
MOST_SHOWN = 50
"""Frames of a GIF in a second at most: players take delays below 2/100 s for a mistake."""


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


KEEP_ALPHA = "--codec ffv1, prores in .mov, vp9 in .webm, and PNG, WebP and TIFF pictures keep it"

LAID = "the picture is laid over black, or over --background"


class Choice:
    """The pixel formats that one output's encoder can be given."""

    def __init__(self, codec: "av.Codec", encoding: Encoding, *, suffix: str, like: VideoInfo) -> None:
        """Raises SinkError for a pixel format that the encoder does not take."""
        self._name, self._facts = codec.name, codec_of(codec.name)
        self._encoding = encoding
        self._from_rgb = like.format.family == "rgb"
        names = [format.name for format in codec.video_formats or ()] or ANY
        self._layouts = self._possible(layouts_of(names), suffix.lower())

    def layout(self, format: PixelFormat, *, alpha: bool) -> Layout:
        """Returns the layout for frames of a format, with an opacity or without."""
        # RGB results of models have no more chroma than their source.
        archive = self._encoding.quality == "archive"
        rgb = self._facts.lossless and (self._from_rgb or archive)
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
        wanted, facts = self._encoding.pix_fmt, self._facts
        layouts = tuple(
            layout
            for layout in layouts
            if layout.format.bits <= facts.most_bits and (facts.shows_alpha or not layout.alpha)
        )
        if facts.palette and wanted in (None, PALETTE.name):
            return (PALETTE,)
        if wanted is not None:
            if wanted not in (names := [layout.name for layout in layouts]):
                raise SinkError(
                    f"{self._name} does not take {wanted}; it takes {', '.join(names) or 'no others'}"
                )
            return (layout_of(wanted),)
        if not layouts:
            raise SinkError(f"frames cannot be put into what {self._name} takes: use another --codec")
        if facts.alpha_suffixes:
            holds = suffix in facts.alpha_suffixes
            return tuple(
                one for one in layouts if not one.alpha or (holds and one.format.subsample == (2, 2))
            )
        profile = profile_of(self._encoding)
        if facts.full_chroma and profile is not None:
            full = profile[:1] in ("4", "5")
            return tuple(one for one in layouts if (one.format.subsample == (1, 1)) == full)
        return layouts


def profile_of(encoding: Encoding) -> str | None:
    """Returns the profile of ProRes that was asked for."""
    return dict(encoding.options).get("profile", encoding.preset)


def _chroma(format: PixelFormat) -> str:
    return str(replace(format, bits=8)).removeprefix("yuv ").removesuffix(" 8 bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """The parameters of a video stream, which the first frame decides."""

    width: int
    """Pixels per coded row: the frame's, padded to whole blocks of chroma."""
    height: int
    pix_fmt: str
    """FFmpeg's name of the pixel format."""
    rate: Fraction
    """Frames per second, on the average."""
    time_base: Fraction
    aspect: Fraction
    """Sample aspect ratio."""
    rotation: int
    """Degrees, counter-clockwise, by which a player must turn the picture."""
    matrix: int
    """The code point of H.273, as FFmpeg numbers it; as `primaries` and `transfer` are."""
    range: int
    primaries: int
    transfer: int
    options: tuple[tuple[str, str], ...] = ()
    """Options of the FFmpeg encoder."""

    def ticks(self, frame: Frame) -> int:
        """Returns a frame's time in units of `time_base`."""
        return round(frame.pts * frame.time_base / self.time_base)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as values that JSON can hold."""
        return {
            name: str(value) if isinstance(value := getattr(self, name), Fraction) else value
            for name in self.__slots__
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Returns the object for what `to_json` gave. Raises KeyError, TypeError or ValueError for
        anything else."""
        ratios: dict[str, Any] = {k: Fraction(fields[k]) for k in ("rate", "time_base", "aspect")}
        options: Any = tuple((str(key), str(value)) for key, value in fields["options"])
        return cls(**{**fields, **ratios, "options": options})


@dataclass(frozen=True, slots=True)
class Kept:
    """Properties of the picture that a player reads from the file."""

    aspect: bool
    rotation: bool


class VideoEncoder:
    """The settings of one output's encoder: makes its streams, and pictures in their format."""

    def __init__(self, encoding: Encoding, *, suffix: str, like: VideoInfo | None = None) -> None:
        """Check what can be checked before a frame is there. Raises SinkError.

        `suffix` is that of the output's name; `like` is the source, which only `coding` needs.
        """
        self._codec = _codec(encoding, suffix, hdr=like is not None and like.colour.hdr)
        self.name = self._codec.name
        self._facts = codec_of(self.name)
        for variable, value in self._facts.environment.items():
            os.environ.setdefault(variable, value)
        self.canonical = self._codec.canonical_name
        self.notes: tuple[str, ...] = ()
        """Warnings about what frames lose, one line each."""
        self.like = like
        self.kept: dict[Coding, Kept] = {}
        """What the output's container was found to keep, for each set of stream parameters."""
        self._encoding = self.encoding = encoding
        self._options = _options(self.name, encoding, like)
        _check_known(self.name, encoding)
        self._captions: dict[int, bytes] = {}
        """Closed captions of pictures whose packets have not come yet, by their times."""
        self._buffer: VideoFrame | None = None
        self._palette = Palette(encoding.quality) if self._facts.palette else None
        self._choice: Choice | None = None
        if like is not None:
            self._choice = Choice(self._codec, encoding, suffix=suffix, like=like)
            self.coding(like)
            if self.name != encoder_of(encoding, suffix):
                self._note(hdr_choice(like.colour.transfer, self.name, encoder_of(encoding, suffix)))
            self._note(*hdr_note(like.colour.transfer))
            if self._palette is not None and like.rate > MOST_SHOWN:
                self._note(f"players show no more than {MOST_SHOWN} of a GIF's frames in a second")

    def coding(self, frame: Frame | VideoInfo) -> Coding:
        """Returns the stream parameters for a first frame, or for a source.

        Raises SinkError for HDR that the encoder does not hold.
        """
        assert self.like is not None
        assert self._choice is not None
        alpha = frame.alpha is not None and frame.alpha is not False
        layout = self._choice.layout(hdr_format(frame), alpha=alpha)
        check_hdr(frame.colour, self.name, layout)
        self._note(*self._choice.losses(frame.format, layout, alpha=alpha))
        # Frames in RGB become limited YUV, whatever their source says of itself.
        unsaid = isinstance(frame, VideoInfo) and frame.format.family == "rgb"
        # Subsampled chroma needs whole blocks.
        x, y = layout.format.subsample
        width, height = frame.width + -frame.width % x, frame.height + -frame.height % y
        if isinstance(frame, Frame) and (width, height) != (frame.width, frame.height):
            self._note(
                f"{frame.width}x{frame.height} is padded to {width}x{height}, "
                f"since {layout.format} has blocks of {x}x{y}"
            )
        return Coding(
            width=width,
            height=height,
            pix_fmt=layout.name,
            # An encoder distributes bits by the rate; frames keep their own times.
            rate=min(self.like.rate, Fraction(self._facts.most_rate or self.like.rate)),
            time_base=_CENTISECOND if self._palette is not None else frame.time_base,
            aspect=frame.aspect,
            rotation=frame.rotation if frame.rotation <= 180 else frame.rotation - 360,
            matrix=_matrix_code(frame, layout),
            range=_RANGE_CODES["limited" if unsaid else frame.colour.range],
            primaries=frame.colour.primaries,
            transfer=frame.colour.transfer,
            options=tuple(self._options_for(layout).items()),
        )

    def add_stream(self, container: OutputContainer, coding: Coding) -> VideoStream:
        """Adds a stream with these parameters to the container and returns it."""
        stream = cast(
            VideoStream,
            container.add_stream(self.name, rate=coding.rate, options=dict(coding.options)),
        )
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = coding.width, coding.height, coding.pix_fmt
        context.time_base = coding.time_base
        context.framerate = coding.rate
        context.sample_aspect_ratio = coding.aspect
        context.colorspace = coding.matrix
        context.color_range = coding.range
        context.color_primaries = coding.primaries
        context.color_trc = coding.transfer
        context.thread_type = "AUTO"
        if coding.rotation:
            stream.set_display_rotation(coding.rotation)
        return stream

    def picture(self, frame: Frame, coding: Coding) -> VideoFrame:
        """Returns the frame in the coded format and size, without its time; valid until the next call.

        Raises SinkError for a frame of another size.
        """
        width, height = coding.width, coding.height
        layout = layout_of(coding.pix_fmt)
        x, y = layout.format.subsample
        if (frame.width + -frame.width % x, frame.height + -frame.height % y) != (width, height):
            raise SinkError(
                f"frame {frame.index} is {frame.width}x{frame.height} in a file of {width}x{height}: "
                "add a resize to one size"
            )
        name = "rgb24" if layout is PALETTE else layout.name
        # One picture serves all frames: where the encoder still holds its memory, FFmpeg allocates new.
        picture = self._buffer
        wanted = (width, height, name)
        if picture is None or (picture.width, picture.height, picture.format.name) != wanted:
            picture = VideoFrame(width, height, name)
        picture.make_writable()
        self._buffer = picture
        fill(picture, picture_of(frame, layout, self._encoding.background), layout)
        if layout is PALETTE and self._palette is not None:
            return self._palette.reduce(picture)
        # ProRes takes these from its pictures.
        picture.colorspace, picture.color_range = coding.matrix, coding.range
        picture.color_primaries, picture.color_trc = coding.primaries, coding.transfer
        return picture

    def packets(
        self, stream: VideoStream, picture: VideoFrame | None, captions: bytes = b""
    ) -> "list[Packet[Any]]":
        """Returns the packets that are ready after a picture, which bear the captions of theirs; None
        flushes the encoder."""
        if self._facts.captions is None:
            if captions:
                self._note(no_captions(spoken(self.name)))
            return encode(stream, picture)
        if captions and picture is not None and picture.pts is not None:
            self._captions[picture.pts] = captions
        ready = encode(stream, picture)
        if not self._captions:
            return ready
        given = [(packet, self._captions.pop(packet.pts or 0, b"")) for packet in ready]
        if picture is None:
            self._captions.clear()
        syntax = self._facts.captions
        return [with_captions(one, said, syntax) if said else one for one, said in given]

    def _options_for(self, layout: Layout) -> dict[str, str]:
        """Returns all options for a pixel format."""
        options, facts = dict(self._options), self._facts
        unset = profile_of(self._encoding) is None
        if facts.full_chroma and facts.preset and layout.format.subsample == (1, 1) and unset:
            options[facts.preset] = facts.full_chroma[self._encoding.quality]
        return options

    def _note(self, *lines: str) -> None:
        self.notes += tuple(line for line in lines if line not in self.notes)


def _matrix_code(frame: Frame | VideoInfo, layout: Layout) -> int:
    if layout.rgb:
        return _RGB
    # Grey is the same in every matrix, and not all streams of grey can state one.
    return _UNSPECIFIED if frame.format.family == "gray" else _MATRIX_CODES[frame.colour.matrix]


def encode(stream: VideoStream, picture: VideoFrame | None) -> "list[Packet[Any]]":
    """Returns the packets that are ready after a picture; None flushes the encoder."""
    packets = cast("list[Packet[Any]]", stream.encode(picture))
    for packet in packets:
        # x265 leaves the decoding times of a film that is shorter than its look-ahead to chance.
        pts = packet.pts or 0
        early = float((pts - packet.dts if packet.dts is not None else -1) * packet.time_base)
        if not 0 <= early <= LONGEST_DELAY:
            packet.dts = pts
    return packets


def _codec(encoding: Encoding, suffix: str, *, hdr: bool) -> "av.Codec":
    name = encoder_of(encoding, suffix, hdr=hdr)
    try:
        codec = av.Codec(name, "w")
    except (FFmpegError, ValueError) as error:
        lacking = "" if name == encoding.codec else f" (this FFmpeg has no {name})"
        there = [plain for plain, encoder in ENCODERS.items() if _has(encoder)]
        raise SinkError(
            f"no encoder {encoding.codec!r}{lacking}; there are: auto, {', '.join(there)}"
        ) from error
    if codec.type != "video":
        raise SinkError(f"{encoding.codec!r} encodes {codec.type}, not video")
    return codec


def _has(encoder: str) -> bool:
    try:
        av.Codec(encoder, "w")
    except (FFmpegError, ValueError):
        return False
    return True


def _options(encoder: str, encoding: Encoding, like: VideoInfo | None) -> dict[str, str]:
    ours = wanted_options(encoder, encoding)
    if cv2.checkHardwareSupport(_AVX_512):
        ours |= codec_of(encoder).with_avx512
    ours = merged(encoder, ours, hdr_options(like.hdr if like is not None else None, encoder))
    return merged(encoder, ours, dict(encoding.options))


_NUMBERS = frozenset({2, 3, 4, 5, 18, 20})
"""FFmpeg's types of options that are whole numbers, fractions, or on and off."""
_ALWAYS = frozenset(
    {"default", "max", "min", "none", "all", "auto", "true", "false", "yes", "no", "on", "off"}
)
"""Words that FFmpeg may take for a number."""


def _check_known(encoder: str, encoding: Encoding) -> None:
    """Raise SinkError for options that the encoder does not have, and for values that it refuses."""
    facts = codec_of(encoder)
    given = [(f"--enc {name}=", name, value) for name, value in encoding.options]
    if encoding.preset is not None and facts.preset is not None and not facts.presets:
        given.append(("--preset ", facts.preset, encoding.preset))
    if not given:
        return
    offered = av.CodecContext.create(encoder, "w").supported_options
    private = tuple(option.name for option in offered.private)
    known = (*private, *(option.name for option in offered.generic))
    for name, _ in encoding.options:
        if name not in known:
            params = codec_of(encoder).params
            own = f"; options of its library go into --enc {params}=KEY=VALUE" if params else ""
            raise SinkError(f"{spoken(encoder)} has no option {name!r}{nearest(name, known)}{own}")
    options: dict[str, Any] = {option.name: option for option in (*offered.generic, *offered.private)}
    for flag, name, value in given:
        taken = _refused(options[name], value, facts.values.get(name, ()))
        if taken:
            raise SinkError(f"{flag}{value}: {spoken(encoder)} takes {taken}")


def _refused(option: Any, value: str, words: tuple[str, ...]) -> str:
    """Returns what an option takes, in words, where it refuses a value; else nothing.

    What may be an expression is left to FFmpeg.
    """
    if words:
        parts = value.replace(",", " ").replace("+", " ").split()
        return "" if parts and all(part in words for part in parts) else ", ".join(words)
    if int(option.type) not in _NUMBERS:
        return ""
    names = tuple(choice.name for choice in option.choices or ())
    numbers = f"{option.min:.10g} to {option.max:.10g}"
    takes = ", ".join((*names, numbers))
    if value in names:
        return ""
    try:
        number = float(value)
    except ValueError:
        plain = value.replace("_", "").isalpha()
        return takes if plain and value.lower() not in _ALWAYS else ""
    return "" if option.min <= number <= option.max else takes
