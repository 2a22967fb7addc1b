"""The screen of a virtual X server, with a window that moves over it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library

import numpy as np
import pytest
from velatura.runtime.errors import SourceError
from velatura.runtime.frame import Frame
from velatura.runtime.sources import open_live_source
from velatura.runtime.sources.live import LiveSource
from velatura.runtime.sources.screen import list_devices, list_windows

pytestmark = [
    pytest.mark.skipif(
        not all(map(shutil.which, ("Xvfb", "xdotool", "xwininfo"))) or find_library("X11") is None,
        reason="Xvfb, xdotool, xwininfo and libX11 must be installed",
    ),
]

# Red, with a green square in its corner: the X server paints both, however busy the machine is.
_PAINTER = """
import ctypes, ctypes.util, signal, sys
title, width, height = sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3])
x = ctypes.CDLL(ctypes.util.find_library("X11"))
for name in ("XOpenDisplay", "XDefaultRootWindow", "XCreateSimpleWindow"):
    getattr(x, name).restype = ctypes.c_void_p
display = ctypes.c_void_p(x.XOpenDisplay(None))
def window(parent, left, top, width, height, colour):
    return ctypes.c_void_p(x.XCreateSimpleWindow(
        display, ctypes.c_void_p(parent), left, top, width, height, 0, ctypes.c_ulong(0),
        ctypes.c_ulong(colour)))
outer = window(x.XDefaultRootWindow(display), 40, 30, width, height, 0xFF0000)
inner = window(outer.value, 0, 0, 20, 20, 0x00FF00)
x.XStoreName(display, outer, title)
x.XMapWindow(display, inner)
x.XMapWindow(display, outer)
x.XFlush(display)
signal.pause()
"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    read, write = os.pipe()
    # By itself a server begins anew when its last client goes, and cuts off whoever comes meanwhile.
    server = subprocess.Popen(
        f"Xvfb -noreset -displayfd {write} -screen 0 640x480x24 -nolisten tcp".split(),
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as file:
        name = f":{file.readline().strip()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", name)
        yield name
    server.terminate()
    server.wait()


