"""The view's web server: a few fixed files, and a socket for each page."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from aiohttp import WSCloseCode, web

from ..errors import VelaturaError
from ..frame import Frame
from .panel import LIMIT, Panel
from .pictures import Jpegs, Newest, png
from .session import Session
from .shared import History, Shared, state, to_json
from .site import PACKAGE, Site, read_page

PAGES = 8
"""Pages that may be open at a time."""
TICK = 0.25
"""Seconds between two state messages."""
HEARTBEAT = 10.0
"""Seconds between two checks that a page is still there."""

FILES = {
    "/": ("index.html", "text/html"),
    "/theme.css": ("theme.css", "text/css"),
    "/style.css": ("style.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All files that are served."""


class Server(Site):
    """Serves until it is closed. Raises SinkError when it cannot listen."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str,
        panel: Callable[[], Panel | None],
        ladder: Callable[[], Sequence[tuple[str, float]]],
        history: History,
        deadline: float,
        longest: int,
        rtc: bool,
    ) -> None:
        """`port` 0 takes one that is free; `rtc` without aiortc raises ImportError."""
        super().__init__(host, port, token=token, page=read_page(PACKAGE, FILES), name="velatura-view")
        self._sessions: set[Session] = set()
        self._snapshots = asyncio.Lock()
        self._newest = Newest(self._loop)
        self._pictures = ThreadPoolExecutor(2, thread_name_prefix="velatura-view-picture")
        self._switches = ThreadPoolExecutor(1, thread_name_prefix="velatura-view-switch")
        peers = None
        if rtc:
            from .webrtc import Peers

            peers = Peers(self._newest, self._pictures, longest=longest)
        self._shared = Shared(
            panel=panel,
            ladder=ladder,
            deadline=deadline,
            newest=self._newest,
            history=history,
            jpegs=Jpegs(self._newest, self._pictures, longest=longest),
            peers=peers,
            pictures=self._pictures,
            switches=self._switches,
        )
        self._ticking: asyncio.Task[None] | None = None
        self._open()

    def put(self, frame: Frame) -> None:
        """Set the newest frame, from any thread; never waits."""
        self._newest.put(frame)

    @property
    def pages(self) -> int:
        """The number of open pages."""
        return len(self._sessions)

    def _route(self, router: web.UrlDispatcher) -> None:
        router.add_get("/snapshot.png", self._snapshot)
        router.add_get("/socket", self._socket)

    async def _begin(self) -> None:
        self._ticking = asyncio.create_task(self._tick())

    async def _end(self) -> None:
        assert self._ticking is not None
        self._ticking.cancel()
        going = [
            session.leave(WSCloseCode.GOING_AWAY, "the run has ended") for session in self._sessions
        ]
        await asyncio.gather(self._ticking, *going, return_exceptions=True)

    def _release(self) -> None:
        self._pictures.shutdown(wait=False, cancel_futures=True)
        self._switches.shutdown(wait=False, cancel_futures=True)

    async def _snapshot(self, _: web.Request) -> web.Response:
        panel = self._shared.panel()
        loop = asyncio.get_running_loop()
        async with self._snapshots:
            try:
                frame = None if panel is None else panel.snapshot()
                if frame is None:
                    raise web.HTTPServiceUnavailable(text="There is no picture yet.")
                data = await loop.run_in_executor(self._pictures, png, frame)
            except VelaturaError as error:
                raise web.HTTPServiceUnavailable(text=str(error)) from error
        name = f"velatura-{datetime.now():%Y%m%d-%H%M%S}.png"
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=data, content_type="image/png", headers=disposition)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT, max_msg_size=LIMIT, compress=False, timeout=1.0
        )
        if len(self._sessions) >= PAGES:
            # A page is told nothing of a refused handshake but that it failed: close with the reason.
            await socket.prepare(request)
            reason = f"{PAGES} pages are open already: close one"
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=reason.encode())
            return socket
        session = Session(socket, self._shared, request.remote or "127.0.0.1")
        self._sessions.add(session)
        try:
            await socket.prepare(request)
            await session.run()
        except ConnectionError:
            # The page has gone: there is nobody to notify.
            return socket
        finally:
            self._sessions.discard(session)
        return socket

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            if not self._sessions:
                continue
            # Not in the switches' thread: figures go on while a recording is being finished.
            found = await asyncio.to_thread(state, self._shared)
            text = to_json(found | {"pages": len(self._sessions)})
            for session in tuple(self._sessions):
                session.show(text)
