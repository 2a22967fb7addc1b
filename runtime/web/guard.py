"""Access to the page: checks of address, origin and token, before anything is answered."""

import hmac
import ipaddress
import secrets
import socket
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

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
