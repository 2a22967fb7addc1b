"""Session: one page's connection, from its first message to its last."""

import asyncio
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from ..errors import SinkError, VelaturaError
from .panel import Message, Panel, RubbishError, parse
from .pictures import Feed
from .shared import Shared, points, state, to_json

if TYPE_CHECKING:
    from .webrtc import Peer

PATIENCE = 20
"""Invalid messages after which a client is disconnected."""
REPLIES = 32
"""Answers that may wait for a client that does not read them."""
OFFER = 15.0
"""Seconds that an answer to an offer may take."""


class Session:
    """Reads commands and executes them; writes states, answers and pictures, and holds one of each at
    most for a page that is slow."""

    def __init__(self, socket: web.WebSocketResponse, shared: Shared, address: str) -> None:
        """`address` is the page's."""
        self._socket, self._shared, self._address = socket, shared, address
        self._replies: deque[str] = deque()
        self._state: str | None = None
        self._due = asyncio.Event()
        self._feed: Feed | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._peer: Peer | None = None
        self._rubbish = 0

    async def run(self) -> None:
        """Run until the page leaves or is disconnected."""
        hello = await asyncio.to_thread(state, self._shared)
        rtc = self._shared.peers is not None
        self._reply(hello | {"type": "hello", "rtc": rtc, "points": points(self._shared)})
        writing = asyncio.create_task(self._write())
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    await self._hear(message.data)
                elif message.type is WSMsgType.BINARY:
                    self._refuse("a message must be text")
                if self._rubbish >= PATIENCE or len(self._replies) > REPLIES:
                    break
        finally:
            writing.cancel()
            await self._stop_feeding()
            await self._hang_up()
            await asyncio.gather(writing, return_exceptions=True)
        if not self._socket.closed:
            # The writer is gone, and no buffer holds a close back for a page that does not read.
            await self.leave(WSCloseCode.POLICY_VIOLATION, "too many messages that are none")

    async def leave(self, code: int, reason: str) -> None:
        """Send the reason, and close; `run` then ends."""
        await self._socket.close(code=code, message=reason.encode())

    def show(self, text: str) -> None:
        """Send a state, in place of one that still waits."""
        self._state = text
        self._due.set()

    def _reply(self, message: dict[str, Any]) -> None:
        self._replies.append(to_json(message))
        self._due.set()

    def _refuse(self, reason: str) -> None:
        self._rubbish += 1
        self._reply({"type": "error", "text": reason})

    async def _write(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._replies:
                await self._socket.send_str(self._replies.popleft())
            text, self._state = self._state, None
            if text is not None:
                await self._socket.send_str(text)

    async def _hear(self, text: str) -> None:
        try:
            message = parse(text)
        except RubbishError as error:
            self._refuse(str(error))
            return
        try:
            await self._do(message)
        except VelaturaError as error:
            self._reply({"type": "error", "text": str(error)})
        except Exception as error:
            # Errors of a switch belong to the run; the page and the others go on.
            name = type(error).__name__
            self._reply({"type": "error", "text": f"{message.type} failed: {name}: {error}"})

    async def _do(self, message: Message) -> None:
        if message.type == "offer":
            await self._connect(message.value)
        elif message.type == "key":
            if self._peer is not None:
                self._peer.broadcast.want_key()
        elif message.type == "mjpeg":
            await self._stop_feeding()
            if message.value:
                self._feed = Feed(self._shared.jpegs)
                self._feeding = asyncio.create_task(self._run_feed(self._feed))
                await self._hang_up()
        elif message.type == "shown":
            if self._feed is not None:
                self._feed.shown(message.value)
        else:
            await self._switch(message)

    async def _switch(self, message: Message) -> None:
        panel = self._shared.panel()
        if panel is None:
            raise SinkError("the run has not begun yet")
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(self._shared.switches, apply, panel, message)
        if message.type == "record":
            path = None if done is None else str(done)
            self._reply({"type": "recorded", "on": message.value, "path": path})

    async def _connect(self, offer: str) -> None:
        peers = self._shared.peers
        if peers is None:
            raise SinkError("this view has no WebRTC: pip install 'velatura[live]'")
        await self._hang_up()
        try:
            async with asyncio.timeout(OFFER):
                self._peer = await peers.connect(offer, self._address)
        except TimeoutError:
            raise SinkError("WebRTC took too long") from None
        self._reply({"type": "answer", "sdp": self._peer.answer, "codec": self._peer.codec})

    async def _hang_up(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    async def _run_feed(self, feed: Feed) -> None:
        try:
            while True:
                await self._socket.send_bytes(await feed.next())
        except ConnectionError:
            return
        except Exception as error:
            self._reply({"type": "error", "text": f"no picture: {type(error).__name__}: {error}"})

    async def _stop_feeding(self) -> None:
        task, self._feeding, self._feed = self._feeding, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def apply(panel: Panel, message: Message) -> Path | None:
    """Executes a page's command; returns the path of the recording, if it is about one. Raises the
    panel's errors."""
    if message.type == "off":
        panel.off = message.value
    elif message.type == "strength":
        panel.strength = message.value
    elif message.type == "split":
        panel.split = message.value
    elif message.type == "models":
        unknown = [name for name in message.value if name not in panel.available]
        if unknown:
            raise SinkError(
                f"no model {', '.join(unknown)}; there are: {', '.join(panel.available) or 'none'}"
            )
        panel.swap(message.value)
    elif message.type == "record":
        return panel.record(message.value)
    return None
