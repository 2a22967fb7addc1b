"""Where live frames go: streams that another process reads, recordings with sound, windows, cameras."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from velatura.runtime.errors import SinkError
from velatura.runtime.frame import YUV420P, Frame, PixelFormat, VideoInfo
from velatura.runtime.live.open_outputs import Sounds
from velatura.runtime.media.live_audio import RATE, Evened
from velatura.runtime.sinks import Encoding, virtual_camera
from velatura.runtime.sinks.file import RecordingSink
from velatura.runtime.sinks.kind import Writing, is_stream
from velatura.runtime.sinks.stream import StreamSink
from velatura.runtime.sinks.virtual_camera import VirtualCameraSink

from ..videos import plane
from .senders import drawing, number

SIZE = (160, 120)
INFO = VideoInfo(
    width=SIZE[0], height=SIZE[1], format=YUV420P, rate=Fraction(30), time_base=Fraction(1, 90_000)
)


def frame(index: int, *, at: float | None = None) -> Frame:
    """The picture that tells its number, 30 a second unless told `at` which."""
    picture = av.VideoFrame.from_ndarray(drawing(index, SIZE), format="rgb24").reformat(
        format="yuv420p"
    )
    planes = tuple(
        np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width]
        for plane in picture.planes
    )
    seconds = index / 30 if at is None else at
    return Frame(
        planes=planes, format=YUV420P, pts=round(seconds * 90_000), time_base=Fraction(1, 90_000),
        index=index,
    )  # fmt: skip


def wanted(sound: Any = None, tell: Callable[[str], None] | None = None) -> Writing:
    return Writing(like=INFO, hear=lambda: sound, tell=tell)


class Beeps:
    """A source's sound: a click at every full second of its clock, whose second is `ppm` too long."""

    def __init__(self, seconds: float, *, ppm: float = 0.0, jitter: float = 0.0) -> None:
        rng = np.random.default_rng(1)
        self.closed = False
        self._items = iter(self._make(seconds, ppm, jitter, rng))

    def listen(self) -> None:
        return None

    def take(self, timeout: float | None = None) -> Any:
        del timeout
        heard = next(self._items, None)
        self.closed = heard is None
        return heard

    @staticmethod
    def _make(seconds: float, ppm: float, jitter: float, rng: Any) -> Iterator[Any]:
        stretch = RATE * (1 + ppm * 1e-6)
        for start in range(0, int(seconds * stretch), 1024):
            times = np.arange(start, start + 1024) / stretch
            wave = (0.7 * (times % 1.0 < 0.01)).astype(np.float32)
            made = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            made.sample_rate = RATE
            yield SimpleNamespace(seconds=start / stretch + rng.uniform(0, jitter), frame=made)


def clicks(samples: np.ndarray) -> np.ndarray:
    """Seconds at which clicks begin."""
    loud = samples > 0.25
    begins = np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE
    return begins[np.insert(np.diff(begins) > 0.5, 0, True)] if len(begins) else begins


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("ppm", [0, 150, -150, 800])
def test_sound_stays_with_the_clock_for_minutes(ppm: float) -> None:
    """A sound card whose second is longer or shorter: under 20 ms of drift, and no gap."""
    even, beeps = Evened(), Beeps(200, ppm=ppm, jitter=0.003)
    parts: list[np.ndarray] = []
    while (heard := beeps.take()) is not None:
        parts += [made.to_ndarray()[0] for made in even(heard.frame, heard.seconds)]
    parts += [made.to_ndarray()[0] for made in even.end()]
    found = clicks(np.concatenate(parts))
    assert len(found) >= 198
    assert np.abs(found - np.round(found)).max() < 0.020


