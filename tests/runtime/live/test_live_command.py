"""`velatura live` as a user runs it, and what acts on it: controls, figures, an async loop."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from velatura.runtime.adaptive.processor import StagesProcessor
from velatura.runtime.errors import SinkError, SourceError
from velatura.runtime.frame import Frame
from velatura.runtime.jobs.live import Session, run_live
from velatura.runtime.live import LivePump, LiveStats
from velatura.runtime.live.controls import Controls, Recorder
from velatura.runtime.live.open_outputs import Branch, Place, Sounds, record
from velatura.runtime.live.pump import FramesSink
from velatura.runtime.live.stats import Metrics
from velatura.runtime.sinks import Encoding, Sink
from velatura.runtime.sinks import window as window_module
from velatura.runtime.sinks.file import RecordingSink
from velatura.runtime.sinks.null import NullSink
from velatura.runtime.sinks.window import WindowSink
from velatura.runtime.sources import open_live_source

from .. import videos
from ..commands import velatura
from ..ctrl_c import press_later
from .engines import wait_until

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "velatura.runtime", "live", *map(str, arguments)]


def run(*arguments: object, **how: Any) -> "subprocess.CompletedProcess[str]":
    return velatura("live", *arguments, **how)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds with sound, of 96x64."""
    return videos.make(
        tmp_path_factory.mktemp("live") / "in.mp4", codec="libx264", frames=60, rate=30, tone=True,
        size=(96, 64),
    )  # fmt: skip


