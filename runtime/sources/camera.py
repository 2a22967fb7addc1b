"""Cameras, by OpenCV, or by Video4Linux where PyAV's FFmpeg has it."""

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import cv2
from av.format import formats_available

from ..backoff import Backoff
from ..errors import SourceError
from ..frame import Array
from .base import FASTEST
from .ffmpeg_live import StreamSource, Target
from .kind import CONNECTION, Address, Device
from .live import LiveSource

SYSTEM = Path("/sys/class/video4linux")
"""The folder in which Linux lists video devices."""
DEVICES = Path("/dev")
_PROBED = 6
"""Cameras tried by number where the system has no list."""
_MISSED = 3
"""Failed reads in a row after which the camera counts as unplugged."""
_MEASURED = 10
"""Pictures over which the rate is measured where the camera does not state it."""


OPTIONS = ("api", "fourcc", "fps", "size", *CONNECTION)
"""The keys that an address may set."""


def list_devices(kind: str = "camera") -> list[Device]:
    """Returns the cameras; without a list of the system a few are tried, which turns on their
    lights."""
    del kind  # there is only one
    if not sys.platform.startswith("linux"):
        return [_camera(str(number), "", str(number)) for number in range(_PROBED) if _opens(number)]
    found: list[Device] = []
    entries = SYSTEM.glob("video*") if SYSTEM.is_dir() else ()
    for entry in sorted(entries, key=lambda path: int(re.sub(r"\D", "", path.name) or 0)):
        # A camera has more nodes than one; those after the first give metadata, no pictures.
        if _text(entry / "index") not in ("", "0"):
            continue
        number = re.sub(r"\D", "", entry.name)
        device = DEVICES / entry.name
        found.append(_camera(number, _text(entry / "name"), str(device), _problem(device)))
    return found


def _camera(number: str, title: str, device: str, problem: str = "") -> Device:
    return Device(name=f"camera:{number}", title=title, device=device, problem=problem)


def open_live(address: Address, *, options: Mapping[str, str], keep: bool) -> LiveSource:
    """Open `camera:0` or `camera:/dev/video0`. Raises SourceError that lists the cameras there are."""
    del keep  # a camera waits for nobody
    if address.choice("api", ("opencv", "v4l2")) == "v4l2":
        return _by_ffmpeg(address, options)
    if options:
        raise SourceError(f"{address.uri}: FFmpeg's options need ?api=v4l2")
    return CameraSource(address)


