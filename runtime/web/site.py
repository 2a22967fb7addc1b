"""Site: a page's own web server on this machine: a few fixed files and routes, all behind a token."""

import asyncio
import errno
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Mapping
from importlib.resources import files
from urllib.parse import quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from ..errors import SinkError
from ..worker import DaemonThread

TOKEN = 16
"""Characters that a token needs at least."""
PACKAGE = __name__.rpartition(".")[0]
"""The package with the live page and what pages share."""
PATIENCE = 5.0
"""Seconds that `close` waits for the server."""

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


def checked_token(host: str, token: str | None) -> str:
    """Returns the token, a random one where none is given. Raises SinkError for one that is soon
    guessed, and where other machines can reach a page that has none."""
    if token is None:
        if not is_loopback(host):
            raise SinkError(
                f"a view at {host} can be reached from other machines: give it a token, or leave "
                "it at 127.0.0.1"
            )
        return secrets.token_urlsafe(TOKEN)
    if len(token) < TOKEN:
        raise SinkError(f"a token of {len(token)} characters is soon guessed: give {TOKEN} or more")
    return token


Page = Mapping[str, tuple[bytes, str]]
"""Contents and media type of each file of a page, by the path of its address."""


def read_page(package: str, names: Mapping[str, tuple[str, str]]) -> Page:
    """Returns the files of the folder `page` in a package, by their paths; read once, so that no
    address is ever made into a path."""
    folder = files(package) / "page"
    return {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in names.items()}


class Site:
    """Serves until it is closed: the files of a page, and the routes of the class that derives from
    it, in a thread with an event loop."""

    def __init__(self, host: str, port: int, *, token: str, page: Page, name: str) -> None:
        """`port` 0 takes one that is free; `name` is the thread's. `_open` begins to serve."""
        self.port = port
        self.host = "127.0.0.1" if host == "localhost" else host
        self._token = token
        self._guard = Guard(self.host, token)
        self._page = page
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._thread = DaemonThread(self._run, name)
        self._listening = threading.Event()
        self._failure: Exception | None = None

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token: keep it secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={quote(self._token, safe='')}"

    def close(self) -> None:
        """Close the pages and the port."""
        if self._thread.at_work:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.wait(PATIENCE)

    def _open(self) -> None:
        """Begin to serve. Raises SinkError when it cannot listen."""
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            self._thread.wait()
            raise _refusal(self._failure, self.host, self.port) from self._failure

    def _route(self, router: web.UrlDispatcher) -> None:
        """Add routes beside those of the files."""
        del router

    async def _begin(self) -> None:
        """Begin what goes on while pages are served."""

    async def _end(self) -> None:
        """End it, while pages can still be told."""

    def _release(self) -> None:
        """Release what the site holds; the loop has ended, or never began."""

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except Exception as error:
                self._failure = error
            finally:
                self._listening.set()
                self._release()

    async def _serve(self) -> None:
        application = web.Application(middlewares=[self._guard.middleware])
        for path in self._page:
            application.router.add_get(path, self._file)
        self._route(application.router)
        application.on_response_prepare.append(_with_headers)
        runner = web.AppRunner(
            application, access_log=None, logger=_logger(), handle_signals=False,
            shutdown_timeout=1.0, max_line_size=4096, max_field_size=4096,
        )  # fmt: skip
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            await self._begin()
            self._listening.set()
            await self._ending.wait()
            await self._end()
        finally:
            await runner.cleanup()

    async def _file(self, request: web.Request) -> web.Response:
        data, kind = self._page[request.path]
        return web.Response(body=data, content_type=kind, charset="utf-8")


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
