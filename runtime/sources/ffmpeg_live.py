"""Live captures by FFmpeg: streams from the network, cameras, X11."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

from av.codec.context import Flags
from av.container import InputContainer
from av.error import (
    DemuxerNotFoundError,
    ExitError,
    FFmpegError,
    HTTPForbiddenError,
    HTTPUnauthorizedError,
    InvalidDataError,
    OptionNotFoundError,
    ProtocolNotFoundError,
)
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..backoff import Backoff
from ..colour import guess_matrix
from ..errors import SourceError, VelaturaError
from ..frame import Colour, Frame, VideoInfo
from ..media.demux import choose_stream
from ..media.live_audio import LiveAudio
from ..media.pixel_format import colour_of, is_mirrored, read_planes
from ..media.pyav import open_input, ratio
from .base import FASTEST
from .kind import CONNECTION, Address
from .live import TIME_BASE, LiveSource, Seldom

AGAIN = 1.0
"""Seconds of deviation above which a sender's clock counts as a new one: it has restarted or jumped."""
LATE = 0.02
"""Seconds that a paced stream may be late before its clock is reset."""
AHEAD = 40.0
"""Seconds that a paced stream may be ahead: a playlist holds less."""
_SLEW = 2e-4
"""Seconds per second by which the clocks may drift apart: twice what bad crystals do."""


class Timeline:
    """Maps a sender's times to `time.monotonic`, and keeps the distances between them where possible.

    The packet that came fastest counts as having come without delay, so that jitter on the way does not
    reach the times: the offset falls at once and rises slowly, as a clock drifts.
    """

    def __init__(self, *, paced: bool) -> None:
        """`paced`: pictures that arrive in bursts (HLS) are due at their own times after the first,
        never before."""
        self._paced = paced
        self._offset: float | None = None
        self._before = 0.0

    def place(self, seconds: float | None, arrived: float) -> float:
        """Returns the moment of `time.monotonic` for a picture of time `seconds`, or None, that came at
        `arrived`."""
        if seconds is None:
            return arrived
        way = arrived - seconds
        offset, passed = self._offset, max(arrived - self._before, 0.0)
        self._before = arrived
        if offset is None:
            offset = way
        elif self._paced:
            if way > offset + LATE or offset - way > AHEAD:
                offset = way
        elif way < offset or way > offset + AGAIN:
            offset = way
        else:
            offset = min(offset + passed * _SLEW, way)
        self._offset = offset
        return seconds + offset

    def of(self, seconds: float) -> float | None:
        """Returns the moment for another stream of the same sender; None before the first picture."""
        return None if self._offset is None else seconds + self._offset

    def reset(self) -> None:
        """Forget the clock of the last connection."""
        self._offset = None


LONGEST = 1.0
"""Seconds that the oldest packet of a live stream may wait before packets are skipped."""
MOST = 600
"""Packets of a paced stream that wait at most; its sender waits for more room."""

Item = tuple["Packet[Any]", float]
"""A packet, and its arrival in seconds of `time.monotonic`."""