def test_a_film_as_a_camera_into_a_file_with_its_sound(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    done = run(film, target, "--stats", "json", "--drop", "never")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    summary = lines[-1]["summary"]
    assert summary["captured"] == 60
    assert all("stats" in line for line in lines[:-1])
    (output,) = summary["outputs"]
    assert output["shown"] + summary["dropped"] + output["dropped"] >= 57
    read = videos.read(target)
    assert len(read.luma) == output["shown"]
    assert 1.8 < read.seconds[-1] < 2.1
    assert len(read.audio) > 80


def test_models_several_sinks_and_a_summary(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "big.mp4"
    done = run(film, "null:", target, "-m", "upscale-2x", "--no-audio")
    assert done.returncode == 0, done.stderr
    assert "rungs: full" in done.stderr
    assert re.search(r"null: .* latency p50 [\d.]+ p95", done.stdout)
    read = videos.read(target)
    assert (read.width, read.height) == (192, 128)
    assert not read.audio


def test_a_masked_style_leaves_the_rest_of_the_film(film: Path, tmp_path: Path) -> None:
    mask, target = tmp_path / "mask.png", tmp_path / "out.mkv"
    levels = np.full((128, 192), 255, np.uint8)
    levels[:64] = 0
    assert cv2.imwrite(str(mask), levels)
    done = run(
        film, target, "-m", "wave", "--no-audio", "--mask", mask, "--strength", 0.9, "--keep-colours",
        "--codec", "ffv1", "--drop", "never", "--seconds", 1, "--deadline", 5000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "of 192x128 is scaled to 96x64" in done.stderr
    first, given = videos.read(target).luma[0], videos.read(film).luma[0]
    assert np.array_equal(first[:32], given[:32])
    assert not np.array_equal(first[40:], given[40:])
    levels[:, :100] = 0
    assert cv2.imwrite(str(mask), levels[:, :100])
    done = run(film, "null:", "-m", "wave", "--mask", mask)
    assert done.returncode == SourceError.exit_code
    assert "another shape" in done.stderr


def test_ctrl_c_finishes_the_recording(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    with subprocess.Popen(
        command(f"{film}?loop=1", target), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        patience = time.monotonic() + 30
        while time.monotonic() < patience:
            if any(path.stat().st_size for path in tmp_path.glob(".out.*.partial.mkv")):
                break
            time.sleep(0.05)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert len(videos.read(target).luma) > 20
    assert not list(tmp_path.glob(".out*"))


class Desktop:
    """A window without a desktop, beside a recording that is at a frame until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.serving, self.served = threading.Event(), threading.Event()
        self.writing, self.go = threading.Event(), threading.Event()
        write = RecordingSink.write

        def slow(sink: RecordingSink, frame: Frame) -> None:
            self.writing.set()
            self.go.wait(20)
            write(sink, frame)

        def serve(sink: WindowSink, alive: Callable[[], bool]) -> None:
            self.serving.set()
            waiting = threading.Condition()
            try:
                while alive() and not fails:
                    with waiting:
                        waiting.wait(0.01)
            finally:
                sink.failed = fails
                sink.close()
                self.served.set()

        patch.setattr(RecordingSink, "write", slow)
        patch.setattr(WindowSink, "serve", serve)
        patch.setattr(window_module, "_has_windows", lambda: True)


def beside_a_window(film: Path, target: Path) -> int:
    session = Session(
        source=f"{film}?loop=1", sinks=("window:", str(target)), encoding=Encoding(quality="draft")
    )
    return run_live(session, quiet=True)


def test_a_second_ctrl_c_beside_a_window_costs_no_recording(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desktop, target = Desktop(monkeypatch), tmp_path / "out.mkv"
    with press_later(desktop.writing.is_set, desktop.served.is_set, then=desktop.go.set):
        with pytest.raises(KeyboardInterrupt):
            beside_a_window(film, target)
        assert desktop.go.is_set(), "it ended while a frame was being written"
    assert len(videos.read(target).luma) == 1, "the frame at work is kept, those that waited are not"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_ctrl_c_after_the_window_has_failed_waits_for_the_end_of_the_run(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desktop, target = Desktop(monkeypatch, fails=True), tmp_path / "out.mkv"

    def both() -> bool:
        return desktop.served.is_set() and desktop.writing.is_set()

    # The window's own failure is told, if a frame came to it before the end.
    with press_later(both, then=desktop.go.set), suppress(SinkError):
        beside_a_window(film, target)
    assert desktop.go.is_set(), "it ended while a frame was being written"
    assert videos.read(target).luma


def test_what_was_opened_before_a_sink_that_cannot_be_is_taken_back(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted = list[Sink]()
    monkeypatch.setattr(NullSink, "abort", lambda sink: aborted.append(sink))
    with pytest.raises(SinkError, match="no folder"):
        run_live(
            Session(
                source=str(film),
                sinks=("null:", str(tmp_path / "missing/out.mkv")),
                encoding=Encoding(),
            ),
            quiet=True,
        )
    assert len(aborted) == 1


def test_a_recording_that_cannot_begin_leaves_nobody_listening(film: Path, tmp_path: Path) -> None:
    """Its sound would be kept for nobody, half a minute of it for each attempt."""

    class Listeners(Sounds):
        count = 0

        def branch(self) -> Branch:
            self.count += 1
            return super().branch()

        def leave(self, branch: Branch) -> None:
            self.count -= 1
            super().leave(branch)

    with open_live_source(str(film)) as source:
        assert source.audio is not None
        sounds = Listeners(source.audio)
        place = Place(source=source, encoding=Encoding(), sounds=sounds, tell=lambda _: None)
        for _ in range(3):
            with pytest.raises(SinkError, match="no folder"):
                record(tmp_path / "missing/out.mkv", source.info, place)
        assert sounds.count == 0
        output = record(tmp_path / "out.mkv", source.info, place)
        assert sounds.count == 1
        output.sink.abort()
        sounds.close()


def test_nothing_is_recorded_after_the_run_has_ended(tmp_path: Path) -> None:
    begun = list[Path]()
    controls = Controls(
        adjustable=None,
        available=(),
        stats=empty,
        stop=lambda: None,
        recorder=Recorder(begin=begun.append, end=lambda: None),
        folder=tmp_path,
    )
    controls.record(True)
    controls.close()
    for on in (True, False):
        with pytest.raises(SinkError, match="the run has ended"):
            controls.record(on)
    assert len(begun) == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_the_pages_address_is_printed_with_its_token(film: Path, quiet: bool) -> None:
    """Though all else is kept quiet: nothing else opens the page."""
    done = run(film, "--view", "--seconds", "0.2", *(["-q"] if quiet else []))
    assert done.returncode == 0, done.stderr
    said = re.findall(
        r"the picture and its switches: http://127\.0\.0\.1:\d+/\?token=(.+)", done.stderr
    )
    assert len(said) == 1
    assert len(said[0]) >= 16
    assert not quiet or len(done.stderr.splitlines()) == 1
    given = run(film, "--view", "--seconds", "0.2", "-q", "--view-token", "0123456789abcdef")
    assert not given.stderr, "whoever gave it knows it"


def test_a_dead_sink_does_not_stop_the_others(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    done = run(film, "tcp://127.0.0.1:1", target, "--drop", "never")
    assert done.returncode == SinkError.exit_code
    assert "is given up" in done.stderr
    assert len(videos.read(target).luma) > 50, "the recording went on to the end"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["IN"], "name a sink"),
        (["missing.mp4", "null:"], "missing.mp4"),
        (["IN", "IN"], "is the input itself"),
        (["IN", "null:", "-m", "no-such-model"], "no-such-model"),
        (["IN", "null:", "--rung", "fantastic", "-m", "upscale-2x"], "no rung 'fantastic'"),
        (["camera:17", "null:"], "camera"),
        (["IN", "null:", "--view", "--view-host", "0.0.0.0"], "token"),
        (["IN", "null:", "--record-to", "no/such/folder"], "create it first"),
        (["IN", "nowhere/out.mkv"], "no folder"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], said: str, film: Path, tmp_path: Path) -> None:
    done = run(*[str(film) if a == "IN" else a for a in arguments], cwd=tmp_path)
    assert done.returncode not in (0, 1), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_frames_through_a_pipe(film: Path) -> None:
    """y4m out, for another program to go on with."""
    done = subprocess.run(
        command(film, "-", "--no-audio", "-q"), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"YUV4MPEG2 W96 H64 F30:1")
    assert done.stdout.count(b"FRAME\n") > 50


class Knobs:
    """A processor's switches."""

    def __init__(self) -> None:
        self.off = False
        self.strength = 1.0
        self.split: float | None = None
        self.models: tuple[str, ...] = ("wave",)

    def swap(self, models: Sequence[str]) -> None:
        self.models = tuple(models)


def controls(knobs: Knobs | None = None, **more: Any) -> tuple[Controls, list[str]]:
    told: list[str] = []
    made = Controls(
        adjustable=knobs, available=("udnie", "wave"), stats=lambda: empty(), stop=lambda: None,
        tell=told.append, **more,
    )  # fmt: skip
    return made, told


def empty() -> LiveStats:
    return LiveStats(
        elapsed=1.0, captured=3, processed=1, passed=1, repeated=1, dropped=2, late=1, rung="full",
        stages={}, outputs=(), events=(),
    )  # fmt: skip


def test_controls_change_the_processor_and_nothing_else() -> None:
    knobs = Knobs()
    made, told = controls(knobs)
    made.off = True
    made.strength = 7.0
    made.split = -1.0
    assert (knobs.off, knobs.strength, knobs.split) == (True, 1.0, 0.0)
    assert told == ["off: frames pass through"]
    assert made.next_model() == "udnie"
    assert made.next_model() == "wave"
    with pytest.raises(SinkError, match="no model nonsense"):
        made.swap(["nonsense"])
    assert knobs.models == ("wave",)
    with pytest.raises(SinkError, match="no place for recordings"):
        made.record(True)


def test_controls_without_a_model_say_so() -> None:
    made, _ = controls(None)
    assert made.off
    with pytest.raises(SinkError, match="no model runs"):
        made.strength = 0.5


def test_recordings_are_numbered_and_ended_once(tmp_path: Path) -> None:
    begun: list[Path] = []
    ended: list[int] = []

    def begin(path: Path) -> None:
        path.touch()
        begun.append(path)

    recorder = Recorder(begin=begin, end=lambda: ended.append(1))
    made, _ = controls(None, recorder=recorder, folder=tmp_path)
    for _ in range(2):
        assert made.record(True) == made.record(True) == made.recording
        assert made.record(False) == begun[-1]
        assert made.record(False) is None
    assert len({path.name for path in begun}) == 2
    assert all(re.fullmatch(r"recording-\d{8}-\d{6}-\d+-\d+\.mkv", path.name) for path in begun)
    assert len(ended) == 2


def test_prometheus_reads_the_figures() -> None:
    metrics = Metrics(empty, port=0)
    try:
        with urllib.request.urlopen(metrics.url) as answer:
            text = answer.read().decode()
        with pytest.raises(SinkError, match="no metrics at"):
            Metrics(empty, port=int(metrics.url.split(":")[2].split("/")[0]))
    finally:
        metrics.close()
    assert "velatura_frames_dropped_total 2.0" in text
    assert 'velatura_rung_info{name="full"} 1.0' in text


def test_an_async_loop_gets_the_newest_frames() -> None:
    async def look() -> list[Frame]:
        frames = FramesSink()
        with open_live_source("pattern:64x48@60?frames=600") as source:
            pump = LivePump(source, None, [frames])
            seen: list[Frame] = []
            async for frame in frames.of(pump):
                seen.append(frame)
                if len(seen) == 20:
                    break
            return seen

    seen = asyncio.run(look())
    assert len(seen) == 20
    times = [frame.pts for frame in seen]
    assert times == sorted(set(times))


def test_an_async_loop_ends_with_its_source_and_raises_its_error() -> None:
    def broken(frame: Frame) -> Frame:
        if frame.index == 5:
            raise ValueError("no more")
        return frame

    async def count(stages: list[Any]) -> int:
        frames = FramesSink()
        with open_live_source("pattern:64x48@60?frames=12") as source:
            pump = LivePump(source, StagesProcessor(stages), [frames], drop="never")
            return len([frame async for frame in frames.of(pump)])

    assert 8 <= asyncio.run(count([])) <= 12
    with pytest.raises(Exception, match="no more"):
        asyncio.run(count([broken]))


def test_a_sink_joins_and_leaves_while_the_run_goes_on() -> None:
    source = open_live_source("pattern:64x48@60?frames=6000")
    first, second = NullSink(), NullSink()
    pump = LivePump(source, None, [first])
    thread = threading.Thread(target=pump.run, kwargs={"seconds": 20.0})
    thread.start()
    try:
        assert wait_until(lambda: first.frames > 10)
        output = pump.add(second)
        assert wait_until(lambda: second.frames > 10)
        assert pump.remove(output)
        had = second.frames
        time.sleep(0.3)
        assert 10 < had == second.frames
        assert first.frames > had
    finally:
        pump.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_the_file_of_a_live_run_is_whole(film: Path, tmp_path: Path) -> None:
    """Played from its beginning: the first picture is not late, and nothing follows the last."""
    target = tmp_path / "out.mp4"
    # A picture that a busy machine drops at the end would leave the sound the longer one.
    assert run(film, target, "--drop", "never").returncode == 0
    with av.open(str(target)) as container:
        streams = {stream.type: stream for stream in container.streams}
        assert set(streams) == {"video", "audio"}
        ends = {kind: float((s.start_time + s.duration) * s.time_base) for kind, s in streams.items()}
    assert abs(ends["video"] - ends["audio"]) < 0.1
