"""ViewSink: shows the frames of a live run in a browser."""

import time
from collections.abc import Callable, Sequence

from ..errors import SinkError
from ..frame import Frame
from ..sinks import Sink
from .panel import Panel
from .shared import History

LONGEST = 1280
"""Pixels of the longest side that a page is sent; a snapshot has them all."""


class ViewSink(Sink):
    """A page with the live picture, the run's switches and its latency; up to eight at a time.

    Only the newest frame is kept, so that a slow page, or none, holds nothing up. The picture is
    encoded once for all pages, and only while there are any. It goes by WebRTC, from a UDP port that
    answers a page's own session only, or as JPEG files where that fails. A 640x360 frame is on a page
    of the same machine 28..39 ms after `write` by WebRTC, 21..37 ms as JPEG (medians, busy cores).
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        controls: Panel | None = None,
        deadline: float = 1 / 30,
        ladder: Callable[[], Sequence[tuple[str, float]]] = tuple,
        longest: int = LONGEST,
        rtc: bool = True,
    ) -> None:
        """Start serving at once. `port` 0 takes one that is free; `url` says which.

        The page is opened with a `token` of 16 characters or more. Where none is given it is a random
        one; any `host` but this machine's own needs one that is given. `controls` may be set later,
        when the run is wired. `deadline` is the seconds that frames may take; `ladder` gives the
        governor's rungs, each a name and its cost in seconds, the best picture first. Raises SinkError
        when the page cannot be served.
        """
        try:
            from .server import Server
            from .site import checked_token
        except ImportError as error:
            raise SinkError(
                f"the browser view needs {error.name}: pip install 'velatura[live]'"
            ) from error
        token = checked_token(host, token)
        if rtc and not _has_rtc():
            rtc = False
            self.notes = ("no aiortc: pages show JPEG pictures (pip install 'velatura[live]')",)
        self.controls = controls
        self._history = History()
        self._server = Server(
            host,
            port,
            token=token,
            panel=lambda: self.controls,
            ladder=ladder,
            history=self._history,
            deadline=deadline,
            longest=longest,
            rtc=rtc,
        )
        self.uri = f"view:{self._server.host}:{self._server.port}"

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token: keep it secret."""
        return self._server.url

    @property
    def pages(self) -> int:
        """The number of open pages."""
        return self._server.pages

    def write(self, frame: Frame) -> None:
        """Show the frame, in place of the one before; never waits. Raises SinkError after the end."""
        now = time.monotonic()
        self._history.add(now, now - frame.captured if frame.captured is not None else 0.0)
        try:
            self._server.put(frame)
        except RuntimeError as error:
            # The server's event loop is closed, which may also happen while this thread is here.
            raise SinkError(f"{self.uri} is closed") from error
        self.frames += 1

    def close(self) -> None:
        self._server.close()

    def abort(self) -> None:
        self._server.close()


def _has_rtc() -> bool:
    """Returns whether aiortc can be imported: it needs system libraries that may be missing."""
    try:
        import aiortc
    except (ImportError, OSError):
        return False
    return bool(aiortc.__version__)
