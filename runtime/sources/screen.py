"""The screen, a part of it, or a window, by `mss`; on X11 by FFmpeg if wanted."""

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from av.format import formats_available

from ..backoff import Backoff
from ..errors import SourceError
from ..frame import Array
from .ffmpeg_live import NothingThereError, StreamSource, Target
from .kind import CONNECTION, Address, Device
from .live import LiveSource

if TYPE_CHECKING:
    import mss

_LINE = re.compile(
    r'\s*(0x[0-9a-f]+) "(.*)": \(.*\)\s+(\d+)x(\d+)\+-?\d+\+-?\d+\s+\+(-?\d+)\+(-?\d+)\s*'
)
"""A line of xwininfo: id "title": ("name" "class") WxH+X+Y +X+Y, where the last two are relative to the
screen."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the screen, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    def holds(self, other: "Box") -> bool:
        """Returns whether the other box lies completely in this one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.left + other.width <= self.left + self.width
            and other.top + other.height <= self.top + self.height
        )

    def within(self, other: "Box") -> "Box | None":
        """Returns the part that lies in the other; None where none does."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right = min(self.left + self.width, other.left + other.width)
        bottom = min(self.top + self.height, other.top + other.height)
        return Box(left, top, right - left, bottom - top) if left < right and top < bottom else None

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.left}+{self.top}"


@dataclass(frozen=True, slots=True)
class Window:
    """A window with a title."""

    id: int
    title: str
    box: Box


def list_windows() -> list[Window]:
    """Returns the visible windows with a title. Raises SourceError with the reason."""
    found: list[Window] = []
    for line in _ask("-root", "-tree").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        width, height, left, top = map(int, match.groups()[2:])
        window = Window(int(match[1], 16), match[2], Box(left, top, width, height))
        if window.title and min(width, height) > 1 and geometry(window.id) is not None:
            found.append(window)
    return found


def find_window(title: str) -> Window:
    """Returns the window of that title, else the only one whose title contains it, ignoring case.

    Raises SourceError that lists the windows there are.
    """
    windows = list_windows()
    wanted = title.casefold()
    exact = [window for window in windows if window.title.casefold() == wanted]
    found = exact or [window for window in windows if wanted in window.title.casefold()]
    if len(found) == 1 or exact:
        return found[0]
    there = ", ".join(repr(window.title) for window in found or windows) or "no window with a title"
    if found:
        raise SourceError(
            f"{len(found)} windows have {title!r} in their titles: {there}; write one out"
        )
    raise SourceError(f"no window that can be seen has {title!r} in its title; there is {there}")


def geometry(id: int) -> Box | None:
    """Returns the rectangle of a window; None when it is gone or hidden."""
    try:
        text = _ask("-id", str(id))
    except SourceError:
        return None
    if "Map State: IsViewable" not in text:
        return None
    found = re.findall(r"(?:Absolute upper-left [XY]|Width|Height): +(-?\d+)", text)
    return Box(*map(int, found[:4])) if len(found) >= 4 else None


def _ask(*arguments: str) -> str:
    program = shutil.which("xwininfo")
    if program is None:
        raise SourceError("finding windows needs the program xwininfo: install x11-utils")
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        reason = str(error.stderr).strip() or f"code {error.returncode}"
        raise SourceError(f"xwininfo failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"xwininfo failed: {error}") from error
    return done.stdout


_REGION = re.compile(r"(\d+)x(\d+)\+(-?\d+)\+(-?\d+)")
_RATE = Fraction(30)
_LOOK = 0.2
"""Seconds between two queries of a window's position."""


OPTIONS = ("api", "cursor", "fps", *CONNECTION)
"""The keys that an address may set."""


def list_devices(kind: str) -> list[Device]:
    """Returns the screens, or the windows with a title. Raises SourceError with the reason when none
    can be captured."""
    if kind == "window":
        return [Device(name=f"window:{w.title}", size=str(w.box)) for w in list_windows()]
    with closing(_grabber()) as grabber:
        monitors: list[dict[str, Any]] = [dict(monitor) for monitor in grabber.monitors]
    # The first is all of them together.
    return [
        Device(
            name=f"screen:{number}",
            title=str(monitor.get("name") or monitor.get("output") or ""),
            size=str(_box(monitor)),
        )
        for number, monitor in enumerate(monitors[1:] or monitors)
    ]


