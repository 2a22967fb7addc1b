"""The studio's web server: its page, its films, their stills and the queue, all behind a token."""

import asyncio
import json
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import typer
from aiohttp import WSCloseCode, web

from ..backends.speed import named_card
from ..errors import ModelError, SinkError, SourceError, VelaturaError
from ..resume.output_lock import Lock
from ..web.panel import RubbishError
from ..web.shared import to_json
from ..web.site import PACKAGE, Page, Site, checked_token, read_page
from ..zoo import named_models, zoo_models
from .choices import Choices, offered
from .films import Film, Films, too_large
from .renders import Render, Renders
from .stills import Stills

PAGES = 16
"""Pages that may be open at a time."""
PART = 1 << 18
"""Bytes of an upload that are written at once."""
BODY = 64 * 1024
"""Bytes of any other request."""
HEARTBEAT = 20.0
"""Seconds between two checks that a page is still there."""
PACE = 0.2
"""Seconds at least between two messages to a page."""
GLANCE = 240
"""Pixels of the longest side of a picture of the timeline."""

FILES = {
    "/": ("index.html", "text/html"),
    "/studio.css": ("studio.css", "text/css"),
    "/studio.js": ("studio.js", "text/javascript"),
    "/compare.js": ("compare.js", "text/javascript"),
}
SHARED = {
    "/theme.css": ("theme.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Files of the live page."""
KINDS = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}  # fmt: skip
"""Media types of what a browser may play; all else is a download."""


def _page() -> Page:
    return {**read_page(__name__.rpartition(".")[0], FILES), **read_page(PACKAGE, SHARED)}


class Studio(Site):
    """A page to choose videos and models, and to render a queue of them, until it is closed."""

    def __init__(
        self,
        workspace: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        folder: Path | None = None,
        limit: int = 20_000_000_000,
    ) -> None:
        """Serve at once. `workspace` is where uploads, queue and results are kept; `folder` is what
        pages may look into; `limit` are the bytes of an upload.

        Raises SinkError where another studio has the workspace, nothing can be kept there, or the
        page cannot be served, and SourceError where there is no such folder.
        """
        super().__init__(
            host, port, token=checked_token(host, token), page=_page(), name="velatura-studio"
        )
        if folder is not None and not folder.is_dir():
            raise SourceError(f"no folder {folder} to look into")
        self.workspace = workspace
        self._lock = _claim(workspace)
        self._change = asyncio.Event()
        self._sockets = set[web.WebSocketResponse]()
        self._models: list[dict[str, Any]] | None = None
        self._stills = Stills()
        try:
            self._films = Films(workspace / "films", folder, limit=limit)
            self._renders = Renders(workspace / "renders", self._changed)
            self._open()
        except BaseException:
            self._release()
            raise

    def _route(self, router: web.UrlDispatcher) -> None:
        film, render = "/api/films/{film:[0-9a-f]{16}}", "/api/renders/{render:[0-9a-f]{16}}"
        for method, path, handler in (
            ("GET", "/socket", self._socket),
            ("GET", "/api/models", self._list_models),
            ("GET", "/api/folder", self._browse),
            ("PUT", "/api/films", self._upload),
            ("POST", "/api/films", self._add_film),
            ("DELETE", film, self._remove_film),
            ("GET", f"{film}/file", self._film_file),
            ("GET", f"{film}/glance", self._glance),
            ("GET", f"{film}/before", self._before),
            ("POST", f"{film}/after", self._after),
            ("GET", f"{film}/card", self._card),
            ("POST", f"{film}/plan", self._plan),
            ("POST", "/api/renders", self._add_render),
            ("POST", f"{render}/{{do:pause|resume}}", self._steer),
            ("DELETE", render, self._remove_render),
            ("GET", f"{render}/file", self._render_file),
            ("GET", f"{render}/still", self._still),
            ("GET", f"{render}/verified", self._verified),
        ):
            router.add_route(method, path, _answering(handler))

    async def _begin(self) -> None:
        self._renders.start()

    async def _end(self) -> None:
        going = [
            socket.close(code=WSCloseCode.GOING_AWAY, message=b"the studio has ended")
            for socket in self._sockets
        ]
        await asyncio.gather(self._renders.stop(), *going, return_exceptions=True)

    def _release(self) -> None:
        self._stills.close()
        self._lock.release(remove=True)

    # ---- what pages are told ------------------------------------------------------------------

    def _changed(self) -> None:
        event, self._change = self._change, asyncio.Event()
        event.set()

    def state(self) -> str:
        """Returns what pages are told, as JSON."""
        return to_json(
            {
                "films": [film.to_json() for film in self._films],
                "renders": [render.to_json() for render in self._renders],
                "folder": self._films.folder is not None,
                "limit": self._films.limit,
                "workspace": str(self.workspace),
            }
        )

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=1024, timeout=1.0)
        await socket.prepare(request)
        if len(self._sockets) >= PAGES:
            # A page is told nothing of a refused handshake but that it failed: close with the reason.
            reason = f"{PAGES} pages are open already: close one"
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=reason.encode())
            return socket
        self._sockets.add(socket)
        telling = asyncio.create_task(self._keep_telling(socket))
        try:
            async for _ in socket:
                break  # a page has nothing to say here
        finally:
            self._sockets.discard(socket)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        return socket

    async def _keep_telling(self, socket: web.WebSocketResponse) -> None:
        """Send the state whenever it is another; nothing while it is not."""
        last = ""
        while True:
            change, text = self._change, self.state()
            if text != last:
                await socket.send_str(text)
                last = text
            await asyncio.sleep(PACE)
            await change.wait()

    async def _list_models(self, _: web.Request) -> web.StreamResponse:
        if self._models is None:
            self._models = await asyncio.to_thread(_cards)
        return _json({"models": self._models, "choices": offered()})

    # ---- films --------------------------------------------------------------------------------

    async def _browse(self, request: web.Request) -> web.StreamResponse:
        relative = request.query.get("path", "")
        return _json(await asyncio.to_thread(self._films.browse, relative))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        size = request.content_length
        if size is not None and size > self._films.limit:
            raise web.HTTPRequestEntityTooLarge(
                max_size=self._films.limit, actual_size=size, text=too_large(self._films.limit)
            )
        upload = self._films.upload(request.query.get("name", ""), size)
        try:
            # Each part is on its way to the disk before the next is taken: memory holds one.
            async for part in request.content.iter_chunked(PART):
                await asyncio.to_thread(upload.write, part)
            upload.finish()
            if size is not None and upload.received != size:
                raise SourceError(f"{upload.name} ended after {upload.received} of {size} bytes")
            film = await asyncio.to_thread(self._films.keep, upload)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(upload.drop))
            raise
        self._changed()
        return _json(film.to_json(), status=201)

    async def _add_film(self, request: web.Request) -> web.StreamResponse:
        film = await asyncio.to_thread(self._films.add, _text(await _body(request), "path"))
        self._changed()
        return _json(film.to_json(), status=201)

    async def _remove_film(self, request: web.Request) -> web.StreamResponse:
        film = self._film(request)
        if self._renders.uses(film):
            raise web.HTTPConflict(text=f"{film.name} is in the queue: cancel its renders first.")
        self._stills.forget(film.path)
        await asyncio.to_thread(self._films.remove, film)
        self._changed()
        return _json({})

    async def _film_file(self, request: web.Request) -> web.StreamResponse:
        film = self._film(request)
        return _file(film.path, film.name, request)

    # ---- stills -------------------------------------------------------------------------------

    async def _glance(self, request: web.Request) -> web.StreamResponse:
        return await _picture(self._stills.glance(self._film(request).path, _at(request), GLANCE))

    async def _before(self, request: web.Request) -> web.StreamResponse:
        return await _picture(self._stills.before(self._film(request).path, _at(request)))

    async def _after(self, request: web.Request) -> web.StreamResponse:
        film, choices = self._film(request), Choices.parse(await _body(request))
        return await _picture(self._stills.after(film.path, _at(request), choices))

    async def _card(self, request: web.Request) -> web.StreamResponse:
        film, model = self._film(request), request.query.get("model", "")
        if model not in named_models():
            raise RubbishError(f"no model {model!r}")
        return await _picture(self._stills.card(film.path, _at(request), model))

    async def _still(self, request: web.Request) -> web.StreamResponse:
        return await _picture(self._stills.before(self._output(request).sink, _at(request)))

    # ---- the queue ----------------------------------------------------------------------------

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        film, choices = self._film(request), Choices.parse(await _body(request))
        await asyncio.to_thread(choices.check)
        report = await self._renders.plan(film, choices)
        return _json(report, status=422 if "error" in report else 200)

    async def _add_render(self, request: web.Request) -> web.StreamResponse:
        given = await _body(request)
        film = self._films.get(_text(given, "film"))
        if film is None:
            raise web.HTTPNotFound(text="There is no such film any more.")
        choices = Choices.parse(given.get("choices"))
        await asyncio.to_thread(choices.check)
        render = self._renders.add(film, choices)
        return _json(render.to_json(), status=201)

    async def _steer(self, request: web.Request) -> web.StreamResponse:
        render = self._render(request)
        if request.match_info["do"] == "pause":
            await self._renders.pause(render)
        else:
            self._renders.resume(render)
        return _json(render.to_json())

    async def _remove_render(self, request: web.Request) -> web.StreamResponse:
        render = self._render(request)
        self._stills.forget(render.sink)
        await self._renders.remove(render)
        return _json({})

    async def _verified(self, request: web.Request) -> web.StreamResponse:
        return _json(self._render(request).verified or {})

    async def _render_file(self, request: web.Request) -> web.StreamResponse:
        render = self._output(request)
        return _file(render.sink, render.sink.name, request)

    def _film(self, request: web.Request) -> Film:
        film = self._films.get(request.match_info["film"])
        if film is None:
            raise web.HTTPNotFound(text="There is no such film any more.")
        return film

    def _render(self, request: web.Request) -> Render:
        render = self._renders.get(request.match_info["render"])
        if render is None:
            raise web.HTTPNotFound(text="There is no such render any more.")
        return render

    def _output(self, request: web.Request) -> Render:
        render = self._render(request)
        if not render.has_output:
            raise web.HTTPNotFound(text="There is no output yet.")
        return render


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _answering(handler: Handler) -> Handler:
    """Returns the handler with deliberate errors as answers, whose text a page shows."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except RubbishError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except VelaturaError as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from error

    return answer


async def _body(request: web.Request) -> Any:
    if (request.content_length or 0) > BODY:
        raise web.HTTPRequestEntityTooLarge(max_size=BODY, actual_size=request.content_length or 0)
    data = b""
    async for part in request.content.iter_chunked(BODY):
        data += part
        if len(data) > BODY:
            raise web.HTTPRequestEntityTooLarge(max_size=BODY, actual_size=len(data))
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise RubbishError("the request must hold JSON") from None


def _text(given: Any, name: str) -> str:
    """Returns that field of a request's JSON object."""
    found = cast("dict[str, Any]", given).get(name) if isinstance(given, dict) else None
    if not isinstance(found, str):
        raise RubbishError(f"the request must be an object, with a text as {name}")
    return found


