"""Video files through FFmpeg's libraries (PyAV), written beside the target and renamed at the end."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..colour import to_rgb, to_yuv
from ..errors import SinkError
from ..frame import Array, Frame, PixelFormat, VideoInfo
from .base import Encoding, Sink
from .passing import PassingStreams

ENCODERS = {
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

_CODED_ASPECT = frozenset({"h264", "hevc", "mpeg2video", "mpeg4"})
"""Codecs whose own stream tells the sample aspect ratio."""

# ITU-T H.273 code points.
_MATRIX_CODES = {"bt601": 6, "bt709": 1, "bt2020": 9}
_RANGE_CODES = {"limited": 1, "full": 2}


class FileSink(Sink):
    """Encodes frames; the source's other streams pass beside them."""

    def __init__(
        self, path: Path, *, like: VideoInfo, encoding: Encoding, overwrite: bool, audio: bool
    ) -> None:
        """Check everything that can be checked before work starts. Raises SinkError."""
        self.uri = str(path)
        self.path = path
        self.like = like
        self.overwrite = overwrite
        self.partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._check_path()
        self._encoder = _encoder(encoding)
        self._options = _options(self._encoder.name, encoding)
        self._pix_fmt = encoding.pix_fmt
        self._last = -1
        self._begun = self._end = 0.0
        self._stream: VideoStream | None = None
        self._format: PixelFormat | None = None
        self._passing: PassingStreams | None = None
        self._buffer: VideoFrame | None = None
        with self._reporting():
            self._container = self._open()
            try:
                if not _holds(self._container, self._encoder.name, self._encoder.canonical_name):
                    raise SinkError(f"{path.suffix} files cannot hold {encoding.codec}: use .mkv")
                if like.path is not None:
                    self._passing = PassingStreams(like, self._container, path.suffix, audio=audio)
                    self.notes += self._passing.notes
            except BaseException:
                self.abort()
                raise

    def write(self, frame: Frame) -> None:
        with self._reporting():
            stream = self._stream or self._begin(frame)
            picture = self._picture(frame)
            # Two frames of one time would be refused by the container; the later one moves by a tick.
            self._last = picture.pts = max(frame.pts, self._last + 1)
            picture.time_base = frame.time_base
            step = float(1 / self.like.rate)
            self._end = float(self._last * frame.time_base) + step
            self._begun = self._begun if self.frames else self._end - step
            self.duration = self._end - self._begun
            self._encode(stream, picture)
            if self._passing is not None:
                self._passing.mux_until(float(self._last * frame.time_base))
        self.frames += 1

    def close(self) -> None:
        """Flush the encoder, let the rest pass, finish the file, give it its name."""
        if self._stream is None:
            self.abort()
            raise SinkError(f"{self.path}: no frame came, so nothing was written")
        try:
            with self._reporting():
                self._encode(self._stream, None)
                if self._passing is not None:
                    self._passing.mux_until(float("inf"))
                    self._passing.close()
                self._container.close()
                if self.path.exists() and not self.overwrite:
                    raise SinkError(f"{self.path} has appeared meanwhile: --overwrite replaces it")
                self.partial.replace(self.path)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        if self._passing is not None:
            self._passing.close()
        with suppress(FFmpegError, OSError, ValueError):
            self._container.close()  # what it has to say was reported already
        self.partial.unlink(missing_ok=True)

    def stop_early(self) -> None:
        if self._passing is not None:
            self._passing.end = self._end

    def _check_path(self) -> None:
        path = self.path
        if path.is_dir():
            raise SinkError(f"{path} is a folder: name a file in it")
        if not path.parent.is_dir():
            raise SinkError(f"no folder {path.parent}: create it first")
        if path.exists() and any(path.samefile(file) for file in self.like.files):
            raise SinkError(f"{path} is the input itself: choose another output")
        if path.exists() and not self.overwrite:
            raise SinkError(f"{path} exists: --overwrite replaces it")
        if not os.access(path.parent, os.W_OK):
            raise SinkError(f"the folder {path.parent} is not writable")

    def _open(self) -> OutputContainer:
        fast = {"movflags": "+faststart"} if self.path.suffix in (".mp4", ".mov", ".m4v") else {}
        try:
            return av.open(str(self.partial), "w", options=fast)
        except ValueError as error:
            raise SinkError(
                f"{self.path}: unknown file type {self.path.suffix!r}; use .mp4 or .mkv"
            ) from error

    def _begin(self, frame: Frame) -> VideoStream:
        """Set up the stream from the first frame, which alone knows the size that the stages made."""
        name = self._pix_fmt or _native_format(frame.format, self._encoder)
        self._format = _format_of(name)
        width, height = self._even(frame)
        stream = cast(
            VideoStream,
            self._container.add_stream(self._encoder.name, rate=self.like.rate, options=self._options),
        )
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, name
        context.time_base = frame.time_base
        context.framerate = self.like.rate
        context.sample_aspect_ratio = frame.aspect
        if frame.aspect != 1 and not self._keeps_aspect():
            self.notes += (
                f"pixels {frame.aspect} wide become square: only H.264, HEVC and MPEG-4 in .mp4, .mov "
                "and .ts keep their shape here",
            )
        colour = frame.colour
        context.colorspace = _MATRIX_CODES[colour.matrix] if self._format.family != "rgb" else 0
        context.color_range = _RANGE_CODES[colour.range]
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer
        context.thread_type = "AUTO"
        if frame.rotation:
            stream.set_display_rotation(
                frame.rotation if frame.rotation <= 180 else frame.rotation - 360
            )
        self._stream = stream
        if self._passing is not None:
            self._passing.begin(stream)
        try:
            self._container.start_encoding()
        except (FFmpegError, ValueError) as error:
            raise SinkError(
                f"{self._encoder.name} or the container refuse {width}x{height} {name} in a "
                f"{self.path.suffix} file with {self._options}: try .mkv or other options"
            ) from error
        return stream

    def _keeps_aspect(self) -> bool:
        """Whether the sample aspect ratio reaches the file.

        PyAV sets the codec's field only. Matroska overrides it with the container's own, and other
        codecs' streams have none.
        """
        coded = self._encoder.canonical_name in _CODED_ASPECT
        return coded and self._container.format.name not in ("matroska", "webm")

    def _even(self, frame: Frame) -> tuple[int, int]:
        """The coded size: subsampled chroma needs whole blocks."""
        assert self._format is not None
        x, y = self._format.subsample
        size = frame.width + -frame.width % x, frame.height + -frame.height % y
        if size != (frame.width, frame.height):
            self.notes += (
                f"{frame.width}x{frame.height} is padded to {size[0]}x{size[1]}, "
                f"since {self._format} needs even sizes",
            )
        return size

    def _picture(self, frame: Frame) -> VideoFrame:
        assert self._stream is not None
        assert self._format is not None
        width, height = self._stream.width, self._stream.height
        if (frame.width + 1) // 2 != (width + 1) // 2 or (frame.height + 1) // 2 != (height + 1) // 2:
            raise SinkError(
                f"frame {frame.index} is {frame.width}x{frame.height} in a file of {width}x{height}: "
                "add a resize to one size"
            )
        coded = to_rgb(frame) if self._format.family == "rgb" else to_yuv(frame, self._format)
        # One picture serves all frames: where the encoder still holds its memory, FFmpeg makes new.
        picture = self._buffer or VideoFrame(width, height, self._stream.pix_fmt or "yuv420p")
        picture.make_writable()
        self._buffer = picture
        for plane, pixels in zip(picture.planes, coded.planes, strict=True):
            _fill(plane, pixels)
        return picture

    def _encode(self, stream: VideoStream, picture: VideoFrame | None) -> None:
        """Encode a picture, or flush with None, and write what comes out."""
        for packet in cast("list[Packet[Any]]", stream.encode(picture)):
            self._container.mux(packet)

    @contextmanager
    def _reporting(self) -> Generator[None]:
        """Errors of FFmpeg and of the file system as SinkError."""
        try:
            yield
        except SinkError:
            raise
        except (FFmpegError, OSError) as error:
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            reason = getattr(error, "strerror", None) or str(error)
            hint = ": make room and run it again" if full else ""
            raise SinkError(f"{self.path} cannot be written: {reason}{hint}") from error


def _holds(container: OutputContainer, *names: str) -> bool:
    """Whether the container takes a codec of one of these names."""
    # MPEG-TS declares no list: FFmpeg then names only its two defaults, yet muxes most codecs.
    return container.format.name == "mpegts" or not container.supported_codecs.isdisjoint(names)


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
