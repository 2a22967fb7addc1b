"""Live sources that need no network and no screen: paced files, pipes, generators, cameras."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import sources
from velatura.runtime.backoff import Backoff
from velatura.runtime.errors import SourceError
from velatura.runtime.frame import Frame
from velatura.runtime.media.live_audio import LiveAudio
from velatura.runtime.sources import (
    KINDS,
    camera,
    list_devices,
    live_address,
    open_live_source,
    open_source,
)
from velatura.runtime.sources.ffmpeg_live import Backlog, Timeline
from velatura.runtime.sources.kind import Address, Device, SourceKind
from velatura.runtime.sources.live import TIME_BASE, LiveSource
from velatura.runtime.sources.paced import PacedSource

from .. import videos
from ..commands import velatura


def taken(source: LiveSource, count: int) -> list[Frame]:
    frames: list[Frame] = []
    for frame in source:
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


def seconds_to_close(source: LiveSource) -> float:
    """While another thread waits for a frame."""
    reader = threading.Thread(target=lambda: list(source), daemon=True)
    reader.start()
    time.sleep(0.1)
    begin = time.monotonic()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    return time.monotonic() - begin


def test_a_file_is_given_at_its_own_pace(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=75, rate=50)
    with open_live_source(str(path), keep=True) as source:
        assert source.info.rate == 50
        assert source.info.frames is None
        assert source.info.path is None, "its sound is not to be copied whole"
        assert source.info.files == (str(path),), "and it is not to be written to"
        frames, late = [], []
        for frame in source:
            late.append(time.monotonic() - (frame.captured or 0))
            frames.append(frame)
    with open_source(path) as original:
        for ours, theirs in zip(frames, original, strict=True):
            assert (ours.planes[0] == theirs.planes[0]).all()
            assert ours.pts == round(theirs.seconds / TIME_BASE)
    captured = np.array([frame.captured for frame in frames])
    # Due times have no drift at all, however late this machine is, and no frame comes early.
    assert np.allclose(np.diff(captured), 0.02, atol=1e-9)
    assert 0 <= min(late) < 0.005


def test_drift_is_below_a_millisecond_a_second(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=30, rate=100)
    with open_live_source(f"{path}?loop=1", keep=True) as source:
        late: list[tuple[float, float]] = []
        for frame in source:
            due = frame.captured or 0.0
            late.append((due, time.monotonic() - due))
            if len(late) == 300:
                break
    moments, delays = np.array(late).T
    # The lower edge of the delays: a busy machine adds to some of them.
    first, last = delays[:100].min(), delays[-100:].min()
    assert moments[-1] - moments[0] > 2.9
    assert abs(last - first) / (moments[-1] - moments[0]) < 1e-3


def test_a_loop_goes_on_without_a_seam(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=8, rate=50)
    with open_live_source(f"file:{path}?loop=1&speed=2", keep=True) as source:
        assert source.info.rate == 100
        frames = taken(source, 30)
        assert seconds_to_close(source) < 1
    assert {b.pts - a.pts for a, b in pairwise(frames)} == {900}
    assert [frame.index for frame in frames] == list(range(30))
    assert (frames[0].planes[0] == frames[8].planes[0]).all()
    assert (frames[0].planes[0] == frames[24].planes[0]).all()


def test_a_late_reader_gets_the_newest_frame_or_all_of_them_late(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=30, rate=50)
    with open_live_source(str(path)) as source:
        indexes = []
        for frame in source:
            indexes.append(frame.index)
            time.sleep(0.1)
    assert indexes[-1] == 29
    assert len(indexes) < 14
    assert source.dropped == 30 - len(indexes)
    with open_live_source(str(path), keep=True) as source:
        count, late = 0, 0.0
        for frame in source:
            count += 1
            time.sleep(0.03)
            late = time.monotonic() - (frame.captured or 0)
    assert (count, source.dropped) == (30, 0)
    assert late > 0.3, "being late counts"


def test_a_file_too_slow_to_decode_does_not_stand_still(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=20, rate=50)

    def slowly() -> Any:
        source = open_source(path)
        whole = source.__iter__

        def frames() -> Iterator[Frame]:
            for frame in whole():
                time.sleep(0.1)
                yield frame

        return SimpleNamespace(
            __enter__=None, info=source.info, frames=frames, close=source.close, source=source
        )

    class Slow:
        def __init__(self) -> None:
            self._parts = slowly()
            self.info = self._parts.info
            self.damage, self.end = self._parts.source.damage, None

        def __enter__(self) -> "Slow":
            return self

        def __exit__(self, *_: object) -> None:
            self._parts.close()

        def __iter__(self) -> Iterator[Frame]:
            return self._parts.frames()

    told: list[str] = []
    with PacedSource("slow", Slow) as source:  # type: ignore[arg-type]
        source.tell = told.append
        late = [time.monotonic() - (frame.captured or 0) for frame in source]
    assert len(late) == 20, "none is left out: they are as new as can be"
    assert max(late) < 0.65
    assert sum("its clock was put back" in line for line in told) == 1


def test_the_sound_of_a_file_comes_on_the_clock_of_its_pictures(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mp4", codec="libx264", frames=25, rate=25, tone=True)
    with open_live_source(f"{path}?loop=1") as source:
        audio = source.audio
        assert audio is not None
        assert (audio.codec, source.info.audio) == ("aac", ("aac",))
        audio.listen()
        last = taken(source, 40)[-1].seconds
    pieces = []
    while (sound := audio.take(0)) is not None:
        pieces.append((sound.seconds, sound.frame.samples))
    assert audio.closed
    ends = [begin + samples / 48_000 for begin, samples in pieces]
    assert last < ends[-1] < last + 0.7, "no more than is needed is decoded"
    assert sum(samples for _, samples in pieces) / 48_000 == pytest.approx(ends[-1], abs=0.1)
    steps = np.array([b[0] for b in pieces[1:]]) - np.array(ends[:-1])
    assert (abs(steps) < 0.0021).mean() > 0.95, "one seam at most"


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("100%/shot-%02d.png", 3),
        ("100%/shot-*.png", 3),
        ("100%/shot-0[01].png", 2),
        ("100%/50%.png", 1),
        ("100%/missing.png", None),
        ("a*/missing.png", None),
    ],
)
def test_a_sequence_is_what_it_is_for_files(tmp_path: Path, name: str, frames: int | None) -> None:
    (tmp_path / "100%").mkdir()
    for picture in ("shot-00.png", "shot-01.png", "shot-02.png", "50%.png"):
        cv2.imwrite(str(tmp_path / "100%" / picture), np.zeros((32, 48, 3), np.uint8))
    path = str(tmp_path / name)
    found: list[int | str] = []
    for opener in (open_source, open_live_source):
        try:
            with opener(path) as source:
                found.append(len(list(source)))
        except SourceError as error:
            found.append(str(error).replace(path, "it"))
    folder = Path(path).parent
    none = "no file at it" if folder.is_dir() else f"no file at it: there is no folder {folder}"
    wanted = none if frames is None else frames
    assert found == [wanted, wanted]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_recognised_opened_by_its_module_and_named_by_the_help(kind: SourceKind) -> None:
    module = import_module(f"velatura.runtime.sources{kind.module}")
    for command, example in (("run", kind.run), ("live", kind.live)):
        words = velatura(command, "--help").stdout.replace("\u2502", " ").split()
        assert example in " ".join(words)
    if not kind.live:
        assert callable(module.open_waiting)
        return
    assert callable(module.open_live)
    assert hasattr(module, "list_devices") >= bool(kind.devices)
    for scheme in kind.schemes or (kind.name,):
        address = live_address(f"{scheme.upper()}://x{kind.sign}patience=3")
        assert (address.kind, address.options) == (kind, {"patience": "3"})


def test_a_new_kind_is_a_module_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_live(address: Address, *, options: dict[str, str], keep: bool) -> LiveSource:
        del options, keep
        return open_live_source([np.full((4, 6, 3), int(address.options["grey"]), np.uint8)])

    module = ModuleType("velatura.runtime.sources.imagined")
    module.__dict__.update(
        OPTIONS=("grey", "patience", "retries", "stall"),
        open_live=open_live,
        list_devices=lambda kind: [Device(name=f"{kind}:STUDIO", size="6x4")],
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    line = SourceKind("imagined", ".imagined", live="imagined:NAME", devices="senders")
    monkeypatch.setattr(sources, "KINDS", (*KINDS, line))
    with open_live_source("imagined:STUDIO?grey=7") as source:
        assert [frame.planes[0].max() for frame in source] == [7]
    with pytest.raises(SourceError, match="no option gray; there are grey, patience, retries, stall"):
        open_live_source("imagined:STUDIO?gray=7")
    assert [found.to_json() for found in list_devices(line)] == [
        {"name": "imagined:STUDIO", "size": "6x4"}
    ]


def test_patterns_and_sequences_are_paced_too() -> None:
    with open_live_source("pattern:64x48@100?frames=10&loop=1", keep=True) as source:
        assert [frame.index for frame in taken(source, 15)] == list(range(15))
    for wrong in ("pattern:64x48?frame=1", "none.mp4", "none.mp4?loop=1"):
        with pytest.raises(SourceError):
            open_live_source(wrong)
    with pytest.raises(SourceError, match="loop=2 is neither 0 nor 1"):
        open_live_source("pattern:64x48?loop=2")
    with pytest.raises(SourceError, match="no option lop; there are loop, pace, patience, speed"):
        open_live_source("clip.mp4?lop=1")


def test_a_pipe_is_paced_by_its_own_times_and_closes_at_once(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.y4m", codec="wrapped_avframe", frames=40, rate=50)
    code = """
