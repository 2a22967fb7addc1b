"""Windows of an X11 screen, by the program `xwininfo`."""

import re
import shutil
import subprocess
from dataclasses import dataclass

from ..errors import SourceError

_LINE = re.compile(
    r'\s*(0x[0-9a-f]+) "(.*)": \(.*\)\s+(\d+)x(\d+)\+-?\d+\+-?\d+\s+\+(-?\d+)\+(-?\d+)\s*'
)
"""id "title": ("name" "class")  WxH+X+Y  +X+Y, the last two from the screen's corner."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the screen, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    def holds(self, other: "Box") -> bool:
        """Whether the other lies in this one, whole."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.left + other.width <= self.left + self.width
            and other.top + other.height <= self.top + self.height
        )

    def within(self, other: "Box") -> "Box | None":
        """The part that lies in the other; None where none does."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right = min(self.left + self.width, other.left + other.width)
        bottom = min(self.top + self.height, other.top + other.height)
        return Box(left, top, right - left, bottom - top) if left < right and top < bottom else None

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.left}+{self.top}"


@dataclass(frozen=True, slots=True)
class Window:
    """A window that has a title."""

    id: int
    title: str
    box: Box


def list_windows() -> list[Window]:
    """Those that can be seen and have a title. Raises SourceError with the reason."""
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
    """The one of that title, or else the only one whose title holds it, whatever the case.

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
    """Where a window is; None when it is gone, or not shown."""
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
