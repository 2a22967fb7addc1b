"""Decoding: packets of a container become pictures, with times that strictly increase."""

from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, cycle, islice
from typing import Any, cast

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..frame import Damage
from .deinterlace import Picture
from .packet_index import Key, Start


class Clock:
    """Assigns every frame its time, in the ticks of its stream.

    A frame's own time stands wherever it is later than that of the frame before. Where the file's clock
    falls back by two frames or more, as where recordings were joined, the rest goes on one frame after
    the frame before, until the file's own times are later again. A frame that comes less than that too
    early is put one tick after the one before it. Frames without a time follow their predecessor.
    """

    def __init__(self, *, start: int | None, step: int, counting: bool = False) -> None:
        """`start` is the tick that counts as 0, None for that of the first frame; `step` is a frame's
        usual length.

        With `counting` the frames' own times are not to be trusted, and the packets' stand for them in
        their order: AVI knows no other, and decoders give frames in the order of display.
        """
        self.restarts = self.late = 0
        self._start = start
        self._step = step
        self._sent: deque[int] | None = deque() if counting else None
        self._last: int | None = None
        self._length = step
        self._offset = 0

    def sent(self, ticks: int | None) -> None:
        """Note a packet that was sent to the decoder."""
        if self._sent is not None and ticks is not None:
            self._sent.append(ticks)

    def failed(self) -> None:
        """Drop the packet that was sent last, which gave no frame."""
        if self._sent:
            self._sent.pop()

    def time(self, pts: int | None, duration: int) -> tuple[int, int]:
        """Returns (time, duration) of the next frame, whose own are `pts` and `duration`, 0 if
        unknown."""
        if self._sent:
            pts = self._sent.popleft()
        last, follows = self._last, 0 if self._last is None else self._last + self._length
        if self._start is None and pts is not None:
            self._start = pts - follows
        own = None if pts is None else pts - (self._start or 0)
        if last is None:
            ticks = follows if own is None else own
        elif own is None:
            ticks = follows
        elif own > last:
            ticks, self._offset = own, 0
        elif own + self._offset > last:
            ticks = own + self._offset
        elif last - own - self._offset >= 2 * self._step:
            self.restarts += 1
            self._offset = follows - own
            ticks = follows
        else:
            self.late += 1
            ticks = last + 1
        self._last, self._length = ticks, max(duration, 1) if duration else self._step
        return ticks, self._length

    def repairs(self) -> tuple[str, ...]:
        """Returns one line for each kind of change that was made to the times."""
        lines: list[str] = []
        if self.restarts:
            lines.append(
                f"the file's clock falls back {_times(self.restarts)}: the picture goes on there "
                "without a gap, which its sound may not"
            )
        if self.late:
            frames = "1 frame was" if self.late == 1 else f"{self.late} frames were"
            lines.append(f"{frames} timed before the frame before: shown a moment after it instead")
        return tuple(lines)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that give a codec's opacity, which FFmpeg's own decoders ignore."""

HELD = 64 << 20
"""Bytes of one group of pictures that are kept until the next begins."""
DELAY = 100
"""Packets by which a decoder may be behind: those in its threads, and 16 pictures to be reordered."""


class Reader:
    """Decodes one stream of a container to its last frame, and counts what was lost."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, clock: Clock, *, alpha: bool = False
    ) -> None:
        """`alpha` decodes the stream's opacity, too."""
        self.count = self.discarded = self.failed = self.interlaced = 0
        self.corrupt = 0
        """Pictures that the decoder itself takes for damaged: how, may depend on all before."""
        self.reason = ""
        self.incomplete = 0
        """Packets that are known to be damaged."""
        self._sent = 0
        self._missed = False
        """True if the awaited frame did not come."""
        self._before: int | None = None
        self._gaps: Counter[int] = Counter()
        self.reached = 0.0
        """Seconds on the file's clock at which the last packet of any stream ends."""
        self.ticks = 0
        """Ticks of the stream that have come, where a frame usually lasts one."""
        self.guessed = False
        """True if the first packet is shown later than it is decoded."""
        self.position = 0
        """Bytes up to the end of the last packet."""
        self._packets: Iterator[Packet[Any]] | None = None
        """The packets that follow, where some were skipped."""
        self._awaited: Start | None = None
        """The frame that is the first to be given; those before it only lead up to it."""
        self._group: list[Packet[Any]] = []
        """The packets since the last key frame; empty where they became more than `HELD`."""
        self._held = self._failed_before = 0
        self._latest: int | None = None
        """The latest time of a decoded picture."""
        self._container = container
        self._stream = stream
        self._clock = clock
        if not stream.codec_context.is_open:  # as it is where a source was sought in
            stream.thread_type = "AUTO"
        self._decoder = _alpha_decoder(stream) if alpha else stream

    def __iter__(self) -> Iterator[Picture]:
        # All packets pass here, so that a file cut in its audio is noticed, too.
        packets = self._packets or self._container.demux()
        while True:
            packet = self._next(packets)
            if packet is not None and packet.stream is not self._stream:
                continue
            yield from self._decode(packet)
            if packet is None or (packet.size == 0 and packet.dts is None) or self._missed:
                return

    def skim(self) -> "Iterator[Packet[Any]]":
        """Yields all packets of the stream, which are counted and not decoded."""
        packets = self._container.demux()
        while (packet := self._next(packets)) is not None:
            if packet.stream is self._stream and packet.size:
                self._account(packet)
                yield packet

    def begin_at(self, key: Key, start: Start) -> bool:
        """Skip to a key frame's packet and drop the pictures before `start`'s, as if all had been read.

        False where that packet does not come.
        """
        packets = self._container.demux()
        try:
            for packet in packets:
                if packet.stream is not self._stream or not packet.is_keyframe or packet.pts is None:
                    continue
                if (packet.pts, packet.size) == (key.pts, key.size):
                    self._packets = chain((packet,), packets)
                    self._sent, self.discarded = key.packet, key.discarded
                    self._awaited = start
                    return True
                if packet.pts > key.pts:
                    return False
        except FFmpegError:
            return False
        return False

    def _next(self, packets: "Iterator[Packet[Any]]") -> "Packet[Any] | None":
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            self.failed, self.reason = self.failed + 1, f"reading stopped: {error.strerror}"
            return None
        if packet is not None and packet.pos is not None:
            self.position = max(self.position, packet.pos + packet.size)
        if packet is not None and packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self.reached = max(self.reached, end)
        return packet

    def _decode(self, packet: "Packet[Any] | None") -> Iterator[Picture]:
        if packet is not None and packet.size:
            self._account(packet)
            self._keep(packet)
        # The pictures of the last packets come at once, and none after the first packet that fails.
        last = packet is None or not packet.size
        for image in self._images(packet):
            if self._arrived(image):
                yield self._picture(image)
        if last and (missing := self._missing()):
            yield from map(self._picture, filter(self._arrived, self._again(missing)))

    def _account(self, packet: "Packet[Any]") -> None:
        self.discarded += packet.is_discard
        self._clock.sent(packet.dts)
        if not self._sent and packet.dts is not None and packet.pts is not None:
            self.guessed = packet.pts > packet.dts
        self._sent += 1
        self.incomplete += packet.is_corrupt
        self._tick(packet.dts)

    def _arrived(self, image: VideoFrame) -> bool:
        """Returns whether a picture is to be given, and not one that only leads up to the first."""
        start = self._awaited
        if start is None:
            return not self._missed
        if image.pts == start.pts:
            self._awaited = None
            self.count = start.number
            # What led up to it may lack what it was predicted from.
            self.failed, self.reason, self._failed_before = 0, "", 0
            return True
        self._missed = self._missed or (image.pts is not None and image.pts > start.pts)
        self.interlaced += image.interlaced_frame
        return False

    def _images(self, packet: "Packet[Any] | None") -> list[VideoFrame]:
        """Returns the pictures that the decoder gives for a packet; failures are counted."""
        try:
            return self._decoder.decode(packet)
        except (FFmpegError, ValueError) as error:
            # PyAV 19 raises a plain ValueError where a damaged header names a codec that is none.
            self.failed += 1
            why = error.strerror if isinstance(error, FFmpegError) else error
            self.reason = self.reason or f"a frame near number {self.count} cannot be decoded: {why}"
            self._clock.failed()
            return []

    def _picture(self, image: VideoFrame) -> Picture:
        if image.pts is not None:
            self._latest = max(image.pts, self._latest) if self._latest is not None else image.pts
        pts, duration = self._clock.time(image.pts, image.duration)
        self.count += 1
        self.corrupt += image.is_corrupt
        self.interlaced += image.interlaced_frame
        return Picture(image, pts, duration)

    def _keep(self, packet: "Packet[Any]") -> None:
        if packet.is_keyframe:
            self._group, self._held = [], 0
            self._failed_before = self.failed
        self._held += packet.size
        if self._held <= HELD:
            self._group.append(packet)
        else:
            self._group = []

    def _missing(self) -> set[int]:
        """Returns the times after the last decoded picture, by the packets since a key frame."""
        times = {p.pts for p in self._group if p.pts is not None and not p.is_discard}
        return {time for time in times if self._latest is None or time > self._latest}

    def _again(self, missing: set[int]) -> Iterator[VideoFrame]:
        """Decodes the last group of pictures once more and yields the pictures of the missing times.

        A decoder that is flushed gives its remaining pictures only up to the first failure. So it is
        not flushed: the group is sent a second time, which pushes out the pictures that its threads
        hold of the first.
        """
        failed = self.failed > self._failed_before
        context = self._decoder if isinstance(self._decoder, VideoCodecContext) else None
        (context or self._stream.codec_context).flush_buffers()
        group = self._group
        for number, packet in enumerate(islice(cycle(group), len(group) + DELAY)):
            try:
                images = self._decoder.decode(packet)
            except (FFmpegError, ValueError):
                failed = True
                continue
            for image in images:
                if image.pts in missing:
                    missing.discard(image.pts)
                    yield image
            if not missing and number >= len(group) - 1:
                break
        # Without a failure it is the second field of a picture that has a time and no picture.
        lost = len(missing) - (self.failed - self._failed_before)
        if failed and lost > 0:
            self.failed += lost
            self.reason = self.reason or f"the last {len(missing)} frames cannot be decoded"

    def _tick(self, dts: int | None) -> None:
        if dts is None:
            return
        if self._before is not None and dts > self._before:
            self._gaps[dts - self._before] += 1
        self._before = dts
        self.ticks = max(self.ticks, dts + 1)

    def damage(
        self,
        promised: int | None,
        end: float | None,
        rate: float,
        *,
        ticking: bool = False,
        cut: bool = False,
    ) -> Damage:
        """Compares what came with what the file states: frames, or else its end in seconds.

        With `ticking` the stated number includes ticks without a frame, as in AVI. With `cut` the file
        is known to lack its end, however little that is.
        """
        if promised is not None and ticking:
            # A cut packet may give nothing and no error; so does a whole one that repeats a frame.
            mute = min(max(self._sent - self.count - self.failed, 0), self.incomplete)
            # The last frame may stand for some ticks: a whole frame must be missing.
            step = self._gaps.most_common(1)[0][0] if self._gaps else 1
            lost = max(promised - self.ticks, 0) // step + mute
            early = f"the file ends {lost} frames before its stated end"
            return Damage(lost + self.failed, self.reason or (early if lost else ""))
        if promised is not None:
            came = self.count + self.discarded
            lost = max(promised - came, 0)
            reason = self.reason or f"the file promises {promised} frames and holds {came}"
            return Damage(max(lost, self.failed if lost else 0), reason if lost else "")
        missing = end - self.reached if end is not None else 0.0
        # Headers round the duration, and the last packet's own length is often unknown.
        if missing > max(0.25, 3 / rate):
            lost = max(round(missing * rate), 1)
            reason = self.reason or f"the file ends {missing:.1f} s before its stated duration"
            return Damage(lost, reason)
        if cut and not self.failed:
            return Damage(max(round(missing * rate), 1), "its end is cut off")
        return Damage(self.failed, self.reason)


def _alpha_decoder(stream: VideoStream) -> VideoCodecContext:
    """Returns a decoder of the same stream that gives its opacity."""
    given = stream.codec_context
    name = ALPHA_DECODERS[given.codec.canonical_name]
    decoder = cast("VideoCodecContext", VideoCodecContext.create(name, "r"))
    decoder.extradata = given.extradata
    decoder.thread_count = 0
    for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(decoder, name, getattr(given, name))
    return decoder