def test_a_pause_in_the_sound_becomes_silence() -> None:
    even, beeps = Evened(), Beeps(10)
    parts: list[np.ndarray] = []
    while (heard := beeps.take()) is not None:
        if not 3.5 < heard.seconds < 5.5:
            parts += [made.to_ndarray()[0] for made in even(heard.frame, heard.seconds)]
    found = clicks(np.concatenate(parts))
    found = found[(found > 0.5) & (found < 9.5)]
    assert list(np.round(found)) == [1, 2, 3, 6, 7, 8, 9]
    assert np.abs(found - np.round(found)).max() < 0.020


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_recording_has_its_sound_at_the_right_time(suffix: str, tmp_path: Path) -> None:
    """Begun two and a half seconds into the run, of a source that loses frames."""
    target = tmp_path / f"recording{suffix}"
    sink = RecordingSink(str(target), wanted(Beeps(9)))
    for index in range(75, 225):
        if index % 7:
            sink.write(frame(index % 256, at=index / 30))
    sink.close()
    with av.open(str(target)) as container:
        pictures = [
            (float(p.pts * p.time_base), number(plane(p, 0))) for p in container.decode(video=0)
        ]
    with av.open(str(target)) as container:
        heard = list(container.decode(audio=0))
    assert [n for _, n in pictures] == [i % 256 for i in range(75, 225) if i % 7]
    start = pictures[0][0]
    for seconds, shown in pictures:
        assert seconds - start == pytest.approx((shown - 75) / 30, abs=0.002)
    samples = np.concatenate([a.to_ndarray()[0] for a in heard])
    found = clicks(samples) + float(heard[0].pts * heard[0].time_base) - start
    # Clicks at 3, 4, 5, 6 and 7 s of the source, 2.5 s before the recording's zero.
    np.testing.assert_allclose(found, [0.5, 1.5, 2.5, 3.5, 4.5], atol=0.03)


class Waiting(Beeps):
    """Nothing is heard before somebody is ready."""

    ready = False

    def take(self, timeout: float | None = None) -> Any:
        return super().take(timeout) if self.ready else time.sleep(0.01)


def test_two_recordings_hear_the_same(tmp_path: Path) -> None:
    beeps = Waiting(4)
    sounds = Sounds(beeps)
    sinks = [RecordingSink(str(tmp_path / f"{n}.mkv"), wanted(sounds.branch())) for n in range(2)]
    beeps.ready = True
    patience = time.monotonic() + 10
    while not beeps.closed and time.monotonic() < patience:
        time.sleep(0.01)
    for index in range(60):
        for sink in sinks:
            sink.write(frame(index))
    for sink in sinks:
        sink.close()
    sounds.close()
    loud = []
    for n in range(2):
        with av.open(str(tmp_path / f"{n}.mkv")) as container:
            loud.append(np.concatenate([a.to_ndarray()[0] for a in container.decode(audio=0)]))
    assert abs(len(loud[0]) - len(loud[1])) <= 1024
    assert len(loud[0]) > RATE


READ = """
import sys, av
from tests.runtime.live.senders import number
from tests.runtime.videos import plane
container = av.open(sys.argv[1], options={"timeout": "20000000"})
wanted, count = int(sys.argv[2]), 0
for picture in container.decode(video=0):
    print(number(plane(picture, 0)), picture.width, flush=True)
    count += 1
    if count == wanted: break
sound = [s for s in container.streams.audio]
print("sound", len(sound), flush=True)
"""


@contextmanager
def reader(url: str, wanted: int) -> Iterator["subprocess.Popen[str]"]:
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", READ, url, str(wanted)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def feed(sink: StreamSink, until: Any, *, most: float = 25.0) -> int:
    """Frames in real time until `until` says that they have arrived."""
    begin, index = time.monotonic(), 0
    while not until() and time.monotonic() - begin < most:
        sink.write(frame(index % 256, at=index / 30))
        index += 1
        time.sleep(max(begin + index / 30 - time.monotonic(), 0))
    return index