def _at(request: web.Request) -> float:
    try:
        at = float(request.query.get("at", "0"))
    except ValueError:
        at = -1.0
    # NaN fails both comparisons.
    if not 0 <= at <= 1e7:
        raise RubbishError("at must be the seconds of a film")
    return at


async def _picture(wanted: "Future[bytes]") -> web.Response:
    return web.Response(body=await asyncio.wrap_future(wanted), content_type="image/jpeg")


def _json(found: Any, *, status: int = 200) -> web.Response:
    return web.json_response(found, status=status)


def _file(path: Path, name: str, request: web.Request) -> web.FileResponse:
    """Returns a file, or the range that is asked for."""
    if not path.is_file():
        raise web.HTTPNotFound(text=f"{name} is not there any more.")
    headers = {"Content-Type": KINDS.get(path.suffix.lower(), "application/octet-stream")}
    if "download" in request.query:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return web.FileResponse(path, chunk_size=PART, headers=headers)


def _cards() -> list[dict[str, Any]]:
    """Returns what a page shows of each model; those that cannot be read are left out."""
    shipped, found = zoo_models(), list[dict[str, Any]]()
    for name, variants in named_models().items():
        try:
            card = named_card(variants["fp32"])
        except ModelError:
            continue  # the user's own folder may hold anything; `velatura models` says what
        told = {key: asdict(card)[key] for key in ("title", "task", "scale", "licence", "training")}
        found.append({"name": name, "own": name not in shipped, **told})
    return found


