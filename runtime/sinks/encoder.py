"""VideoEncoder: how frames become packets, whatever becomes of the packets."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, cast

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..colour import to_rgb, to_yuv
from ..errors import SinkError
from ..frame import Array, Frame, PixelFormat
from .base import Encoding

ENCODERS = {
    "auto": "libx264",
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "ffv1": "ffv1",
}
_DEFAULTS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libx265": {"crf": "20", "preset": "veryfast", "x265-params": "log-level=error"},
    "libsvtav1": {"crf": "26", "preset": "9"},
    "libvpx-vp9": {"crf": "24", "b": "0", "cpu-used": "6", "row-mt": "1"},
}
_PRESET_OPTION = {"libvpx-vp9": "cpu-used"}

_AVX_512 = 256
"""OpenCV's number of the extensions that x264 calls AVX-512."""

# ITU-T H.273 code points.
_MATRIX_CODES = {"bt601": 6, "bt709": 1, "bt2020": 9}
_RANGE_CODES = {"limited": 1, "full": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """What a video stream is set up with; the first frame decides."""

    width: int
    """Pixels per coded row: the frame's, padded to whole blocks of chroma."""
    height: int
    pix_fmt: str
    """FFmpeg's name."""
    rate: Fraction
    """Frames per second, on the average."""
    time_base: Fraction
    aspect: Fraction
    """Sample aspect ratio."""
    rotation: int
    """Degrees, counter-clockwise, by which a player turns the picture."""
    matrix: int
    """This and the following are code points of H.273, as FFmpeg numbers them."""
    range: int
    primaries: int
    transfer: int

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            name: str(value) if isinstance(value := getattr(self, name), Fraction) else value
            for name in self.__slots__
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The reverse. Raises TypeError or ValueError for what is no such thing."""
        ratios: dict[str, Any] = {k: Fraction(fields[k]) for k in ("rate", "time_base", "aspect")}
        return cls(**{**fields, **ratios})


class VideoEncoder:
    """The settings of one output's encoder: makes streams that encode, and the pictures for them."""

    def __init__(self, encoding: Encoding, *, rate: Fraction) -> None:
        """Check what can be checked before a frame is there. Raises SinkError."""
        self._codec = _encoder(encoding)
        self.name = self._codec.name
        self.canonical = self._codec.canonical_name
        self.options = _options(self.name, encoding)
        self.rate = rate
        self.notes: tuple[str, ...] = ()
        self._pix_fmt = encoding.pix_fmt
        self._buffer: VideoFrame | None = None

    def coding(self, frame: Frame) -> Coding:
        """What a stream that begins with that frame is set up with."""
        name = self._pix_fmt or _native_format(frame.format, self._codec)
        format = _format_of(name)
        # Subsampled chroma needs whole blocks.
        x, y = format.subsample
        width, height = frame.width + -frame.width % x, frame.height + -frame.height % y
        if (width, height) != (frame.width, frame.height):
            self.notes += (
                f"{frame.width}x{frame.height} is padded to {width}x{height}, "
                f"since {format} needs even sizes",
            )
        return Coding(
            width=width,
            height=height,
            pix_fmt=name,
            rate=self.rate,
            time_base=frame.time_base,
            aspect=frame.aspect,
            rotation=frame.rotation if frame.rotation <= 180 else frame.rotation - 360,
            matrix=_MATRIX_CODES[frame.colour.matrix] if format.family != "rgb" else 0,
            range=_RANGE_CODES[frame.colour.range],
            primaries=frame.colour.primaries,
            transfer=frame.colour.transfer,
        )

    def add_stream(self, container: OutputContainer, coding: Coding) -> VideoStream:
        """A stream of the container that encodes as `coding` says."""
        stream = cast(
            VideoStream, container.add_stream(self.name, rate=coding.rate, options=self.options)
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
        """The frame in the coded format and size, without its time; good until the next call.

        Raises SinkError for a frame of another size.
        """
        width, height = coding.width, coding.height
        if (frame.width + 1) // 2 != (width + 1) // 2 or (frame.height + 1) // 2 != (height + 1) // 2:
            raise SinkError(
                f"frame {frame.index} is {frame.width}x{frame.height} in a file of {width}x{height}: "
                "add a resize to one size"
            )
        format = _format_of(coding.pix_fmt)
        coded = to_rgb(frame) if format.family == "rgb" else to_yuv(frame, format)
        # One picture serves all frames: where the encoder still holds its memory, FFmpeg makes new.
        picture = self._buffer or VideoFrame(width, height, coding.pix_fmt)
        picture.make_writable()
        self._buffer = picture
        for plane, pixels in zip(picture.planes, coded.planes, strict=True):
            _fill(plane, pixels)
        return picture


class Clock:
    """The times of written frames: each later than the one before, and from where to where."""

    def __init__(self, rate: Fraction) -> None:
        self._step = float(1 / rate)
        self._begin: float | None = None
        self.last = -1
        """The last frame's, in units of its time base."""
        self.end = 0.0
        """Seconds at which the last frame ends."""

    def stamp(self, picture: VideoFrame, pts: int, base: Fraction) -> None:
        """Give a picture its time. Two of one time would be refused: the later moves by a tick."""
        picture.pts = self.pass_by(max(pts, self.last + 1), base)
        picture.time_base = base

    def pass_by(self, pts: int, base: Fraction) -> int:
        """Count a frame of that time."""
        self.last = pts
        self.end = float(pts * base) + self._step
        self._begin = self.end - self._step if self._begin is None else self._begin
        return pts

    @property
    def duration(self) -> float:
        """Seconds from the first frame's beginning to the last one's end."""
        return self.end - (self._begin or 0.0)


def encode(stream: VideoStream, picture: VideoFrame | None) -> "list[Packet[Any]]":
    """The packets that are ready after that picture; None asks for all the rest."""
    return cast("list[Packet[Any]]", stream.encode(picture))


def _encoder(encoding: Encoding) -> "av.Codec":
    name = ENCODERS.get(encoding.codec, encoding.codec)
    try:
        codec = av.Codec(name, "w")
    except (FFmpegError, ValueError) as error:
        raise SinkError(f"no encoder {encoding.codec!r}; there are: {', '.join(ENCODERS)}") from error
    if codec.type != "video":
        raise SinkError(f"{encoding.codec!r} encodes {codec.type}, not video")
    if encoding.pix_fmt is not None:
        formats = [format.name for format in codec.video_formats or []]
        if formats and encoding.pix_fmt not in formats:
            raise SinkError(f"{name} does not take {encoding.pix_fmt}; it takes {', '.join(formats)}")
        _format_of(encoding.pix_fmt)
    return codec


def _options(encoder: str, encoding: Encoding) -> dict[str, str]:
    options = dict(_DEFAULTS.get(encoder, {}))
    if encoder == "libx264" and cv2.checkHardwareSupport(_AVX_512):
        # x264's macroblock trees are no function of the pictures with AVX-512 where a row is not of 8
        # blocks or a multiple: 20 runs over one clip of 160x120 gave 19 files. With AVX2 all are one,
        # and none is slower.
        options["x264-params"] = "asm=AVX2"
    if encoding.crf is not None:
        if encoder == "ffv1":
            raise SinkError("ffv1 is lossless and takes no --crf")
        options["crf"] = str(encoding.crf)
    if encoding.preset is not None:
        options[_PRESET_OPTION.get(encoder, "preset")] = encoding.preset
    return options


def _native_format(format: PixelFormat, encoder: "av.Codec") -> str:
    """The frames' own format if the encoder takes it, else the nearest that it does."""
    offered = [f.name for f in encoder.video_formats or []]
    bits = min(format.bits, 10) if format.bits > 8 else 8
    deep = "" if bits == 8 else f"{bits}le"
    chroma = {(1, 1): "444", (2, 1): "422"}.get(format.subsample, "420")
    # Pictures become 4:2:0, which every player decodes; --pix-fmt yuv444p keeps their full chroma.
    wanted = f"yuv{chroma}p{deep}" if format.family == "yuv" else f"yuv420p{deep}"
    for name in (wanted, f"yuv420p{deep}", "yuv420p"):
        if name in offered or not offered:
            return name
    return offered[0]


def _format_of(name: str) -> PixelFormat:
    formats = {"rgb24": PixelFormat("rgb"), "gray": PixelFormat("gray")}
    for chroma, subsample in (("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1))):
        formats[f"yuv{chroma}p"] = PixelFormat("yuv", 8, subsample)
        for bits in (10, 12):
            formats[f"yuv{chroma}p{bits}le"] = PixelFormat("yuv", bits, subsample)
    if name not in formats:
        raise SinkError(f"pixel format {name!r} is not supported; there are: {', '.join(formats)}")
    return formats[name]


def _fill(plane: Any, pixels: Array) -> None:
    """Copy pixels into a plane of the encoder's frame, repeating the last row and column to fill it."""
    rows = np.frombuffer(plane, pixels.dtype).reshape(plane.height, -1)
    height, width = pixels.shape[:2]
    if pixels.ndim == 3:
        rows[:height, : width * 3] = pixels.reshape(height, width * 3)
        return
    rows[:height, :width] = pixels
    if plane.width > width:
        rows[:height, width : plane.width] = pixels[:, -1:]
    if plane.height > height:
        rows[height : plane.height] = rows[height - 1]