def open_live(address: Address, *, options: Mapping[str, str], keep: bool) -> LiveSource:
    """Open `screen:` or `window:`. Raises SourceError that lists the screens or windows there are."""
    del options, keep  # nothing here is FFmpeg's to choose, and a screen waits for nobody
    rate = address.rate() or _RATE
    cursor = address.flag("cursor", True)
    if address.kind.name == "window" and not address.place:
        raise SourceError("window: needs a title, or a part of one; `velatura devices` lists them")
    if address.choice("api", ("mss", "x11")) == "x11":
        problem = x11_problem()
        if problem:
            raise SourceError(f"{address.uri}: {problem}; leave ?api=x11 out")
        if address.kind.name == "window":
            return StreamSource(address, find=_Window(address.place, rate, cursor=cursor).target)
        return StreamSource(address, find=lambda: _target(_region(address), rate, cursor=cursor))
    return MssSource(address, rate, cursor=cursor)


def x11_problem() -> str:
    """Returns the reason why FFmpeg must not capture here; empty when it may.

    The wheels of PyAV and OpenCV carry files of the same names that belong to different copies of
    libxcb, and the first that is loaded serves both: after OpenCV's, x11grab ends the process.
    """
    if "x11grab" not in formats_available or not os.environ.get("DISPLAY"):
        return "x11 needs $DISPLAY, and a PyAV that has x11grab"
    maps = Path("/proc/self/maps")
    lines = maps.read_text().split("\n") if maps.exists() else []
    loaded = {Path(line.split()[-1]) for line in lines if "/libxcb-" in line or "/libavdevice" in line}
    homes = {
        path.parent for path in loaded if path.name.startswith("libavdevice") and "av.libs" in str(path)
    }
    helpers = {
        path for path in loaded if path.name.startswith(("libxcb-shm", "libxcb-shape", "libxcb-xfixes"))
    }
    if homes and any(path.parent not in homes for path in helpers):
        return "OpenCV was loaded before PyAV, whose x11grab then has the wrong libraries"
    return ""


class _Window:
    """A window: the capture follows it as it moves, and restarts when its size changes."""

    def __init__(self, title: str, rate: Fraction, *, cursor: bool) -> None:
        self._title = title
        self._rate = rate
        self._cursor = cursor

    def target(self) -> Target:
        try:
            window = find_window(self._title)
        except SourceError as error:
            raise NothingThereError(str(error)) from error
        size = (window.box.width, window.box.height)

        def moved() -> bool:
            box = geometry(window.id)
            return box is None or (box.width, box.height) != size

        return Target(
            url=os.environ["DISPLAY"],
            format="x11grab",
            options=_options(size, self._rate, cursor=self._cursor) | {"window_id": str(window.id)},
            moved=moved,
        )


def _target(box: Box, rate: Fraction, *, cursor: bool) -> Target:
    return Target(
        url=f"{os.environ['DISPLAY']}+{box.left},{box.top}",
        format="x11grab",
        options=_options((box.width, box.height), rate, cursor=cursor),
    )


def _options(size: tuple[int, int], rate: Fraction, *, cursor: bool) -> dict[str, str]:
    return {
        "video_size": f"{size[0]}x{size[1]}",
        "framerate": str(rate),
        "draw_mouse": str(int(cursor)),
        # Pictures are raw: there is nothing to find out from the first ones, which would come late.
        "probesize": "32",
        "analyzeduration": "0",
    }


def _region(address: Address) -> Box:
    """Returns the rectangle that an address names."""
    place = address.place
    match = _REGION.fullmatch(place)
    with closing(_grabber()) as grabber:
        monitors = [_box(dict(monitor)) for monitor in grabber.monitors]
    whole, each = monitors[0], monitors[1:] or monitors
    if match is not None:
        width, height, left, top = map(int, match.groups())
        box = Box(left, top, width, height)
        if min(width, height) < 1 or not whole.holds(box):
            raise SourceError(f"{address.uri} reaches beyond the screen, which is {whole}")
        return box
    if place == "all":
        return whole
    if place and not place.isdigit():
        raise SourceError(
            f"{address.uri} is no screen; write screen:0, screen:all or screen:640x360+0+0"
        )
    number = int(place or 0)
    if number >= len(each):
        there = ", ".join(f"screen:{index} ({box})" for index, box in enumerate(each))
        raise SourceError(f"there is no {address.uri}; there are {there}")
    return each[number]