import sys, threading, time
from velatura.runtime.sources import open_live_source
source = open_live_source("-")
moments = []
for frame in source:
    moments.append(time.monotonic())
    if len(moments) == 35:
        break
print(source.info.rate, moments[-1] - moments[0])
reader = threading.Thread(target=lambda: list(source), daemon=True)
reader.start()
time.sleep(0.5)  # the rest is read; now it waits
begin = time.monotonic()
source.close()
reader.join(5)
print(reader.is_alive(), time.monotonic() - begin)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(path.read_bytes())
        process.stdin.flush()
        # Standard input stays open: whoever reads it waits for more.
        first, second = (process.stdout.readline().split() for _ in range(2))
        process.stdin.close()
        assert process.wait(10) == 0
    assert first[0] == b"50"
    # A machine that is busy puts the clock back, never forward.
    assert 34 / 50 - 0.03 < float(first[1]) < 1.5
    assert second[0] == b"False"
    assert float(second[1]) < 1


def test_generators_give_arrays_and_frames() -> None:
    def arrays() -> Iterator[np.ndarray]:
        for value in range(12):
            yield np.full((20, 30, 3), value, np.uint8)

    begin = time.monotonic()
    with open_live_source(arrays(), rate=Fraction(50)) as source:
        assert (source.info.width, source.info.height, source.info.rate) == (30, 20, 50)
        frames = list(source)
    assert time.monotonic() - begin == pytest.approx(11 / 50, abs=0.15)
    assert [int(frame.planes[0][0, 0, 0]) for frame in frames] == list(range(12))
    assert {b.pts - a.pts for a, b in pairwise(frames)} == {1800}
    with open_source("pattern:64x48?frames=3") as pattern, open_live_source(pattern) as source:
        assert source.info.format.family == "yuv"
        assert len(list(source)) == 3
    with open_live_source([np.zeros((4, 4), np.uint16)]) as source:
        assert (str(source.info.format), len(list(source))) == ("gray 16 bit", 1)


