"""The live picture by WebRTC: encoded once for each codec, whatever the number of pages."""

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av.packet import Packet

from ..frame import Frame
from .pictures import CLOCK, Codec, Coder, Newest, shown

WAITING = 6
"""Encoded frames that may wait for a page's connection; when there are more they are dropped until a
key frame."""
PAUSE = 0.5
"""Seconds at least between two key frames that pages request, and between checks for such a request."""


class Track(MediaStreamTrack):
    """The video track of one page."""

    kind = "video"

    def __init__(self, lost: Callable[[], None]) -> None:
        """`lost` is called when frames were dropped, and only a key frame can follow."""
        super().__init__()
        self._packets = asyncio.Queue["Packet[Any]"](WAITING)
        self._lost = lost
        self._broken = True

    def put(self, packet: "Packet[Any]", *, key: bool) -> None:
        """Add a frame; never waits."""
        if self._broken and not key:
            return
        self._broken = self._packets.full()
        if not self._broken:
            self._packets.put_nowait(packet)
            return
        while not self._packets.empty():
            self._packets.get_nowait()
        self._lost()

    async def recv(self) -> "Packet[Any]":
        """Returns the next encoded frame."""
        if self.readyState != "live":
            raise MediaStreamError
        return await self._packets.get()


class Broadcast:
    """Encodes the newest frame while any page watches in this codec."""

    def __init__(self, codec: Codec, newest: Newest, executor: Executor, longest: int) -> None:
        """`longest` is the most pixels of a side."""
        self._codec: Codec = codec
        self._newest, self._executor, self._longest = newest, executor, longest
        self._tracks: set[Track] = set()
        self._task: asyncio.Task[None] | None = None
        self._coder: Coder | None = None
        self._wanted, self._keyed, self._pts = True, 0.0, 0

    def join(self) -> Track:
        """Returns a track for one more page."""
        track = Track(self.want_key)
        self._tracks.add(track)
        self.want_key()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return track

    async def leave(self, track: Track) -> None:
        """Remove a page's track; the encoder pauses after the last."""
        track.stop()
        self._tracks.discard(track)
        if not self._tracks and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def want_key(self) -> None:
        """Request a key frame soon, since a page cannot continue from the last frame."""
        self._wanted = True

    async def _run(self) -> None:
        loop, serial, frame = asyncio.get_running_loop(), 0, None
        while True:
            try:
                serial, frame = await asyncio.wait_for(self._newest.after(serial), PAUSE)
            except TimeoutError:
                # The source may stand still, but a new page needs its last picture.
                if frame is None or not self._wanted:
                    continue
            now = time.monotonic()
            key = self._wanted and now - self._keyed >= PAUSE
            if key:
                self._wanted, self._keyed = False, now
            data, whole = await loop.run_in_executor(self._executor, self._encode, frame, now, key)
            packet = cast("Packet[Any]", Packet(data))
            packet.pts, packet.time_base = self._pts, Fraction(1, CLOCK)
            for track in tuple(self._tracks):
                track.put(packet, key=whole)

    def _encode(self, frame: Frame, now: float, key: bool) -> tuple[bytes, bool]:
        frame = shown(frame, self._longest)
        if self._coder is None or self._coder.size != (frame.width, frame.height):
            self._coder = Coder(self._codec, frame.width, frame.height)
        self._pts = max(self._pts + 1, int(now * CLOCK))
        return self._coder.encode(frame, pts=self._pts, key=key)


@dataclass(frozen=True, slots=True)
class Peer:
    """A page's WebRTC connection."""

    codec: Codec
    answer: str
    """The session description that the page waits for."""
    broadcast: Broadcast
    track: Track
    connection: RTCPeerConnection

    async def close(self) -> None:
        """End the connection."""
        await self.broadcast.leave(self.track)
        await self.connection.close()


class Peers:
    """Answers offers. Media go from a UDP port of their own, to the page that made the offer only:
    WebRTC checks a password that the page has from its session description, and encrypts."""

    def __init__(self, newest: Newest, executor: Executor, *, longest: int) -> None:
        self._broadcasts: dict[Codec, Broadcast] = {
            "H264": Broadcast("H264", newest, executor, longest),
            "VP8": Broadcast("VP8", newest, executor, longest),
        }

    async def connect(self, offer: str, address: str) -> Peer:
        """Answers a page at `address` and returns its connection. Raises aiortc's errors for an invalid
        offer."""
        codec: Codec = "H264" if re.search(r"^a=rtpmap:\d+ H264/", offer, re.MULTILINE) else "VP8"
        broadcast = self._broadcasts[codec]
        # Without a list of its own, aiortc asks a server on the internet for this machine's address.
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        track = broadcast.join()
        try:
            sender = connection.addTransceiver(track, direction="sendonly")
            wanted = f"video/{codec}"
            codecs = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType == wanted]
            sender.setCodecPreferences(codecs)
            description = RTCSessionDescription(sdp=_with_address(offer, address), type="offer")
            await connection.setRemoteDescription(description)
            await connection.setLocalDescription(await connection.createAnswer())
        except BaseException:
            await broadcast.leave(track)
            await connection.close()
            raise
        return Peer(codec, connection.localDescription.sdp, broadcast, track, connection)


def _with_address(offer: str, address: str) -> str:
    """Returns the offer with the page's address in place of the `.local` names that hide it from web
    sites.

    They would be asked for all over the network, and the page's address is known already.
    """
    pattern = r"^(a=candidate:\S+ \d+ \S+ \d+ )[^\s]+\.local "
    return re.sub(pattern, lambda found: f"{found[1]}{address} ", offer, flags=re.MULTILINE)