class CameraSource(LiveSource):
    """A camera by OpenCV; gives its newest picture. A camera that was unplugged is opened again."""

    def __init__(self, address: Address) -> None:
        """Raises SourceError: no such camera, busy, no permission, or no picture."""
        place = address.place or "0"
        if not place.isdigit() and not place.startswith("/"):
            raise SourceError(f"{address.uri} is no camera; {_there_are()}")
        super().__init__(address.uri)
        self._place: int | str = int(place) if place.isdigit() else place
        self._size, self._wanted = address.size(), address.rate()
        self._fourcc = address.options.get("fourcc", "")
        if self._fourcc and len(self._fourcc) != 4:
            raise SourceError(f"{address.uri}: fourcc={self._fourcc} has not four letters")
        self._backoff = Backoff(address.retries())
        self._shape: tuple[int, ...] | None = None
        self._start(address.number("patience", 10.0))

    def _work(self) -> None:
        while not self._closing.is_set():
            capture = cv2.VideoCapture(self._place)
            try:
                if capture.isOpened():
                    self._set(capture)
                    self._read(capture)
            except cv2.error as error:
                self._reason = f"OpenCV: {error}"
            finally:
                capture.release()
            if self._closing.is_set():
                return
            if not self._begun.is_set():
                raise SourceError(self._why())
            why = self._why()
            self._wait_again(why, f"{why}; it is given up")

    def _why(self) -> str:
        """Returns the reason why it gives no picture."""
        place = self._place
        if sys.platform.startswith("linux"):
            device = DEVICES / f"video{place}" if isinstance(place, int) else Path(place)
            if not device.exists():
                was = " any more: it was unplugged" if self._begun.is_set() else ""
                return f"{self.uri}: there is no {device}{was}; {_there_are()}"
            problem = _problem(device)
            if problem:
                return f"{self.uri}: {problem}"
        elif not self._begun.is_set():
            return f"{self.uri} cannot be opened: it is busy, or not there; {_there_are()}"
        return f"{self.uri} gives no picture: another program may be using it, or it takes no such size"

    def _set(self, capture: cv2.VideoCapture) -> None:
        # The driver's queue is latency.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if self._fourcc:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._fourcc))
        if self._size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        if self._wanted is not None:
            capture.set(cv2.CAP_PROP_FPS, float(self._wanted))

    def _read(self, capture: cv2.VideoCapture) -> None:
        """Read pictures until the camera gives no more."""
        missed = 0
        times: list[float] = []
        stated = _rate(capture.get(cv2.CAP_PROP_FPS))
        while not self._closing.is_set():
            good, picture = cast("tuple[bool, Any]", capture.read())
            now = time.monotonic()
            if not good or picture is None:
                missed += 1
                if missed >= _MISSED or self._pause(0.02):
                    return
                continue
            missed = 0
            grey = picture.ndim == 2
            pixels = cast("Array", picture if grey else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            if not self._begun.is_set():
                times.append(now)
                rate = stated or _measured(times)
                if rate is None:
                    continue
                self._describe(pixels, rate)
            self._backoff.reset()
            if self._shape is not None and pixels.shape[:2] != self._shape:
                self._say(f"{self.uri}: pictures are now {pixels.shape[1]}x{pixels.shape[0]}")
            self._shape = pixels.shape[:2]
            self._put_pixels(pixels, now)

    def _describe(self, pixels: Array, rate: Fraction) -> None:
        height, width = pixels.shape[:2]
        notes: list[str] = []
        if self._size is not None and self._size != (width, height):
            notes.append(
                f"the camera gives {width}x{height}, not the {self._size[0]}x{self._size[1]} asked for"
            )
        if self._wanted is not None and abs(float(rate / self._wanted) - 1) > 0.02:
            notes.append(
                f"the camera gives {float(rate):.4g} frames a second, not {float(self._wanted):.4g}"
            )
        self._describe_pixels(pixels, rate, "camera", tuple(notes))


def _by_ffmpeg(address: Address, options: Mapping[str, str]) -> LiveSource:
    format = next((name for name in ("v4l2", "video4linux2") if name in formats_available), None)
    if format is None:
        raise SourceError(f"{address.uri}: this build of PyAV has no v4l2; leave ?api=v4l2 out")
    place = address.place or "0"
    device = f"/dev/video{place}" if place.isdigit() else place
    size, rate = address.size(), address.rate()
    chosen = {"fflags": "nobuffer"}
    if size is not None:
        chosen["video_size"] = f"{size[0]}x{size[1]}"
    if rate is not None:
        chosen["framerate"] = str(rate)
    if "fourcc" in address.options:
        chosen["input_format"] = address.options["fourcc"].lower()
    target = Target(url=device, format=format, options=chosen | dict(options))
    return StreamSource(address, find=lambda: target)


def _there_are() -> str:
    cameras = list_devices()
    if not cameras:
        return "no camera is found on this machine"
    return "there are " + ", ".join(
        f"{camera.name} ({camera.title})" if camera.title else camera.name for camera in cameras
    )


def _problem(device: Path) -> str:
    """Returns the reason why a device cannot be opened; empty when it can, or the reason is unknown."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return f"{device} is busy{_used_by(device)}: close the other program"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"{device} may not be opened by this user: join the group 'video'"
        return f"{device} cannot be opened: {error.strerror}"
    # Most drivers let a second program open what only one may read.
    user = _used_by(device)
    return f"{device} is busy{user}: close the other program" if user else ""


def _used_by(device: Path) -> str:
    """Returns ` (used by NAME, process N)`, as far as this user may see it."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        process = link.parts[2]
        if process == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if link.readlink() == device:
                return f" (used by {_text(Path('/proc', process, 'comm'))}, process {process})"
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _opens(number: int) -> bool:
    capture = cv2.VideoCapture(number)
    try:
        return capture.isOpened()
    finally:
        capture.release()


def _rate(stated: float) -> Fraction | None:
    return Fraction(stated).limit_denominator(1001) if 1 <= stated <= FASTEST else None


def _measured(times: list[float]) -> Fraction | None:
    if len(times) < _MEASURED:
        return None
    return Fraction(round((len(times) - 1) / max(times[-1] - times[0], 1e-3)) or 1)