class Backlog:
    """A bounded queue of packets: a live stream skips packets, a paced one lets its sender wait."""

    def __init__(self, *, paced: bool) -> None:
        self.left_out = 0
        self._paced = paced
        self._items: deque[Item] = deque()
        self._until_key = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, packet: "Packet[Any]") -> None:
        """Add a packet of the video stream."""
        now = time.monotonic()
        with self._changed:
            if self._paced:
                self._changed.wait_for(lambda: len(self._items) < MOST or self._closed)
            elif self._items and now - self._items[0][1] > LONGEST:
                self._catch_up()
            if self._until_key and not packet.is_keyframe:
                self.left_out += 1
                return
            self._until_key = False
            self._items.append((packet, now))
            self._changed.notify_all()

    def _catch_up(self) -> None:
        """Skip to the newest key frame; where none waits, to the next one that comes."""
        keys = [index for index, (packet, _) in enumerate(self._items) if packet.is_keyframe]
        # The oldest is the one that waits too long: to begin there again would change nothing.
        start = keys[-1] if keys and keys[-1] > 0 else len(self._items)
        self._until_key = start == len(self._items)
        self.left_out += start
        for _ in range(start):
            self._items.popleft()

    def take(self) -> Item | None:
        """Returns the oldest packet; None when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self, *, drop: bool) -> None:
        """End the queue: waiting packets are still given out unless `drop` is set."""
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()


LAG = 0.25
"""Seconds that a packet may wait before non-reference pictures are no longer decoded."""
_HOPELESS = 50
"""Packets in a row that give nothing but errors before the connection is made again."""
_MEASURED = 8
"""Pictures over which a frame rate is measured where the stream states none."""

_FATAL = (
    DemuxerNotFoundError,
    HTTPForbiddenError,
    HTTPUnauthorizedError,
    OptionNotFoundError,
    ProtocolNotFoundError,
)
"""Errors that a second attempt does not cure."""


class NothingThereError(SourceError):
    """The thing to be captured does not exist, or no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The arguments with which FFmpeg opens a source."""

    url: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    moved: Callable[[], bool] | None = None
    """Called once a second: returns whether the captured area no longer has the size that was
    opened."""


class StreamSource(LiveSource):
    """Reads one sender: a connection that breaks off is opened again.

    One thread receives, so that no packet waits in the sender; another decodes the newest.
    """

    def __init__(self, address: Address, *, find: Callable[[], Target], paced: bool = False) -> None:
        """`find` is called before each attempt. Raises SourceError when no picture comes in time."""
        super().__init__(address.uri, keep=paced)
        self._find = find
        self._paced = paced
        self._patience = address.number("patience", 10.0)
        self._stall = address.number("stall", 5.0)
        self._backoff = Backoff(address.retries())
        self._timeline = Timeline(paced=paced)
        self._arrivals: dict[int | None, float] = {}
        self._seen = 0
        self._times: list[float] = []
        self._broken: VelaturaError | None = None
        self._in_a_row = self._turn = 0
        self._heard = 0.0
        self._size: tuple[int, int, str] | None = None
        self._tell_damage, self._tell_lag = Seldom(), Seldom()
        self._start(self._patience)

    def _work(self) -> None:
        while not self._closing.is_set():
            came = self._count
            try:
                ended = self._attend(self._find())
            except _FATAL as error:
                raise self._refused(error) from error
            except FFmpegError as error:
                self._reason = "nothing came" if isinstance(error, ExitError) else error.strerror or ""
            except NothingThereError as error:
                if not self._begun.is_set():
                    raise SourceError(str(error)) from error
                self._reason = str(error)
            except SourceError as error:
                if self._broken is not None:
                    raise
                self._reason = str(error)
            else:
                if ended:
                    return
            if self._count > came:
                self._backoff.reset()
            reason = self._reason
            self._wait_again(f"{self.uri}: {reason}", f"{self.uri} is given up: {reason}")
            self._timeline.reset()

    def _refused(self, error: FFmpegError) -> SourceError:
        scheme = self.uri.partition(":")[0].upper()
        if isinstance(error, ProtocolNotFoundError):
            return SourceError(
                f"{self.uri}: this build of PyAV has no {scheme}; send the stream by another protocol, "
                "or build PyAV against an FFmpeg that has it"
            )
        return SourceError(f"{self.uri} cannot be opened: {error.strerror}")

    def _attend(self, target: Target) -> bool:
        """Run `_receive` in a thread that is abandoned when it hangs.

        FFmpeg's own time limits do not hold where packets come that PyAV passes over without a word.
        """
        outcome: list[bool | BaseException] = []
        done = threading.Event()
        self._turn += 1
        turn = self._turn
        self._heard = time.monotonic()

        def follow() -> None:
            try:
                outcome.append(self._receive(target, turn))
            except BaseException as error:
                outcome.append(error)
            finally:
                done.set()

        threading.Thread(target=follow, name=f"velatura-receive-{self.uri}", daemon=True).start()
        while not done.wait(0.5):
            if self._closing.is_set():
                return True
            if self._begun.is_set() and time.monotonic() - self._heard > 3 * self._stall + 1:
                self._turn += 1
                self._reason = "nothing came, and the connection hangs"
                return False
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _receive(self, target: Target, turn: int) -> bool:
        """Follow one connection to its end; returns True where the stream itself has ended."""
        patience = self._stall if self._begun.is_set() else self._patience
        # What a container holds is freed in the thread that reads it: no other may close it.
        with open_input(
            target.url,
            format=target.format,
            options=dict(target.options),
            timeout=(patience, self._stall),
        ) as container:
            if self._closing.is_set():
                return True
            stream = choose_stream(container, self.uri)
            sound = next((s for s in container.streams.audio if s.codec_context), None)
            if sound is not None and self.audio is None and not self._begun.is_set():
                self.audio = LiveAudio(sound.codec_context.name)
            rate = ratio(stream.average_rate)
            # Some state the ticks of their clock for it.
            self._rate = rate if rate is not None and 1 <= rate <= FASTEST else None
            self._aspect = ratio(stream.sample_aspect_ratio) or Fraction(1)
            self._codec = stream.codec_context.name
            backlog = Backlog(paced=self._paced)
            decoder = threading.Thread(
                target=self._decode, args=(stream, backlog), name=f"velatura-decode-{self.uri}",
                daemon=True,
            )  # fmt: skip
            decoder.start()
            whole = False
            try:
                whole = self._demux(container, stream, backlog, target, turn)
            finally:
                backlog.close(drop=not whole)
                decoder.join()
                if self._broken is not None:
                    raise self._broken
            # A broadcast has no length: its end is a sender that went away.
            return self._closing.is_set() or (whole and bool(container.duration))

    def _demux(
        self,
        container: InputContainer,
        stream: VideoStream,
        backlog: Backlog,
        target: Target,
        turn: int,
    ) -> bool:
        """Hand packets on until the connection breaks; returns True when it ended in good order."""
        look = time.monotonic() + 1
        last = self._count, time.monotonic()
        wrong = 0
        while not self._closing.is_set():
            try:
                for packet in container.demux():
                    wrong = 0
                    now = time.monotonic()
                    if self._closing.is_set() or self._broken is not None or turn != self._turn:
                        return False
                    self._heard = now
                    if packet.stream is stream:
                        backlog.put(packet)
                    elif self.audio is not None and packet.stream.type == "audio":
                        self._hear_packet(packet)
                    if self._count != last[0] or self._paced:
                        last = self._count, now
                    if now - last[1] > self._stall or self._in_a_row > _HOPELESS:
                        self._reason = "what comes cannot be decoded"
                        return False
                    if target.moved is not None and now > look:
                        look = now + 1
                        if target.moved():
                            self._reason = "it has another size now"
                            return False
                self._reason = "the sender has ended the stream"
                return True
            except InvalidDataError as error:
                # Rubbish between packets: the next ones may be whole.
                wrong += 1
                self._damaged(error.strerror or "")
                if wrong > 3:
                    raise
        return False

    def _decode(self, stream: VideoStream, backlog: Backlog) -> None:
        context = stream.codec_context
        # Threads that decode a frame each would hold as many frames back.
        stream.thread_type = "SLICE"
        if context.codec.name == "libdav1d":
            context.flags |= Flags.low_delay
        self._in_a_row = 0
        try:
            while (item := backlog.take()) is not None:
                packet, arrived = item
                late = time.monotonic() - arrived > LAG and not self._paced
                context.skip_frame = "NONREF" if late else "DEFAULT"
                if backlog.left_out and self._tell_lag():
                    self._say(
                        f"{self.uri} comes faster than it can be decoded: "
                        f"{backlog.left_out} pictures were left out so far"
                    )
                self._decode_packet(packet, arrived)
                if self._closing.is_set():
                    return
        except VelaturaError as error:
            self._broken = error
        except Exception as error:
            self._broken = SourceError(f"{self.uri} failed: {type(error).__name__}: {error}")

    def _decode_packet(self, packet: "Packet[Any]", arrived: float) -> None:
        if len(self._arrivals) > 100:
            self._arrivals.clear()
        self._arrivals[packet.pts] = arrived
        try:
            images = packet.decode()
        except FFmpegError as error:
            self._in_a_row += 1
            self._damaged(f"a picture cannot be decoded: {error.strerror}")
            return
        for image in images:
            self._in_a_row = 0
            if image.is_corrupt:
                self._damaged("a picture arrived damaged")
            self._give(image, self._arrivals.pop(image.pts, arrived))

    def _damaged(self, reason: str) -> None:
        self._errors += 1
        self._reason = reason
        if self._begun.is_set() and self._tell_damage():
            self._say(f"{self.uri}: {reason} ({self._errors} times so far)")

    def _give(self, image: VideoFrame, arrived: float) -> None:
        base = ratio(image.time_base)
        own = None if image.pts is None or base is None else float(image.pts * base)
        moment = self._timeline.place(own, arrived)
        if self._paced:
            # While it is full of what is not due yet, nothing more is received.
            self._heard = time.monotonic()
            if self._pause(moment - time.monotonic()):
                return
            arrived = moment
        planes, alpha, layout = read_planes(image, mirrored=is_mirrored(image))
        if not self._begun.is_set() and not self._describe(image, own):
            return
        size = (image.width, image.height, image.format.name)
        if self._size is not None and size != self._size:
            self._say(f"{self.uri}: pictures are now {size[0]}x{size[1]} {size[2]}")
        self._size = size
        self._put(
            Frame(
                planes=planes,
                format=layout.format,
                pts=self._ticks(moment),
                time_base=TIME_BASE,
                colour=colour_of(image, layout, _usual(image)),
                aspect=self.info.aspect,
                rotation=image.rotation % 360,
                index=self._count,
                captured=arrived,
                alpha=alpha,
            )
        )

    def _describe(self, image: VideoFrame, own: float | None) -> bool:
        """Describe the stream; returns False as long as its rate must still be measured."""
        self._seen += 1
        if own is not None:
            self._times.append(own)
        rate = self._rate or _measured(self._times)
        if rate is None and self._seen < _MEASURED:
            return False
        layout = read_planes(image)[2]
        notes: list[str] = []
        if image.interlaced_frame:
            notes.append("the stream is interlaced: its pictures are taken as they are")
        self.info = VideoInfo(
            width=image.width,
            height=image.height,
            format=layout.format,
            rate=rate or Fraction(25),
            time_base=TIME_BASE,
            colour=colour_of(image, layout, _usual(image)),
            aspect=self._aspect,
            rotation=image.rotation % 360,
            alpha=layout.alpha,
            interlaced=image.interlaced_frame,
            codec=self._codec,
            audio=(self.audio.codec,) if self.audio is not None else (),
            notes=tuple(notes),
        )
        self._opened()
        return True

    def _hear_packet(self, packet: "Packet[Any]") -> None:
        audio = self.audio
        if audio is None or not audio.listening or not packet.size or packet.pts is None:
            return
        moment = self._timeline.of(float(packet.pts * packet.time_base))
        if moment is None or self._origin is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError as error:
            self._damaged(f"sound cannot be decoded: {error.strerror}")
            return
        for frame in frames:
            audio.put(moment - self._origin, frame)
            moment += frame.samples / frame.sample_rate


def _usual(image: VideoFrame) -> Colour:
    return Colour(matrix=guess_matrix(image.height), range="limited")


def _measured(times: list[float]) -> Fraction | None:
    """Returns the rate by the median distance of pictures."""
    if len(times) < _MEASURED:
        return None
    ordered = sorted(times)
    steps = sorted(b - a for a, b in pairwise(ordered))
    step = steps[len(steps) // 2]
    return Fraction(1 / step).limit_denominator(1001) if step > 1 / FASTEST else None


OPTIONS = ("format", "transport", *CONNECTION)
"""The keys that an address may set."""


def open_live(address: Address, *, options: Mapping[str, str], keep: bool) -> LiveSource:
    """Open a network stream; `options` of FFmpeg go before those chosen here."""
    del keep  # a sender waits for nobody
    url = address.place
    scheme = url.partition(":")[0].lower()
    # What joins a stream in its middle has little to look at, and must not take long over it. Not
    # `nobuffer`, which throws away the pictures looked at, and with them the only one to begin with.
    chosen = {"analyzeduration": "1000000", "probesize": "1000000"}
    format = address.options.get("format")
    if format is None and scheme in ("udp", "srt", "tcp", "rist"):
        # Told, not probed: the first bytes may be anything.
        format = "mpegts"
    if format == "mpegts":
        # A sender that restarts may number its streams otherwise.
        chosen["merge_pmt_versions"] = "1"
    if scheme in ("rtsp", "rtsps"):
        transport = address.choice("transport", ("tcp", "udp", "udp_multicast", "http")) or "tcp"
        chosen["rtsp_transport"] = transport
        if options.get("rtsp_flags") == "listen":
            # FFmpeg's own default is refused by FFmpeg's own TCP.
            chosen["listen_timeout"] = "60"
        if transport != "tcp":
            chosen["reorder_queue_size"] = "16"
    elif "transport" in address.options:
        raise SourceError(f"{address.uri}: transport is an option of RTSP")
    target = Target(url=url, format=format, options=chosen | dict(options))
    return StreamSource(
        address,
        find=lambda: target,
        # A playlist's pictures come in heaps.
        paced=scheme in ("http", "https"),
    )