def test_what_a_generator_does_wrong_is_said() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((4, 4, 3), np.uint8)
        raise ZeroDivisionError("by me")

    with (
        open_live_source(broken()) as source,
        pytest.raises(SourceError, match="ZeroDivisionError: by me"),
    ):
        list(source)
    with pytest.raises(SourceError, match="gave a str, not a Frame"):
        open_live_source(iter(["no"]))
    with pytest.raises(SourceError, match=r"an array of \(4, 4, 4\) float64"):
        open_live_source([np.zeros((4, 4, 4))])
    with pytest.raises(SourceError, match="ended before its first picture"):
        open_live_source([])


def test_a_generator_that_waits_for_ever_is_left() -> None:
    never = threading.Event()

    def waits() -> Iterator[np.ndarray]:
        yield np.zeros((4, 4, 3), np.uint8)
        never.wait(20)

    assert seconds_to_close(open_live_source(waits())) < 1

    def silent() -> Iterator[np.ndarray]:
        never.wait(20)
        yield np.zeros((4, 4, 3), np.uint8)

    with pytest.raises(SourceError, match=r"gave no picture within 0\.2 s"):
        open_live_source(silent(), patience=0.2)
    never.set()


class Capture:
    """Stands in for `cv2.VideoCapture`."""

    plugged = True
    opens = True
    rate = 30.0
    opened: "list[Capture]" = []  # noqa: RUF012 - what the tests look at

    def __init__(self, place: int | str) -> None:
        self.place = place
        self.properties: dict[int, float] = {}
        self.released = False
        self.count = 0
        self.works = Capture.plugged and Capture.opens
        Capture.opened.append(self)

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.works

    def set(self, name: int, value: float) -> bool:
        self.properties[name] = value
        return True

    def get(self, name: int) -> float:
        return Capture.rate if name == camera.cv2.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.01)
        if not Capture.plugged:
            return False, None
        self.count += 1
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 0] = 200  # blue comes first
        return True, picture

    def release(self) -> None:
        self.released = True


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cameras, the first with a second node, as Linux lists them."""
    for node, name, index in (("video0", "Front", 0), ("video1", "Front", 1), ("video2", "Desk", 0)):
        entry = tmp_path / "sys" / node
        entry.mkdir(parents=True)
        (entry / "name").write_text(name + "\n")
        (entry / "index").write_text(f"{index}\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / node).touch()
    monkeypatch.setattr(camera, "SYSTEM", tmp_path / "sys")
    monkeypatch.setattr(camera, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(camera.cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "opened", [])
    monkeypatch.setattr(Capture, "plugged", True)
    monkeypatch.setattr(Capture, "opens", True)
    monkeypatch.setattr(Capture, "rate", 30.0)
    return tmp_path / "dev"


@pytest.mark.usefixtures("devices")
def test_a_camera_is_set_and_read() -> None:
    with open_live_source("camera:2?size=640x480&fps=30&fourcc=MJPG") as source:
        assert (source.info.width, source.info.height, source.info.rate) == (64, 48, 30)
        assert source.info.notes == ("the camera gives 64x48, not the 640x480 asked for",)
        frames = taken(source, 5)
        assert seconds_to_close(source) < 1
    capture = Capture.opened[0]
    assert capture.place == 2
    cv2 = camera.cv2
    assert capture.properties == {
        cv2.CAP_PROP_BUFFERSIZE: 1,
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
        cv2.CAP_PROP_FRAME_WIDTH: 640,
        cv2.CAP_PROP_FRAME_HEIGHT: 480,
        cv2.CAP_PROP_FPS: 30.0,
    }
    assert (frames[0].planes[0] == (0, 0, 200)).all(), "RGB"
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    end = time.monotonic() + 2
    while not capture.released and time.monotonic() < end:
        time.sleep(0.02)
    assert capture.released


@pytest.mark.usefixtures("devices")
def test_a_camera_that_states_no_rate_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "rate", 0.0)
    with open_live_source("/dev/video0", rate=Fraction(30)) as source:
        assert 10 < source.info.rate < 101
        assert any("frames a second, not 30" in note for note in source.info.notes)


def test_a_camera_that_is_unplugged_is_told_and_comes_back(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with open_live_source("camera:0") as source:
        source.tell = told.append
        shown = taken(source, 3)
        (devices / "video0").unlink()
        monkeypatch.setattr(Capture, "plugged", False)
        back = threading.Timer(1.2, lambda: setattr(Capture, "plugged", True))
        back.start()
        before = len(Capture.opened)
        frames = shown + taken(source, 30)
        gap = max(b.seconds - a.seconds for a, b in pairwise(frames))
        back.join()
    assert gap > 1
    assert len(Capture.opened) > before
    assert "it was unplugged" in told[0]
    assert "trying again in 0.5 s" in told[0]
    assert "camera:2 (Desk)" in told[0]
    monkeypatch.setattr(Capture, "plugged", True)
    with open_live_source("camera:0?retries=0") as source:
        taken(source, 3)
        monkeypatch.setattr(Capture, "plugged", False)
        with pytest.raises(SourceError, match=r"any more: it was unplugged.* it is given up"):
            list(source)


def test_why_a_camera_cannot_be_opened(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "opens", False)
    with pytest.raises(
        SourceError, match=r"there is no .*video7; there are camera:0 \(Front\), camera:2 \(Desk\)"
    ):
        open_live_source("camera:7")
    with pytest.raises(SourceError, match="is no camera; there are camera:0"):
        open_live_source("camera:front")
    with pytest.raises(SourceError, match=r"no v4l2|gave no picture|No such file"):
        open_live_source("camera:0?api=v4l2", patience=0.5)
    real = os.open

    def refuse(code: int) -> Callable[..., int]:
        def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if "video0" in str(path):
                raise OSError(code, os.strerror(code))
            return real(path, flags, *rest, **more)

        return opened

    monkeypatch.setattr(camera.os, "open", refuse(errno.EBUSY))
    with pytest.raises(SourceError, match="video0 is busy: close the other program"):
        open_live_source("camera:0")
    monkeypatch.setattr(camera.os, "open", refuse(errno.EACCES))
    with pytest.raises(SourceError, match="join the group 'video'"):
        open_live_source("camera:0")
    monkeypatch.setattr(camera.os, "open", real)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()",
         str(devices / "video0")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(SourceError, match=rf"busy \(used by .*, process {other.pid}\)"):
            open_live_source("camera:0")
        other.communicate()


@pytest.mark.usefixtures("devices")
def test_the_command_lists_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from velatura.runtime.jobs.devices import show_devices

    monkeypatch.delenv("DISPLAY", raising=False)
    show_devices(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [(c["name"], c["title"], c["problem"]) for c in found["cameras"]] == [
        ("camera:0", "Front", ""), ("camera:2", "Desk", ""),
    ]  # fmt: skip
    assert found["screens"] == found["windows"] == []
    assert "no screen can be captured here" in found["problems"]["screens"]
    show_devices(as_json=False)
    text = capsys.readouterr().out
    assert "camera:2" in text
    assert "none: no screen can be captured here" in text


def test_a_machine_without_cameras_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(camera, "SYSTEM", tmp_path / "none")
    monkeypatch.setattr(camera, "DEVICES", tmp_path / "none")
    monkeypatch.setattr(camera.cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "opens", False)
    with pytest.raises(SourceError, match="no camera is found on this machine"):
        open_live_source("camera:")


@pytest.mark.parametrize(
    ("uri", "kind", "place", "options"),
    [
        ("camera:0", "camera", "0", {}),
        ("/dev/video3?fps=25", "camera", "/dev/video3", {"fps": "25"}),
        ("window:Is it? Yes: 1=1", "window", "Is it? Yes: 1=1", {}),
        ("window:a?fps=5", "window", "a", {"fps": "5"}),
        (
            "udp://@239.0.0.1:5000?ttl=2#stall=3",
            "stream",
            "udp://@239.0.0.1:5000?ttl=2",
            {"stall": "3"},
        ),
        ("https://x/live.m3u8?token=a%20b", "stream", "https://x/live.m3u8?token=a%20b", {}),
        ("file:clip.mp4?loop=1&speed=2", "file", "clip.mp4", {"loop": "1", "speed": "2"}),
        ("pattern:64x48@30?frames=9&loop=1", "file", "pattern:64x48@30?frames=9", {"loop": "1"}),
        ("-", "file", "-", {}),
    ],
)
def test_addresses(uri: str, kind: str, place: str, options: dict[str, str]) -> None:
    address = live_address(uri)
    assert (address.kind.name, address.place, address.options) == (kind, place, options)


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_address_breaks_the_parser(text: str) -> None:
    with suppress(SourceError):
        assert live_address(text).uri == text


def test_video4linux_gets_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyAV's FFmpeg has it, which its wheels do not."""
    made: list[Any] = []
    monkeypatch.setattr(camera, "formats_available", {"v4l2"})
    monkeypatch.setattr(camera, "StreamSource", lambda _, find: made.append(find()))
    open_live_source("camera:1?api=v4l2&size=640x480&fps=30&fourcc=MJPG", options={"ts": "mono2abs"})
    assert (made[0].url, made[0].format) == ("/dev/video1", "v4l2")
    assert made[0].options == {
        "video_size": "640x480", "framerate": "30", "input_format": "mjpg", "fflags": "nobuffer",
        "ts": "mono2abs",
    }  # fmt: skip
    monkeypatch.setattr(camera, "formats_available", {"rtsp"})
    with pytest.raises(SourceError, match="no v4l2"):
        open_live_source("camera:1?api=v4l2")


