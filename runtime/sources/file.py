"""Video files through FFmpeg's libraries (PyAV)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..colour import guess_matrix
from ..errors import SourceError
from ..frame import Array, Colour, Damage, Frame, Matrix, PixelFormat, Range, VideoInfo
from .base import Source

_YUV = re.compile(r"yuv(?P<full>j?)(?P<chroma>420|422|444|440|411)p(?P<bits>\d*)(le)?")
_GRAY = re.compile(r"gray(?P<bits>\d*)(le)?")
_SUBSAMPLE = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1)}

# ITU-T H.273 code points.
_MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "bt601",
    5: "bt601",
    6: "bt601",
    9: "bt2020",
    10: "bt2020",
}
_RANGES: dict[int, Range] = {1: "limited", 2: "full"}
_UNSPECIFIED = 2


class FileSource(Source):
    """The main video stream of a file, every frame with its own time."""

    def __init__(self, path: Path) -> None:
        """Open and probe. Raises SourceError when there is no video in it to decode."""
        self.uri = str(path)
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, path)
            self.info = self._probe(path)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self._damage = Damage()

    @property
    def damage(self) -> Damage:
        return self._damage

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        rate, base = self.info.rate, self.info.time_base
        step = max(round(1 / (rate * base)), 1)
        start = round(self.info.start / base)
        count = discarded = failed = 0
        expected = 0
        end = 0.0
        reason = ""
        # All packets pass here, so that a file cut in its audio is noticed, too.
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                failed, reason = failed + 1, f"reading stopped: {error.strerror}"
                packet = None
            if packet is not None and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet is not None and packet.stream is not self._stream:
                continue
            discarded += packet is not None and packet.is_discard
            try:
                decoded = self._stream.decode(packet)
            except FFmpegError as error:
                failed += 1
                reason = reason or f"a frame near number {count} cannot be decoded: {error.strerror}"
                decoded = []
            for picture in decoded:
                pts = picture.pts - start if picture.pts is not None else expected
                yield self._frame(picture, pts, count)
                expected = pts + (picture.duration or step)
                count += 1
            if packet is None or (packet.size == 0 and packet.dts is None):
                break
        self._damage = self._assess(count, discarded, failed, end, reason)

    def _assess(self, count: int, discarded: int, failed: int, end: float, reason: str) -> Damage:
        """Compare what came with what the file promised."""
        promised = self.info.frames
        if promised is not None:
            lost = max(promised - count - discarded, 0)
            if lost:
                reason = reason or f"the file promises {promised} frames and holds {count + discarded}"
            return Damage(max(lost, failed if lost else 0), reason if lost else "")
        length = self._container.duration
        missing = (length / av.time_base + (self.info.start or 0.0)) - end if length else 0.0
        # Headers round the duration, and the last packet's own length is often unknown.
        if missing > max(0.25, 3 / float(self.info.rate)):
            lost = max(round(missing * self.info.rate), 1)
            return Damage(lost, reason or f"the file ends {missing:.1f} s before its stated duration")
        return Damage(failed, reason)

    def _frame(self, picture: VideoFrame, pts: int, index: int) -> Frame:
        planes, format, full = read_planes(picture)
        return Frame(
            planes=planes,
            format=format,
            pts=pts,
            time_base=self.info.time_base,
            colour=self._colour(picture, full, format),
            aspect=self.info.aspect,
            rotation=picture.rotation % 360,
            index=index,
        )

    def _colour(self, picture: VideoFrame, full: bool, format: PixelFormat) -> Colour:
        if format.family == "rgb":
            # Only used when it is encoded as YUV later on.
            return replace(self.info.colour, primaries=int(picture.color_primaries), range="limited")
        return Colour(
            matrix=_MATRICES.get(int(picture.colorspace), self.info.colour.matrix),
            range="full" if full else _RANGES.get(int(picture.color_range), self.info.colour.range),
            primaries=int(picture.color_primaries),
            transfer=int(picture.color_trc),
            siting=self.info.colour.siting,
        )

    def _probe(self, path: Path) -> VideoInfo:
        stream, context = self._stream, self._stream.codec_context
        if context.width < 1 or context.height < 1 or context.pix_fmt is None:
            raise SourceError(
                f"{path}: not one picture of the video can be decoded; the file may be cut off"
            )
        format, full, alpha = describe_format(context.pix_fmt)
        notes: list[str] = []
        matrix = _MATRICES.get(int(context.colorspace))
        if matrix is None and format.family == "yuv":
            matrix = guess_matrix(context.height)
            notes.append(f"no colour matrix stated: taken as {matrix.upper()} from its size")
        if alpha:
            notes.append("the transparency channel is left out")
        if stream.time_base is None:
            raise SourceError(f"{path}: the video stream has no time base; it cannot be timed")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
        duration = (
            float(stream.duration * stream.time_base)
            if stream.duration is not None
            else self._container.duration / av.time_base
            if self._container.duration
            else None
        )
        return VideoInfo(
            width=context.width,
            height=context.height,
            format=format,
            rate=rate,
            time_base=stream.time_base,
            frames=stream.frames or None,
            duration=duration,
            colour=Colour(
                matrix=matrix or "bt709",
                range="full" if full else _RANGES.get(int(context.color_range), "limited"),
                primaries=int(context.color_primaries),
                transfer=int(context.color_trc),
            ),
            aspect=stream.sample_aspect_ratio or Fraction(1),
            codec=context.codec.name,
            audio=tuple(s.codec_context.name for s in self._container.streams.audio if s.codec_context),
            path=self.uri,
            stream=stream.index,
            files=(self.uri,),
            start=max((self._container.start_time or 0) / av.time_base, 0.0),
            notes=tuple(notes),
        )


def _open(path: Path) -> InputContainer:
    if path.is_dir():
        raise SourceError(f"{path} is a folder; for its pictures give '{path}/*.png'")
    if not path.exists():
        raise SourceError(f"no file at {path}")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty")
    try:
        return av.open(str(path), metadata_errors="replace")
    except FFmpegError as error:
        raise SourceError(
            f"{path} cannot be opened as a video: {error.strerror}. "
            "It may be cut off before its index, or not be a video at all"
        ) from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    for stream in container.streams.video:
        # Cover art is a video stream of one picture.
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing that is known"
    raise SourceError(f"{path} has no video stream; it holds {kinds}")


def describe_format(name: str) -> tuple[PixelFormat, bool, bool]:
    """(frames' format, full range by name, has transparency) of an FFmpeg pixel format."""
    if match := _YUV.fullmatch(name):
        bits = int(match["bits"] or 8)
        return PixelFormat("yuv", bits, _SUBSAMPLE[match["chroma"]]), bool(match["full"]), False
    if match := _GRAY.fullmatch(name):
        return PixelFormat("gray", int(match["bits"] or 8)), False, False
    format = av.VideoFormat(name)
    bits = max((component.bits for component in format.components), default=8)
    alpha = any(component.is_alpha for component in format.components)
    if format.is_rgb or format.has_palette:
        return PixelFormat("rgb", 8 if bits <= 8 else 16), True, alpha
    wide = format.chroma_width(4) if len(format.components) > 1 else 4
    high = format.chroma_height(4) if len(format.components) > 1 else 4
    chroma = {(2, 2): (2, 2), (2, 4): (2, 1)}.get((wide, high), (1, 1))
    return PixelFormat("yuv", 8 if bits <= 8 else 10 if bits <= 10 else 12, chroma), False, alpha


def av_format(format: PixelFormat) -> str:
    """FFmpeg's name of a pixel format."""
    deep = "" if format.bits == 8 else f"{format.bits}le"
    if format.family == "rgb":
        return "rgb24" if format.bits == 8 else "rgb48le"
    if format.family == "gray":
        return f"gray{deep}"
    chroma = next(k for k, v in _SUBSAMPLE.items() if v == format.subsample)
    return f"yuv{chroma}p{deep}"


def read_planes(picture: VideoFrame) -> tuple[tuple[Array, ...], PixelFormat, bool]:
    """(planes, format, full range by name): views of the decoder's memory wherever it fits."""
    format, full, _ = describe_format(picture.format.name)
    wanted = av_format(format)
    if picture.format.name.replace("yuvj", "yuv") != wanted:
        picture = picture.reformat(format=wanted)
    planes: list[Array] = []
    for plane in picture.planes:
        samples = np.frombuffer(cast("memoryview", plane), format.dtype)
        rows = samples.reshape(plane.height, plane.line_size // format.dtype.itemsize)
        if format.family == "rgb":
            planes.append(rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3))
        else:
            planes.append(rows[:, : plane.width])
    return tuple(planes), format, full
