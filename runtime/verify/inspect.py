"""The actual contents of a video file: every packet is read, and the last pictures are decoded."""

import os
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import SourceError, missing
from ..media.pixel_format import is_mirrored
from ..media.probe import is_untimed, usual_rate
from ..media.pyav import open_input, ratio
from ..media.side_data import stated
from ..media.tracks import Span, Track, Values, earliest, main_video

HELD = 64 << 20
"""Bytes of one group of pictures that are kept for the decoder; a longer group is decoded as it
comes."""
SKETCH = 32
"""Side of the small grey picture that shows the orientation of a frame."""


Video = int | Literal["first", "chosen"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The contents of a file. Code points are those of ITU-T H.273; 2 is unspecified."""

    path: str
    container: str
    """FFmpeg's names of the format, joined by commas."""
    stream: int
    """Index of the video."""
    timed: bool
    """False for a bare stream, whose times are guessed."""
    times: Values
    """Seconds on the file's own clock at which a frame is shown, in order, by the packets."""
    pictures: Values | None
    """Times of the decoded frames; None where only the last frames were decoded."""
    duration: float
    """Seconds from the first frame's beginning to the last frame's end."""
    width: int
    height: int
    pixels: str
    """FFmpeg's name of the pixel format."""
    aspect: Fraction
    """Width of a pixel over its height."""
    rotation: int | None
    """Degrees, counter-clockwise, by which a player must turn the picture; None where no frame of the
    last group could be decoded."""
    mirrored: bool
    """True if a player must mirror the picture, upside down, before it turns it."""
    matrix: int
    range: int
    """0 unspecified, 1 limited, 2 full."""
    primaries: int
    transfer: int
    tracks: tuple[Track, ...]
    """All other streams, in the file's order."""
    chapters: int
    """The number of chapters."""
    states: frozenset[str]
    """Side data that it states, by the names of `media.side_data`."""
    cut: str
    """The reason why the file seems to be cut off; empty where it does not."""
    tail: str
    """The reason why the last packet cannot be decoded; empty where it can."""
    failed: int
    """Frames that the decoder refused or found damaged: among all where `pictures` is given, else in
    the last group."""
    sketch: Values | None
    """(SKETCH, SKETCH) grey values of the last coded frame, mirrored only where a player must mirror
    it; None where it is not decoded."""

    @property
    def begin(self) -> float:
        """The time of the first frame or the first sound, in seconds on the file's own clock."""
        return earliest(self.times, self.tracks)


def inspect(
    path: str | Path,
    *,
    deep: bool = False,
    video: Video = "first",
    within: tuple[float, float] | None = None,
) -> Found:
    """Reads every packet of a file and decodes its last group of pictures; with `deep` all pictures.

    Of several videos `video` is the one that counts: the first, as in files that were written here, the
    one that a run would take, or that of an index. A file whose packets do not tell the times of its
    frames is always decoded whole. `within` two times, in seconds on the file's own clock, only
    a part of it counts: frames and packets that begin from the first on and before the second.

    Raises SourceError when it cannot be opened or has no video.
    """
    container = _open(Path(path))
    with container:
        stream = _main_video(container, str(path), video)
        reader = _Reader(container, stream, deep=deep, within=within)
        reader.run()
        if deep or reader.timed:
            return reader.found(str(path))
    return inspect(path, deep=True, video=video, within=within)


def inspect_file(file: BinaryIO, name: str) -> Found:
    """Returns the contents of an open file, all of whose pictures are decoded. Raises SourceError."""
    try:
        container = open_input(file)
    except FFmpegError as error:
        raise SourceError(f"{name} cannot be opened as a video: {error.strerror}") from error
    with container:
        reader = _Reader(container, _main_video(container, name, "first"), deep=True)
        reader.run()
        return reader.found(name)


class _Reader:
    """One pass over the packets of a file."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        *,
        deep: bool,
        within: tuple[float, float] | None = None,
    ) -> None:
        self._within = within
        self.timed = not is_untimed(container)
        self._container = container
        self._stream = stream
        self._deep = deep
        self._spans = {s.index: Span(s, within) for s in container.streams if s is not stream}
        self._video = Span(stream)
        self._ticks = array("q")
        self._fault = ""
        self._damaged = 0
        self._ticking = container.format.name == "avi"
        """True for AVI, which states ticks of decoding alone."""
        self._delay = 0
        """Ticks by which FFmpeg guesses that the first picture is shown later than AVI says."""
        self._decoder = _Decoder(stream, deep=deep)
        context = stream.codec_context
        # Before a frame is decoded, since decoding overwrites some of them.
        self._width, self._height = context.width, context.height

    def run(self) -> None:
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                self._fault = f"reading stopped: {error.strerror}"
                packet = None
            if packet is None:
                break
            if packet.size == 0:
                continue
            self._damaged += packet.is_corrupt
            if packet.stream is not self._stream:
                self._spans[packet.stream.index].add(packet)
                continue
            self._video.add(packet)
            if packet.pts is None:
                self.timed = False
            elif not packet.is_discard:
                if not self._ticks and packet.dts is not None and self._ticking:
                    self._delay = packet.pts - packet.dts
                self._ticks.append(packet.pts)
            self._decoder.take(cast("Packet[VideoStream]", packet))
        self._decoder.finish()

    def found(self, path: str) -> Found:
        stream, context, decoder = self._stream, self._stream.codec_context, self._decoder
        last = decoder.last
        base = float(stream.time_base or 1)
        pictures = np.sort(np.array(decoder.ticks, np.float64)) * base if self._deep else None
        times = np.sort(np.array(self._ticks, np.float64) - self._delay) * base
        if pictures is not None:
            pictures = pictures - self._delay * base
        if not self.timed and pictures is not None:
            if is_untimed(self._container):
                pictures = np.arange(len(pictures)) / float(usual_rate(self._container, stream))
            times = pictures
        if not len(times):
            raise SourceError(f"{path}: its video stream holds no frame")
        video = self._video.track()
        step = float(times[-1] - times[0]) / max(len(times) - 1, 1)
        end, shown = video.end, float(times[-1])
        chapters = len(self._chapters())
        if self._within is not None:
            begin, until = self._within
            times = _between(times, begin, until)
            pictures = None if pictures is None else _between(pictures, begin, until)
            if not len(times):
                raise SourceError(f"{path} has no frame in that part")
            end, shown = min(end, until), float(times[-1])
            chapters = sum(begin < stop and start < until for start, stop in self._chapters())
        tick = last or context
        return Found(
            path=path,
            container=self._container.format.name,
            stream=stream.index,
            timed=self.timed,
            times=times,
            pictures=pictures,
            # MPEG-TS and FLV state no durations, AVI only its ticks: as long as the others, then.
            duration=(end if end > shown and not self._ticking else shown + step) - float(times[0]),
            width=last.width if last is not None else self._width,
            height=last.height if last is not None else self._height,
            pixels=last.format.name if last is not None else context.pix_fmt or "",
            aspect=ratio(stream.sample_aspect_ratio) or Fraction(1),
            rotation=last.rotation % 360 if last is not None else None,
            mirrored=last is not None and is_mirrored(last),
            matrix=int(tick.colorspace),
            range=int(tick.color_range),
            primaries=int(tick.color_primaries),
            transfer=int(tick.color_trc),
            tracks=tuple(span.track() for span in self._spans.values()),
            chapters=chapters,
            states=stated(self._container, stream, last) if last is not None else frozenset(),
            cut=self._cut(video, shown),
            tail=decoder.tail(step / base),
            failed=decoder.failed,
            # The last frame of a part is another.
            sketch=_sketch(last) if last is not None and self._within is None else None,
        )

    def _chapters(self) -> list[tuple[float, float]]:
        """Returns where each begins and ends, in seconds on the file's own clock."""
        chapters = self._container.chapters()
        bases = [float(chapter["time_base"] or 0) for chapter in chapters]
        return [(c["start"] * base, c["end"] * base) for c, base in zip(chapters, bases, strict=True)]

    def _cut(self, video: Track, last: float) -> str:
        """Returns the reason why the file seems to be cut off; empty where it does not."""
        if self._fault or self._damaged:
            return self._fault or f"{self._damaged} packets are incomplete"
        names = self._container.format.name
        # Only this family states the number of its packets; AVI states ticks, others nothing.
        if "mp4" in names and self._stream.frames > video.packets:
            return f"its index lists {self._stream.frames} frames, and it holds {video.packets}"
        length = self._container.duration
        if length and "mpegts" not in names:
            end = (length + (self._container.start_time or 0)) / av.time_base
            tracks = [span.track() for span in self._spans.values()]
            reached = max([last, video.end, *(track.end for track in tracks)])
            if end - reached > MISSING:
                return f"its header states an end at {end:.2f} s, and it ends at {reached:.2f} s"
        return ""


MISSING = 0.25
"""Seconds by which a stated duration may exceed what was found: headers round, and FFmpeg estimates."""


class _Decoder:
    """Decodes the last group of pictures, or everything, and keeps what went wrong.

    Which group is the last is known only at the end, so packets wait until the next key frame comes.
    """

    def __init__(self, stream: VideoStream, *, deep: bool) -> None:
        self.ticks = array("q")
        """Times of the decoded frames, in the stream's time base."""
        self.failed = 0
        self.last: VideoFrame | None = None
        self._stream = stream
        self._waits = not deep
        self._deep = deep
        self._pending: list[Packet[VideoStream]] = []
        self._held = 0
        self._wanted = array("q")
        self._key: int | None = None
        self._reason = ""
        stream.thread_type = "AUTO"

    def take(self, packet: "Packet[VideoStream]") -> None:
        """Add the next packet in the order of decoding."""
        if packet.is_keyframe:
            self._restart(packet.pts)
        # Frames before the key frame may need the group before it.
        if packet.pts is not None and not packet.is_discard and self._follows(packet.pts):
            self._wanted.append(packet.pts)
        if not self._waits:
            self._decode(packet)
            return
        self._pending.append(packet)
        self._held += packet.size
        if self._held > HELD:
            self._waits = False
            self._decode_pending()

    def finish(self) -> None:
        """Decode the kept packets, and flush the decoder."""
        self._decode_pending()
        self._decode(None)

    def tail(self, step: float) -> str:
        """Returns the reason why the last packet cannot be decoded, or nothing; frames are `step` ticks
        apart."""
        if self._reason:
            return self._reason
        if not self.ticks:
            return "no frame of the last group can be decoded"
        # The last to be decoded and the last to be shown. Half a step: the second field of an
        # interlaced frame has a time, but makes no frame.
        given = np.array(self.ticks, np.float64)
        ends = (self._wanted[-1], max(self._wanted)) if self._wanted else ()
        if any(np.abs(given - ticks).min() > 0.6 * step for ticks in ends):
            return "the decoder gives no frame for it"
        count = sum(map(self._follows, self.ticks))
        if not self._deep and count < len(self._wanted):
            return f"the decoder gives {count} of the last {len(self._wanted)} frames"
        return ""

    def _follows(self, ticks: int) -> bool:
        return self._key is None or ticks >= self._key

    def _restart(self, key: int | None) -> None:
        self._key = key
        self._wanted = array("q")
        self._reason = ""
        if self._deep:
            return
        if not self._waits:
            self._stream.codec_context.flush_buffers()
            self._waits = True
        self._pending, self._held = [], 0
        self.ticks, self.failed, self.last = array("q"), 0, None

    def _decode_pending(self) -> None:
        for packet in self._pending:
            self._decode(packet)
        self._pending = []

    def _decode(self, packet: "Packet[VideoStream] | None") -> None:
        try:
            frames = self._stream.decode(packet)
        except FFmpegError as error:
            self._fail(f"the decoder refuses it: {error.strerror}")
            return
        for frame in frames:
            if frame.is_corrupt:
                self._fail("the decoder finds it damaged")
            step = frame.duration or 1
            after = self.ticks[-1] + step if self.ticks else 0
            self.ticks.append(frame.pts if frame.pts is not None else after)
            self.last = frame

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self._reason = self._reason or reason


def _between(times: Values, begin: float, end: float) -> Values:
    return times[(times > begin - TICK) & (times < end - TICK)]


TICK = 1e-6
"""Seconds by which equal times may differ."""


def _sketch(frame: VideoFrame) -> Values:
    small = frame.reformat(width=SKETCH, height=SKETCH, format="gray", interpolation="AREA")
    values = np.asarray(small.to_ndarray(), np.float64)
    return values[::-1] if is_mirrored(frame) else values


def _open(path: Path) -> InputContainer:
    if not path.is_file():
        raise SourceError(missing(path))
    try:
        return open_input(os.path.abspath(path))  # noqa: PTH100
    except FFmpegError as error:
        raise SourceError(f"{path} cannot be opened as a video: {error.strerror}") from error


def _main_video(container: InputContainer, path: str, video: Video) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if video == "chosen":
        streams = [stream] if (stream := main_video(container)) is not None else []
    elif video != "first":
        streams = [s for s in container.streams.video if s.index == video]
    for stream in streams[:1]:
        context: Any = stream.codec_context  # None for what FFmpeg has no decoder for
        if context is None or not stream.time_base:
            raise SourceError(f"{path}: its video is in a codec that cannot be decoded")
        return stream
    raise SourceError(f"{path} has no video stream")