def test_numbers_in_addresses_are_checked() -> None:
    for wrong in ("fps=0", "fps=x", "fps=1/0", "fps=1e9", "size=12", "retries=-1", "patience=inf"):
        address = live_address(f"camera:0?{wrong}")
        with pytest.raises(SourceError):
            _ = address.size(), address.rate(), address.retries(), address.number("patience", 1)
    assert live_address("camera:0?fps=25").given(rate=Fraction(30), size=(4, 3)).options == {
        "fps": "25", "size": "4x3",
    }  # fmt: skip


@given(st.lists(st.floats(0, 0.3), min_size=20, max_size=60), st.floats(-1e6, 1e6))
@settings(max_examples=60, deadline=None)
def test_jitter_never_moves_a_picture_by_more_than_itself(jitter: list[float], start: float) -> None:
    line = Timeline(paced=False)
    for index, late in enumerate(jitter):
        own = index / 30
        placed = line.place(start + own, 1000 + own + late)
        assert 1000 + own - 1e-6 <= placed <= 1000 + own + late + 1e-6


def test_a_clock_that_jumps_is_followed() -> None:
    line = Timeline(paced=False)
    assert line.place(50.0, 1000.0) == 1000.0
    assert line.place(50.1, 1000.1) == pytest.approx(1000.1)
    assert line.place(3.0, 1000.2) == pytest.approx(1000.2), "a sender that restarted"
    assert line.place(9000.0, 1000.3) == pytest.approx(1000.3), "or jumped ahead"
    assert line.place(None, 1000.4) == 1000.4
    paced = Timeline(paced=True)
    assert paced.of(1.0) is None
    assert paced.place(0.0, 1000.0) == 1000.0
    assert paced.place(2.0, 1000.1) == pytest.approx(1002.0), "due, not yet"
    assert paced.place(4.0, 1006.0) == pytest.approx(1006.0), "it ran dry"
    assert paced.place(5.0, 1006.1) == pytest.approx(1007.0)
    assert paced.place(5000.0, 1006.2) == pytest.approx(1006.2)
    assert paced.of(5001.0) == pytest.approx(1007.2)


