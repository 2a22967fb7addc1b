"""A window on the desktop, by OpenCV, with keyboard commands."""

import threading
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from ..colour import to_rgb8
from ..errors import SinkError
from ..frame import Array, Frame
from .base import Delivery, Sink
from .kind import Writing

PATIENCE = 2.0
"""Seconds that a frame waits for a window which is busy."""
LINE = 18
"""Pixels between two lines of text."""
ESCAPES = (0x1B, 0xFF1B)
"""Key codes of Escape in OpenCV's windows, which depend on the toolkit."""


def open_live(uri: str, writing: Writing) -> Sink:
    """Open a window. Raises SinkError where OpenCV has none."""
    del uri, writing
    return WindowSink()


class WindowSink(Sink):
    """Shows frames in a window; keys call the functions bound to them.

    Desktops want their windows served by the program's first thread: it calls `serve`, while `write`,
    in any other, waits until its frame is seen.
    """

    delivery = Delivery(asks=False)

    def __init__(self, title: str = "velatura") -> None:
        """Raises SinkError where OpenCV has no windows."""
        self.uri = "window:"
        self._title = title
        self._keys: Mapping[str, Callable[[], object]] = {}
        self._text: Callable[[], Sequence[str]] | None = None
        self._picture: Array | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.failed = False
        """True if `serve` ended because the window could not be shown."""
        self._failure = ""
        if not _has_windows():
            raise SinkError(
                "this OpenCV has no windows: pip install opencv-python in place of "
                "opencv-python-headless, or use --view"
            )

    def bind(
        self,
        keys: Mapping[str, Callable[[], object]],
        text: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Bind `keys` by character, `esc` for Escape, before `serve`; `text` gives lines to draw."""
        self._keys, self._text = keys, text

    def write(self, frame: Frame) -> None:
        picture = _upright(frame)
        with self._changed:
            if self._closed:
                raise SinkError(self._failure or "the window was closed")
            self._picture = picture
            self._changed.notify_all()
            shown = self._changed.wait_for(lambda: self._picture is None or self._closed, PATIENCE)
            if self._closed and not shown:
                raise SinkError(self._failure or "the window was closed")
        # A window that is busy, as while it is dragged, shows the next frame in this one's place.
        self.frames += shown

    def serve(self, alive: Callable[[], bool]) -> None:
        """Show frames and handle keys, in the first thread, until the window is closed or `alive` is
        false."""
        opened = False
        try:
            while alive() and not self._closed:
                with self._changed:
                    self._changed.wait_for(lambda: self._picture is not None or self._closed, 0.02)
                    picture = self._picture
                if picture is not None:
                    if not opened:
                        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL)
                        cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
                        opened = True
                    cv2.imshow(self._title, self._drawn(picture))
                if opened:
                    self._hear(cv2.pollKey())
                with self._changed:
                    if self._picture is picture:
                        self._picture = None
                    self._changed.notify_all()
                if opened and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                    return  # as by its key
        except cv2.error as error:
            self._end(f"the window failed: {error.err or error}. Is there a desktop (DISPLAY)?")
        finally:
            self.failed = bool(self._failure)
            self._end("")
            if opened:
                cv2.destroyAllWindows()

    def close(self) -> None:
        self._end("")

    def abort(self) -> None:
        self._end("")

    def _end(self, failure: str) -> None:
        with self._changed:
            self._closed = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _hear(self, code: int) -> None:
        code &= 0xFFFF  # modifiers stand above
        if code in ESCAPES:
            name = "esc"
        elif 0x20 <= code < 0x7F:
            name = chr(code).lower()
        else:
            return  # none, or an arrow, whose lower half is a letter's
        action = self._keys.get(name)
        if action is not None:
            action()

    def _drawn(self, picture: Array) -> Array:
        lines = self._text() if self._text is not None else ()
        return draw_lines(picture, lines) if lines else picture


def draw_lines(picture: Array, lines: Sequence[str]) -> Array:
    """Returns a copy of an 8-bit (H, W, 3) picture with lines of text on a dark ground in its
    corner."""
    drawn = picture.copy()
    sizes = [cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] for line in lines]
    ground = drawn[: LINE * len(lines) + 12, : max(sizes) + 20]
    ground[:] = ground // 4
    for number, line in enumerate(lines):
        place = (10, LINE * (number + 1))
        cv2.putText(drawn, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def _upright(frame: Frame) -> Array:
    """Returns the frame in 8-bit BGR, turned and stretched as players would."""
    pixels = cv2.cvtColor(np.rot90(to_rgb8(frame), frame.rotation // 90), cv2.COLOR_RGB2BGR)
    aspect = frame.aspect if frame.rotation % 180 == 0 else 1 / frame.aspect
    if abs(float(aspect) - 1) > 0.01:
        width = max(round(pixels.shape[1] * float(aspect)), 1)
        pixels = cv2.resize(pixels, (width, pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    return pixels


def _has_windows() -> bool:
    """Returns whether this build of OpenCV can show windows."""
    information = cv2.getBuildInformation()
    gui = information.partition("GUI:")[2].partition("\n\n")[0]
    return "YES" in gui or "QT" in gui.split("\n")[0] or "COCOA" in gui or "WIN32UI" in gui
