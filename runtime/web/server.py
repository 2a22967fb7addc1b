"""The view's web server: a thread with an event loop, a few fixed files, and a socket for each page."""

import asyncio
import errno
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.resources import files
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler

from ..errors import SinkError, VelaturaError
from ..frame import Frame
from ..worker import DaemonThread
from .panel import LIMIT, Panel
from .pictures import Jpegs, Newest, png
from .session import Session
from .shared import History, Shared, state, to_json

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Server": "velatura",
}


def is_loopback(host: str) -> bool:
    """Returns whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses requests that do not come from this view's own page, or lack its token: a machine may
    have several users, and any of them can reach its loopback address."""

    def __init__(self, host: str, token: str) -> None:
        self._names = {"localhost", host.lower(), *_names_of_this_machine()}
        self._token = token
        # Nothing derived from the token: a cookie is valid for one run only. A page that is still open
        # connects to the next user of its port, and sends it the cookie.
        self._session = secrets.token_urlsafe(32)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Returns 403 for a wrong host or origin, 401 without the token, else the answer of
        `handler`."""
        self._check_host(request)
        self._check_origin(request)
        fresh = self._check_token(request)
        response = await handler(request)
        if fresh and not response.prepared:
            response.set_cookie(
                self._cookie(request), self._session, httponly=True, samesite="Strict", path="/"
            )
        return response

    def _check_host(self, request: web.Request) -> None:
        # DNS rebinding gives a stranger's name this machine's address: the name gives it away. An
        # address in place of a name cannot be rebound.
        name = _hostname(request.headers.get("Host", ""))
        if name in self._names:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise web.HTTPForbidden(text="This is not the name of the view's machine.") from None

    def _check_origin(self, request: web.Request) -> None:
        host = request.headers.get("Host", "").lower()
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise web.HTTPForbidden(text="Another site may not use this view.")
        # A link from elsewhere may open the page; nothing else may be loaded from elsewhere.
        opening = request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in ("same-origin", "none") and not opening:
            raise web.HTTPForbidden(text="Another site may not use this view.")

    def _check_token(self, request: web.Request) -> bool:
        """Returns whether the token was in the address, so that a cookie is to be set."""
        if _same(request.cookies.get(self._cookie(request)), self._session):
            return False
        if _same(request.query.get("token"), self._token):
            return True
        raise web.HTTPUnauthorized(
            text="This view needs its token: open the whole address that velatura has shown."
        )

    def _cookie(self, request: web.Request) -> str:
        # Cookies do not tell ports apart: two views on one machine need two names.
        sock = request.transport.get_extra_info("sockname") if request.transport else None
        return f"velatura_{sock[1] if sock else 0}"


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _names_of_this_machine() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"} if name else set()


PAGES = 8
"""Pages that may be open at a time."""
TICK = 0.25
"""Seconds between two state messages."""
HEARTBEAT = 10.0
"""Seconds between two checks that a page is still there."""
PATIENCE = 5.0
"""Seconds that `close` waits for the server."""

FILES = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All files that are served; they are read once, and no address is ever made into a path."""


class Server:
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
        self.port = port
        self._host = host
        self._guard = Guard(host, token)
        folder = files(__name__.rpartition(".")[0]) / "page"
        self._files = {
            path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in FILES.items()
        }
        self._sessions: set[Session] = set()
        self._snapshots = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
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
        self._ending = asyncio.Event()
        self._thread = DaemonThread(self._run, "velatura-view")
        self._listening = threading.Event()
        self._failure: Exception | None = None
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            self._thread.wait()
            raise _refusal(self._failure, host, port) from self._failure

    def put(self, frame: Frame) -> None:
        """Set the newest frame, from any thread; never waits."""
        self._newest.put(frame)

    @property
    def pages(self) -> int:
        """The number of open pages."""
        return len(self._sessions)

    def close(self) -> None:
        """Close the pages and the port."""
        if self._thread.at_work:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.wait(PATIENCE)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except Exception as error:
                self._failure = error
            finally:
                self._listening.set()
                self._pictures.shutdown(wait=False, cancel_futures=True)
                self._switches.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        application = web.Application(middlewares=[self._guard.middleware])
        for path in self._files:
            application.router.add_get(path, self._file)
        application.router.add_get("/snapshot.png", self._snapshot)
        application.router.add_get("/socket", self._socket)
        application.on_response_prepare.append(_with_headers)
        runner = web.AppRunner(
            application, access_log=None, logger=_logger(), handle_signals=False,
            shutdown_timeout=1.0, max_line_size=4096, max_field_size=4096,
        )  # fmt: skip
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            self._listening.set()
            ticking = asyncio.create_task(self._tick())
            await self._ending.wait()
            ticking.cancel()
            going = [
                session.leave(WSCloseCode.GOING_AWAY, "the run has ended") for session in self._sessions
            ]
            await asyncio.gather(ticking, *going, return_exceptions=True)
        finally:
            await runner.cleanup()

    async def _file(self, request: web.Request) -> web.Response:
        data, kind = self._files[request.path]
        return web.Response(body=data, content_type=kind, charset="utf-8")

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


def _logger() -> logging.Logger:
    """Returns a logger that is silent by default: errors about invalid requests are for those who have
    set up a log, not for the terminal."""
    logger = logging.getLogger("velatura.view")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


async def _with_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _refusal(error: Exception, host: str, port: int) -> SinkError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return SinkError(f"port {port} of {host} is taken: choose another, or 0 for any that is free")
    if number == errno.EACCES:
        return SinkError(f"port {port} may not be used by this account: choose one above 1023")
    return SinkError(f"the browser view cannot listen at {host}, port {port}: {error}")