def test_a_backlog_goes_on_at_the_newest_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("velatura.runtime.sources.ffmpeg_live.time.monotonic", lambda: now[0])

    def packets(backlog: Backlog, kinds: str) -> None:
        for kind in kinds:
            packet = av.Packet(b"x")
            packet.is_keyframe = kind == "K"
            backlog.put(packet)
            now[0] += 0.1

    def kinds(backlog: Backlog) -> str:
        backlog.close(drop=False)
        return "".join("K" if item[0].is_keyframe else "p" for item in iter(backlog.take, None))

    backlog = Backlog(paced=False)
    packets(backlog, "KppppKpppppp")  # the twelfth comes when the first has waited for 1.1 s
    assert kinds(backlog) == "Kpppppp"
    assert backlog.left_out == 5
    backlog = Backlog(paced=False)
    packets(backlog, "KpppppppppppppKp")  # no other to begin at: the next that comes
    assert kinds(backlog) == "Kp"
    assert backlog.left_out == 14
    backlog = Backlog(paced=True)
    packets(backlog, "K" + "p" * 30)
    assert kinds(backlog) == "K" + "p" * 30


def test_waits_double_and_end() -> None:
    backoff = Backoff(None)
    assert [backoff.next() for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.next() == 0.5
    backoff = Backoff(2)
    assert [backoff.next() for _ in range(3)] == [0.5, 1, None]


def test_waits_stay_at_the_longest_however_long_an_outage_is() -> None:
    backoff = Backoff(first=0.5, longest=30.0)
    assert [backoff.pause() for _ in range(3000)][-1] == 30
    assert backoff.failures == 3000


def _tone(samples: int, *, rate: int, format: str, layout: str) -> av.AudioFrame:
    channels = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(
        np.full((channels, samples), 0.25, np.float32)
        if format == "fltp"
        else np.full((1, samples * channels), 8192, np.int16),
        format=format,
        layout=layout,
    )
    frame.sample_rate = rate
    return frame


def test_sound_of_any_kind_becomes_one_kind() -> None:
    audio = LiveAudio("any")
    assert not audio.listening
    audio.listen()
    at = 0.0
    for rate, format, layout in ((48_000, "fltp", "mono"), (44_100, "s16", "stereo")):
        for _ in range(20):
            audio.put(at, _tone(1024, rate=rate, format=format, layout=layout))
            at += 1024 / rate
    samples = 0
    while (sound := audio.take(0)) is not None:
        wave = sound.frame.to_ndarray()
        assert (sound.frame.format.name, sound.frame.layout.name, sound.frame.sample_rate) == (
            "fltp", "stereo", 48_000,
        )  # fmt: skip
        assert wave.shape[0] == 2
        samples += wave.shape[1]
    assert samples / 48_000 == pytest.approx(at, abs=0.002)


def test_sound_that_nobody_takes_does_not_grow_without_bound() -> None:
    audio = LiveAudio("any")
    audio.listen()
    for index in range(40):
        audio.put(float(index), _tone(48_000, rate=48_000, format="fltp", layout="stereo"))
    audio.put(3.0, _tone(4800, rate=48_000, format="fltp", layout="stereo"))
    first = audio.take(0)
    assert first is not None
    assert first.seconds == pytest.approx(10.0, abs=0.01)
    assert audio.dropped == 11, "ten too old, and one that came too late"
    audio.close()
    assert not audio.closed, "the rest can still be heard"
    while audio.take(0) is not None:
        pass
    assert audio.closed
    assert audio.take() is None