@pytest.mark.parametrize(
    ("there", "here"),
    [("udp://127.0.0.1:{0}", "udp://127.0.0.1:{0}"), ("tcp://127.0.0.1:{0}?listen=1", "tcp://127.0.0.1:{0}")],
    ids=["udp", "tcp"],
)  # fmt: skip
def test_another_process_reads_the_stream(there: str, here: str) -> None:
    number_ = port()
    with reader(there.format(number_), 40) as process:
        time.sleep(1.5)  # until it listens
        sink = StreamSink(here.format(number_), wanted(Beeps(60)))
        feed(sink, lambda: process.poll() is not None)
        said = process.communicate(timeout=10)[0].split("\n")
        sink.abort()
    shown = [tuple(map(int, line.split())) for line in said if line and line[0].isdigit()]
    assert len(shown) == 40
    numbers = [n for n, _ in shown]
    steps = {(b - a) % 256 for a, b in pairwise(numbers)}
    assert steps == {1}, "in order, none missing"
    assert shown[0][1] == SIZE[0]
    assert "sound 1" in said


def test_rtmp_and_its_reconnection() -> None:
    """A server that goes away and comes back: frames go on, and the gap is told."""
    url = f"rtmp://127.0.0.1:{port()}/live/key"
    told: list[str] = []
    listen = "container = av.open(sys.argv[1], options={'listen': '1', 'timeout': '20'})"
    code = READ.replace('container = av.open(sys.argv[1], options={"timeout": "20000000"})', listen)
    root = Path(__file__).resolve().parents[3]

    def server() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", code, url, "1000"], stdout=subprocess.PIPE, text=True, cwd=root
        )

    first = server()
    time.sleep(1.5)
    sink = StreamSink(url, wanted(tell=told.append))
    lines: list[str] = []

    def collect(process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    thread = threading.Thread(target=collect, args=(first,), daemon=True)
    thread.start()
    feed(sink, lambda: len(lines) > 10)
    assert len(lines) > 10
    first.kill()
    first.wait()
    thread.join(5)
    lines.clear()
    feed(sink, lambda: bool(told))
    assert "was cut" in told[0]
    second = server()
    threading.Thread(target=collect, args=(second,), daemon=True).start()
    feed(sink, lambda: len(lines) > 10)
    second.kill()
    second.wait()
    sink.abort()
    assert len(lines) > 10
    assert any("connected again" in line for line in told)
    assert sink.lost > 0


def test_hls_is_a_playlist_that_plays(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    sink = StreamSink(str(playlist), wanted(Beeps(8)))
    for index in range(200):
        sink.write(frame(index))
    sink.close()
    assert "#EXTM3U" in playlist.read_text()
    with av.open(str(playlist)) as container:
        numbers = [number(plane(p, 0)) for p in container.decode(video=0)]
    assert numbers == list(range(200))


def test_nobody_there_is_said_at_once() -> None:
    sink = StreamSink(f"tcp://127.0.0.1:{port()}", wanted())
    with pytest.raises(SinkError, match="Is somebody listening there"):
        sink.write(frame(0))


def test_a_connection_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cable that was pulled: nobody says so, and FFmpeg would wait for a quarter of an hour."""
    import socket

    from velatura.runtime.sinks import stream

    monkeypatch.setattr(stream, "STALL", 1.0)
    told: list[str] = []
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()
        sink = StreamSink(
            f"tcp://127.0.0.1:{server.getsockname()[1]}",
            Writing(like=INFO, encoding=Encoding(crf=1), tell=told.append),
        )
        sink.write(frame(0))
        taken, _ = server.accept()
        rng, begin = np.random.default_rng(0), time.monotonic()
        index = 1
        while not told and time.monotonic() - begin < 30:
            noise = rng.integers(16, 235, (SIZE[1], SIZE[0]), np.uint8)
            noisy = frame(index % 256, at=index / 30)
            sink.write(replace(noisy, planes=(noise, *noisy.planes[1:])))
            index += 1
        begin = time.monotonic()
        sink.abort()
        assert time.monotonic() - begin < 3
        taken.close()
    assert "nothing was taken for 1 s" in told[0]


def test_addresses() -> None:
    assert (
        StreamSink("rtmp://me:word@host/live/secret?token=1", wanted()).uri
        == "rtmp://host/live/...?..."
    )
    assert is_stream("rtmp://host/live/key")
    assert is_stream("/srv/www/live.m3u8")
    assert not is_stream("film.mkv")
    assert not is_stream("window:")


OPENED: "list[Camera]" = []


class Camera:
    """pyvirtualcam's, as far as it is used."""

    def __init__(self, *, width: int, height: int, fps: float, device: str | None) -> None:
        if device == "/dev/video9":
            raise RuntimeError("'v4l2loopback' backend: device not found")
        self.width, self.height, self.fps, self.device = width, height, fps, device
        self.sent: list[np.ndarray] = []
        self.closed = False
        OPENED.append(self)

    def send(self, pixels: np.ndarray) -> None:
        self.sent.append(pixels.copy())

    def close(self) -> None:
        self.closed = True


def test_a_virtual_camera_gets_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_camera, "import_module", lambda _: SimpleNamespace(Camera=Camera))
    sink = VirtualCameraSink("/dev/video2", rate=30)
    rgb16 = Frame(
        planes=(np.full((4, 6, 3), 0x8000, np.uint16),), format=PixelFormat("rgb", 16), pts=0,
        time_base=Fraction(1, 30),
    )  # fmt: skip
    sink.write(rgb16)
    sink.close()
    (camera,) = OPENED
    assert (camera.width, camera.height, camera.fps, camera.device) == (6, 4, 30, "/dev/video2")
    assert camera.sent[0].dtype == np.uint8
    assert abs(int(camera.sent[0][0, 0, 0]) - 128) <= 1
    assert camera.closed
    with pytest.raises(SinkError, match="v4l2loopback"):
        VirtualCameraSink("/dev/video9", rate=30).write(rgb16)


WINDOW = """
import sys, threading, time
import cv2
from velatura.runtime.sinks.window import WindowSink
from velatura.runtime import open_source
pressed = []
window = WindowSink()
done = threading.Event()
keys = {"q": done.set, " ": lambda: pressed.append("space"), "esc": lambda: pressed.append("esc")}
window.bind(keys, lambda: ["30.0 fps", "full"])
def feed():
    with open_source("pattern:320x240@30?frames=900") as source:
        for frame in source:
            if done.is_set(): break
            window.write(frame)
            print("shown", flush=True)
            time.sleep(0.03)
thread = threading.Thread(target=feed, daemon=True)
thread.start()
window.serve(lambda: thread.is_alive() and not done.is_set())
print("pressed", *pressed, flush=True)
"""


@contextmanager
def desktop() -> Iterator[str]:
    """A virtual screen."""
    read, write = os.pipe()
    with subprocess.Popen(
        f"Xvfb -noreset -displayfd {write} -screen 0 640x480x24 -nolisten tcp".split(),
        pass_fds=(write,), stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        os.close(write)
        try:
            with os.fdopen(read) as told:
                yield f":{told.readline().strip()}"
        finally:
            server.terminate()


@pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool") and sys.platform == "linux"),
    reason="needs Xvfb and xdotool",
)
def test_a_window_shows_frames_and_hears_keys(tmp_path: Path) -> None:
    with desktop() as display:
        surroundings = {"DISPLAY": display, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", WINDOW], stdout=subprocess.PIPE, text=True, env=surroundings,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline().strip() == "shown"
        lines: list[str] = []
        threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True).start()
        patience = time.monotonic() + 30
        keys = ["space", "Escape", "q"]
        while process.poll() is None and time.monotonic() < patience:
            # A window without a manager has no focus of its own.
            found = subprocess.run(
                ["xdotool", "search", "--name", "velatura"], capture_output=True, text=True,
                env=surroundings, check=False,
            ).stdout.split()  # fmt: skip
            for key in keys if len(lines) > 10 else keys[:2]:
                subprocess.run(
                    ["xdotool", "windowfocus", found[-1], "key", key], env=surroundings, check=False,
                    capture_output=True,
                )  # fmt: skip
                time.sleep(0.1)
        assert process.wait(5) == 0
        time.sleep(0.2)
        assert "space" in lines[-1]
        assert "esc" in lines[-1]
