"""A studio in the tests' own process, and what a page asks of it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from velatura.runtime.studio.server import Studio


class Desk:
    """What a page can do, by HTTP alone."""

    def __init__(self, url: str) -> None:
        self.base = url.partition("/?")[0]
        with urllib.request.urlopen(url) as answer:
            self.cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, Any]:
        """Status, body and headers of the answer."""
        request = urllib.request.Request(self.base + path, data=body, method=method)
        for name, value in {"Cookie": self.cookie, **headers}.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer, which must be one of success."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        status, found, _ = self.send(method, path, data)
        assert status in (200, 201), found
        return json.loads(found)

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Status and words of a refusal."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        status, found, _ = self.send(method, path, data)
        assert status >= 400, found
        return status, found.decode()

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        return self.ask("PUT", f"/api/films?name={quote(name or path.name)}", path.read_bytes())

    def picture(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        status, found, headers = self.send("GET" if body is None else "POST", path, data)
        assert status == 200, found
        assert headers["Content-Type"] == "image/jpeg"
        return found


def told(studio: Studio) -> dict[str, Any]:
    """What pages are told."""
    return json.loads(studio.state())


def render_of(studio: Studio, id: str) -> dict[str, Any]:
    return next(one for one in told(studio)["renders"] if one["id"] == id)


def until(work: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not (found := work()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found
