"""Streams beside the main video: facts gathered from their packets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from av.stream import Disposition, Stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

OnPacket = Callable[["Packet[Any]"], None]
"""Hears of a packet that is about to be written; before it is, since muxers change it."""

Values = npt.NDArray[np.float64]
TrackKind = Literal["video", "audio", "subtitle", "data", "attachment", "cover", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A stream beside the main video. Times are seconds on the file's own clock."""

    kind: TrackKind
    codec: str
    """FFmpeg's name of the codec, without the decoder's flavour."""
    packets: int = 0
    """Packets; of PGS whole subtitles, whose segments containers cut into packets differently."""
    discarded: int = 0
    """Packets among these that the container says not to play: an encoder's priming, or what an edit
    list cuts off."""
    start: float = 0.0
    """The first packet's time."""
    heard: float = 0.0
    """The time of the first packet that is played."""
    end: float = 0.0
    """The end of the last packet that is played."""
    longest: float = 0.0
    """Seconds of the longest packet."""

    @property
    def played(self) -> int:
        """The number of packets that are played."""
        return self.packets - self.discarded


def earliest(times: Values, tracks: tuple[Track, ...]) -> float:
    """Returns the time of the first frame or the first sound, in seconds."""
    sounds = [track.start for track in tracks if track.kind == "audio" and track.packets]
    return min([float(times[0]), *sounds])


DEFAULT_BONUS = 5_000_000
"""Pixels that the FFmpeg command adds to the size of the default stream when it chooses one."""


def main_video(container: "InputContainer") -> "VideoStream | None":
    """Returns the video that the FFmpeg command takes of several: the largest, or the default; no cover
    art.

    What cannot be decoded is taken only where nothing else is there.
    """

    def score(stream: "VideoStream") -> tuple[bool, int]:
        context: Any = stream.codec_context  # None for what FFmpeg has no decoder for
        if context is None:
            return False, 0
        default = bool(stream.disposition & Disposition.default)
        return True, context.width * context.height + DEFAULT_BONUS * default

    streams = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return max(streams, key=score, default=None)


PGS = "hdmv_pgs_subtitle"
"""Subtitles of Blu-ray, each of several segments: some containers make a packet of each, Matroska's
muxer one of all."""
_END_OF_SET = 0x80


def _display_sets(packet: "Packet[Any]") -> int:
    """Returns how many subtitles end in a packet of PGS."""
    data, place, ends = bytes(packet), 0, 0
    while place + 3 <= len(data):
        ends += data[place] == _END_OF_SET
        place += 3 + int.from_bytes(data[place + 1 : place + 3])
    return ends


class Span:
    """Counts the packets of one stream, and keeps the time span that they cover."""

    def __init__(self, stream: Stream, within: tuple[float, float] | None = None) -> None:
        """With `within`, only what lasts into a part of the file counts, between two times: what begins
        before it as packets that are not played."""
        self._within = within
        self._kind: TrackKind = stream.type
        if stream.type == "video" and stream.disposition & Disposition.attached_pic:
            self._kind = "cover"
        # Streams that FFmpeg has no decoder for have no context, whatever the types say.
        context: Any = stream.codec_context
        self._codec = str(context.codec.canonical_name) if context is not None else "unknown"
        self._packets = self._discarded = 0
        self._start = self._heard = float("inf")
        self._end = float("-inf")
        self._step = 0.0
        self._longest = 0.0
        self._last = float("inf")

    def add(self, packet: "Packet[Any]") -> None:
        """Count a packet; call it before the packet is written, since muxers change its times."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        early = False
        if self._within is not None and ticks is not None and self._kind != "cover":
            begin = float(ticks * packet.time_base)
            early = begin < self._within[0]
            length = float((packet.duration or 0) * packet.time_base)
            if begin >= self._within[1] or (early and begin + length <= self._within[0]):
                return
        count = _display_sets(packet) if self._codec == PGS else 1
        self._packets += count
        self._discarded += count * (packet.is_discard or early)
        if ticks is None:
            return
        time = float(ticks * packet.time_base)
        if packet.duration:
            self._step = float(packet.duration * packet.time_base)
        elif self._kind == "audio" and self._last < time:
            # Matroska and NUT leave out what follows from the next packet: the last one's is guessed.
            self._step = time - self._last
        self._last = time
        self._longest = max(self._longest, self._step)
        self._start = min(self._start, time)
        if not (packet.is_discard or early):
            self._heard = min(self._heard, time)
            self._end = max(self._end, time + self._step)

    def track(self) -> Track:
        """Returns the facts about the packets so far."""
        timed = self._end >= self._heard
        return Track(
            kind=self._kind,
            codec=self._codec,
            packets=self._packets,
            discarded=self._discarded,
            start=self._start if timed else 0.0,
            heard=self._heard if timed else 0.0,
            end=self._end if timed else 0.0,
            longest=self._longest,
        )
