"""Facts about a video stream that are known before work starts."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..colour import MATRICES, guess_matrix
from ..frame import Colour, VideoInfo
from .hdr import dynamic_hdr, read_hdr
from .pixel_format import RANGES, Reading, is_mirrored
from .pyav import open_input, ratio
from .side_data import draws_grain, read_side_data

_NO_TIMES = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS."""
_ESTIMATED = frozenset({"mpegts", "mpeg"})
"""Containers that state no length: FFmpeg estimates it from the times at their end."""


def promised_frames(container: InputContainer, stream: VideoStream) -> int | None:
    """Returns the number of frames that the file states; None where it states none."""
    # What MP4's edit list cuts off before a key frame is counted, but not in its index.
    listed = len(stream.index_entries) if "mp4" in container.format.name else 0
    return min(stream.frames, listed or stream.frames) or None


def has_opacity(stream: VideoStream) -> bool:
    """Returns whether WebM states an opacity beside the picture, which the codec does not tell."""
    return stream.metadata.get("alpha_mode") == "1"


def usual_rate(container: InputContainer, stream: VideoStream) -> Fraction:
    """Returns the average number of frames per second."""
    rates = [ratio(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)]
    # Where packets have no times FFmpeg's average is its default.
    first = ratio(stream.guessed_rate) if is_untimed(container) else None
    return next(filter(None, (first, *rates)), Fraction(25))


def is_untimed(container: InputContainer) -> bool:
    """Returns whether it is a bare stream, whose packets have no times."""
    return bool(container.format.flags & _NO_TIMES)


def promised_end(container: InputContainer) -> float | None:
    """Returns the seconds on the file's clock at which it ends by its header; None where it states
    none."""
    if container.format.name in _ESTIMATED or is_untimed(container) or not container.duration:
        return None
    end = container.duration / av.time_base + start_of(container)
    if container.format.name == "asf":
        # Its writers add how late a stream begins once more.
        begins = [float((s.start_time or 0) * (s.time_base or 0)) for s in container.streams]
        end -= max(begins, default=0.0)
    return end


def start_of(container: InputContainer) -> float:
    """Returns the seconds on the file's clock that count as time 0: the earliest beginning of a
    stream."""
    stated = (container.start_time or 0) / av.time_base
    # MPEG-TS may state the beginning of a subtitle.
    begins = [
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if stream.type in ("video", "audio") and stream.start_time is not None and stream.time_base
    ]
    return max(min([stated, *begins]), 0.0)


def orientation_of(path: str, index: int) -> tuple[int, bool]:
    """Returns the degrees, counter-clockwise, by which players turn a stream, and whether they mirror
    it first; for decoders that are not told."""
    with open_input(os.path.abspath(path)) as container:  # noqa: PTH100
        for image in container.decode(container.streams[index]):
            found = cast("VideoFrame", image)
            return found.rotation % 360, is_mirrored(found)
    return 0, False


def describe(
    container: InputContainer,
    stream: VideoStream,
    first: Sequence[VideoFrame],
    layout: Reading,
    *,
    uri: str,
    rate: Fraction,
    base: Fraction,
) -> VideoInfo:
    """Returns the facts that a file states and its first frames add; at least one frame must be
    given."""
    context, image = stream.codec_context, first[0]
    notes: list[str] = []
    matrix = MATRICES.get(int(image.colorspace))
    if matrix is None and layout.format.family == "yuv":
        matrix = guess_matrix(image.height)
        notes.append(f"no colour matrix stated: taken as {matrix.upper()} from its size")
    if layout.lossy:
        notes.append(
            f"pixels of the format {image.format.name} are read with {layout.format.bits} bits"
        )
    for name in sorted({name for frame in first for name in dynamic_hdr(frame)}):
        notes.append(f"the {name} metadata is left out: it fits the original pixels only")
    if draws_grain(stream):
        notes.append("the film grain that the stream describes is drawn: it is in the pixels now")
    audio = tuple(s.codec_context.name for s in container.streams.audio if s.codec_context)
    again = Path(uri).is_file()
    if not again and len(container.streams) > 1:
        others = ", ".join(dict.fromkeys(s.type for s in container.streams if s is not stream))
        notes.append(f"what comes through the pipe beside the video is left out: {others}")
    return VideoInfo(
        width=image.width,
        height=image.height,
        format=layout.format,
        rate=rate,
        time_base=base,
        frames=promised_frames(container, stream),
        duration=_duration(container, stream, base),
        colour=Colour(
            matrix=matrix or "bt709",
            range="full" if layout.full else RANGES.get(int(image.color_range), "limited"),
            primaries=int(image.color_primaries),
            transfer=int(image.color_trc),
        ),
        aspect=ratio(stream.sample_aspect_ratio) or Fraction(1),
        rotation=image.rotation % 360,
        alpha=layout.alpha,
        side=read_side_data(container, stream, first),
        hdr=next(filter(None, map(read_hdr, first)), None),
        codec=context.codec.name,
        audio=audio,
        # What came through a pipe cannot be read a second time for its sound.
        # A whole path: FFmpeg takes what stands before a colon for a protocol.
        path=os.path.abspath(uri) if again else None,  # noqa: PTH100
        stream=stream.index,
        files=(uri,) if again else (),
        start=start_of(container),
        notes=tuple(notes),
    )


def _duration(container: InputContainer, stream: VideoStream, base: Fraction) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * base)
    return container.duration / av.time_base if container.duration else None