def _claim(workspace: Path) -> Lock:
    """Returns the lock of a workspace. Raises SinkError where another studio has it."""
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        return Lock(workspace / ".studio.lock")
    except BlockingIOError:
        raise SinkError(
            f"another velatura studio works in {workspace}: use its page, or give another --workspace"
        ) from None
    except OSError as error:
        raise SinkError(f"{workspace} cannot be used: {error.strerror or error}") from error


def run_studio(
    workspace: Path | None,
    *,
    host: str,
    port: int,
    token: str | None,
    folder: Path | None,
    limit: int,
    quiet: bool,
) -> int:
    """Serves a studio until Ctrl-C, and returns the exit code. Raises VelaturaError."""
    ending = threading.Event()

    def stop(number: int, frame: object) -> None:
        del number, frame
        ending.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        studio = Studio(
            workspace or default_workspace(), host=host, port=port, token=token, folder=folder,
            limit=limit,
        )  # fmt: skip
        typer.echo(studio.url)
        if not quiet:
            typer.echo(f"note: uploads and results are kept in {studio.workspace}", err=True)
            typer.echo("note: the page is open to whoever has that address; Ctrl-C ends it", err=True)
        try:
            ending.wait()
        finally:
            studio.close()
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
    return 0


def default_workspace() -> Path:
    """Returns the system's folder for a user's data, such as ~/.local/share/velatura/studio."""
    from platformdirs import user_data_path

    return user_data_path("velatura", appauthor=False) / "studio"