@contextmanager
def painting(title: str, width: int = 200, height: int = 100) -> Iterator[str]:
    """A window; its id for `xdotool`."""
    painter = [sys.executable, "-c", _PAINTER, title, str(width), str(height)]
    process = subprocess.Popen(painter, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 40
        while not (found := _found(title)) and time.monotonic() < end:
            if process.poll() is not None:  # the server has cut it off
                process = subprocess.Popen(painter, stderr=subprocess.DEVNULL)
            time.sleep(0.05)
        assert found, f"no window {title!r} has come; its painter: {process.poll()}"
        yield found
    finally:
        process.kill()
        process.wait()


def _found(title: str) -> str:
    """The window's id, if it is shown: xdotool gives up where another one closes meanwhile."""
    find = ["xdotool", "search", "--onlyvisible", "--name", f"^{title}$"]
    done = subprocess.run(find, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else ""


def xdotool(*words: object) -> None:
    subprocess.run(["xdotool", *map(str, words)], check=True, timeout=5)


def wait_for(source: LiveSource, wanted: object, seconds: float = 5.0) -> Frame:
    """The first frame that is as wanted."""
    end = time.monotonic() + seconds
    frame = None
    for frame in source:
        if wanted(frame) or time.monotonic() > end:  # type: ignore[operator]
            break
    assert frame is not None
    assert wanted(frame), frame.planes[0].mean((0, 1))  # type: ignore[operator]
    return frame


def painted(frame: Frame) -> bool:
    """Red with its green square, and nothing else."""
    wanted = np.full_like(frame.planes[0], (255, 0, 0))
    wanted[:20, :20] = (0, 255, 0)
    return bool((frame.planes[0] == wanted).all())


def where(frame: Frame) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of what is red or green on the screen."""
    ys, xs = np.nonzero(frame.planes[0][..., :2].max(-1) > 200)
    if not len(xs):
        return None
    return int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1


def test_a_moving_window_is_seen_on_the_screen_and_followed(display: str) -> None:
    del display
    with painting("velatura painted") as window:
        assert [screen.size for screen in list_devices("screen")] == ["640x480+0+0"]
        found = [w for w in list_windows() if w.title == "velatura painted"]
        assert [w.id for w in found] == [int(window)]
        screen = open_live_source("screen:?fps=20&cursor=0")
        follower = open_live_source("window:VELATURA paint?fps=20&cursor=0")
        told: list[str] = []
        follower.tell = told.append
        with screen, follower:
            assert (screen.info.width, screen.info.height, screen.info.rate) == (640, 480, 20)
            assert (follower.info.width, follower.info.height) == (200, 100)
            wait_for(screen, lambda frame: where(frame) == (40, 30, 200, 100))
            wait_for(follower, painted)
            for left, top in ((300, 200), (120, 350)):
                xdotool("windowmove", window, left, top)
                wait_for(screen, lambda frame, at=(left, top): where(frame) == (*at, 200, 100))
                wait_for(follower, painted)
            xdotool("windowsize", window, 150, 80)
            wait_for(
                follower, lambda frame: (frame.width, frame.height) == (150, 80) and painted(frame)
            )
            # Half of it beyond the screen: as large as before, and black there.
            xdotool("windowmove", window, 565, 350)
            wait_for(
                follower,
                lambda frame: (
                    (frame.width, frame.height) == (150, 80)
                    and not frame.planes[0][:, 75:].any()
                    and (frame.planes[0][20:, :75] == (255, 0, 0)).all()
                ),
            )
        assert any("pictures are now 150x80" in line for line in told)
    # Nobody takes any more from what is closed.
    assert list(screen) == []


def test_a_region_keeps_its_rate_and_says_when_it_was_taken(display: str) -> None:
    del display
    with painting("velatura region"):
        with open_live_source("screen:60x40+70+60?fps=25&cursor=0") as source:
            assert (source.info.width, source.info.height) == (60, 40)
            wait_for(source, lambda frame: (frame.planes[0] == (255, 0, 0)).all())
            frames: list[Frame] = []
            late: list[float] = []
            for frame in source:
                frames.append(frame)
                late.append(time.monotonic() - (frame.captured or 0))
                if len(frames) == 26:
                    break
        assert float(np.median(late)) < 0.03
        # A pause of the machine is not the source's: what it keeps is the step, and no haste after.
        steps = np.diff([frame.seconds for frame in frames])
        assert float(np.median(steps)) == pytest.approx(0.04, abs=0.01)
        assert steps.sum() > 0.95


def test_a_window_that_closes_is_waited_for(display: str) -> None:
    del display
    with painting("velatura brief"):
        source = open_live_source("window:velatura brief?fps=10&cursor=0")
        wait_for(source, painted)
    told: list[str] = []
    source.tell = told.append
    with source:
        wait_for(source, lambda _: any("is gone" in line for line in told))
        with painting("velatura brief"):
            wait_for(source, painted, 10)
        assert any("is back" in line for line in told)


def test_wrong_names_list_what_there_is(display: str) -> None:
    del display
    with painting("velatura one"), painting("velatura two"):
        cases = {
            "screen:7": r"there is no screen:7; there are screen:0 \(640x480\+0\+0\)",
            "screen:100x100+600+0": "beyond the screen, which is 640x480",
            "screen:left": "is no screen; write screen:0",
            "window:nothing like it": "there is .*'velatura one'",
            "window:velatura": "2 windows have 'velatura' in their titles",
            "window:": "needs a title",
            "screen:?colour=1": "no option colour; there are api, cursor, fps",
        }
        for uri, words in cases.items():
            with pytest.raises(SourceError, match=words):
                open_live_source(uri)


def test_no_display_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SourceError, match=r"no screen can be captured here.*\$DISPLAY is not set"):
        open_live_source("screen:")
    with pytest.raises(SourceError, match="xwininfo failed"):
        open_live_source("window:any")


def test_ffmpeg_captures_a_covered_window_where_its_libraries_are_its_own(
    display: str,
) -> None:
    """In a process of its own: whose X libraries are loaded first cannot be changed later."""
    code = """
import {first}
from velatura.runtime.sources import open_live_source
try:
    with open_live_source("window:velatura covered?api=x11&fps=20&cursor=0") as source:
        for frame in source:
            if frame.index > 5:
                print(frame.planes[0].mean((0, 1)).round().tolist(), frame.width, frame.height)
                break
except Exception as error:
    print(type(error).__name__, error)
"""
    with painting("velatura covered") as window, painting("velatura cover", 300, 200) as cover:
        xdotool("windowmove", window, 60, 60)
        xdotool("windowraise", cover)

        def run(first: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", code.format(first=first)],
                capture_output=True, text=True, timeout=30, env={**os.environ, "DISPLAY": display},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "200 100" in run("av")
        after = run("cv2, av")
        # Where the wheels of both share no file, either order will do.
        assert "200 100" in after or "OpenCV was loaded before PyAV" in after