class MssSource(LiveSource):
    """A rectangle of the screen by `mss` at a fixed rate; that of a window follows the window.

    What lies over a window is captured with it; what of it lies beyond the screen is black.
    """

    def __init__(self, address: Address, rate: Fraction, *, cursor: bool = True) -> None:
        """Raises SourceError: no such screen or window, or no screen at all."""
        super().__init__(address.uri)
        self._rate = rate
        self._cursor = cursor
        self._window = find_window(address.place) if address.kind.name == "window" else None
        self._title = address.place
        self._box = self._window.box if self._window is not None else _region(address)
        self._backoff = Backoff(address.retries())
        if self._window is not None:
            threading.Thread(target=self._follow, name="velatura-window", daemon=True).start()
        self._start(address.number("patience", 10.0))

    def _follow(self) -> None:
        """Track the window's position; one that is gone is searched for by its title."""
        gone = False
        while self._window is not None and not self._pause(_LOOK if not gone else 10 * _LOOK):
            box = geometry(self._window.id)
            try:
                if box is None:
                    self._window = find_window(self._title)
                    box = self._window.box
            except SourceError:
                if not gone:
                    self._say(
                        f"{self.uri} is gone, or hidden: what is there now is shown until it is back"
                    )
                gone = True
                continue
            if gone:
                self._say(f"{self.uri} is back")
            gone = False
            if (box.width, box.height) != (self._box.width, self._box.height):
                self._say(f"{self.uri}: pictures are now {box.width}x{box.height}")
            self._box = box

    def _work(self) -> None:
        from mss.exception import ScreenShotError

        while not self._closing.is_set():
            try:
                with closing(_grabber(cursor=self._cursor)) as grabber:
                    self._grab(grabber)
                return
            except ScreenShotError as error:
                if not self._begun.is_set():
                    raise SourceError(f"{self.uri} cannot be captured: {error}") from error
                reason = str(error)
            except SourceError as error:
                if not self._begun.is_set():
                    raise
                reason = str(error)
            self._wait_again(f"{self.uri}: {reason}", f"{self.uri} is given up: {reason}")

    def _grab(self, grabber: "mss.MSS") -> None:
        whole = _box(dict(grabber.monitors[0]))
        due = time.monotonic()
        while not self._pause(due - time.monotonic()):
            now = time.monotonic()
            # What was missed stays missed: two pictures of the same moment are worth one.
            due = max(due + float(1 / self._rate), now)
            pixels = _shoot(grabber, self._box, whole)
            if not self._begun.is_set():
                self._describe_pixels(pixels, self._rate, "mss")
            self._backoff.reset()
            self._put_pixels(pixels, now)


def _shoot(grabber: "mss.MSS", box: Box, whole: Box) -> Array:
    """Returns (H, W, 3) pixels of a rectangle, black beyond the screen."""
    seen = box.within(whole)
    if seen is None:
        return np.zeros((box.height, box.width, 3), np.uint8)
    shot = grabber.grab(
        {"left": seen.left, "top": seen.top, "width": seen.width, "height": seen.height}
    )
    raw = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
    pixels: Array = cv2.cvtColor(raw, cv2.COLOR_BGRA2RGB)
    if seen == box:
        return pixels
    top, left = seen.top - box.top, seen.left - box.left
    below, right = box.height - top - seen.height, box.width - left - seen.width
    return cv2.copyMakeBorder(pixels, top, below, left, right, cv2.BORDER_CONSTANT)


def _grabber(*, cursor: bool = False) -> "mss.MSS":
    try:
        import mss
        from mss.exception import ScreenShotError
    except ModuleNotFoundError as error:
        raise SourceError("capturing the screen needs mss: pip install 'velatura[live]'") from error
    try:
        # Only X11's way of capturing has a pointer to add.
        return mss.MSS(with_cursor=True) if cursor and os.environ.get("DISPLAY") else mss.MSS()
    except (ScreenShotError, OSError) as error:
        hint = "" if os.environ.get("DISPLAY") else "; $DISPLAY is not set"
        raise SourceError(f"no screen can be captured here: {error}{hint}") from error


def _box(monitor: dict[str, Any]) -> Box:
    left, top, width, height = (int(str(monitor[key])) for key in ("left", "top", "width", "height"))
    return Box(left, top, width, height)
