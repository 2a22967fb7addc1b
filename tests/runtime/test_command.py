"""The command as a user meets it: progress, summaries, JSON, Ctrl-C."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from velatura.runtime import Pump
from velatura.runtime.zoo import zoo_models

from . import videos
from .commands import velatura

VELATURA = [sys.executable, "-m", "velatura.runtime"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mp4", codec="libx264", tone=True, frames=30, rate=30)


def test_a_run_says_what_it_did(clip: Path, tmp_path: Path) -> None:
    done = velatura("run", clip, tmp_path / "out.mp4", "-m", "upscale-2x", "-m", "identity")
    assert "30 of 30 frames" in done.stdout
    assert "1 upscale-2x" in done.stdout
    assert "2 identity" in done.stdout
    assert "p50" in done.stdout
    assert "p99" in done.stdout
    assert f"{tmp_path / 'out.mp4'}: " in done.stdout
    assert "1.00 s" in done.stdout
    assert "no colour matrix stated" in done.stderr
    found = videos.read(tmp_path / "out.mp4")
    assert (found.width, found.height) == (128, 96)
    assert found.audio


def test_json_is_one_object_and_nothing_else(clip: Path, tmp_path: Path) -> None:
    done = velatura("run", clip, tmp_path / "out.mkv", "-m", "upscale-2x", "--json")
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert (report["frames_in"], report["frames_out"], report["frames_lost"]) == (30, 30, 0)
    assert report["models"][0]["name"] == "upscale-2x"
    assert set(report["stages_ms"]) == {"read", "1 upscale-2x", "2 Conform", "write"}
    assert report["output_bytes"] == (tmp_path / "out.mkv").stat().st_size
    assert report["output_seconds"] == pytest.approx(1.0)
    assert report["peak_memory_mib"] > 20
    failed = velatura("run", tmp_path / "none.mp4", tmp_path / "o.mp4", "--json")
    error = json.loads(failed.stdout)
    assert error["kind"] == "SourceError"
    assert error["exit_code"] == failed.returncode == 3


def test_json_has_the_notes_and_the_error_in_its_one_object(clip: Path, tmp_path: Path) -> None:
    whole = velatura("run", clip, tmp_path / "out.mkv", "--json")
    assert any("no colour matrix" in note for note in json.loads(whole.stdout)["notes"])
    hurt = damaged(clip, tmp_path / "hurt.mkv")
    done = velatura("run", hurt, tmp_path / "part.mkv", "--json")
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert (report["exit_code"], report["kind"]) == (done.returncode, "TruncatedSourceError")
    assert "is damaged" in report["error"]
    assert report["frames_lost"] > 0
    assert report["notes"]
    failed = velatura("run", clip, tmp_path / "no" / "out.mkv", "--json")
    assert json.loads(failed.stdout)["notes"] == []


def damaged(clip: Path, path: Path) -> Path:
    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is None:
                continue
            if number in (10, 12):
                broken = av.Packet(bytes(len(bytes(packet))))
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            packet.stream = stream
            out.mux(packet)
    return path


def test_a_source_that_is_written_to_is_changed_and_not_damaged(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is overwritten in place meanwhile is no fault of the file."""
    hurt = damaged(clip, tmp_path / "hurt.mkv")
    own = Pump.run

    def run(*given: Any, **more: Any) -> Any:
        for path in (clip, hurt):
            with path.open("ab") as file:
                file.write(b"more")
        return own(*given, **more)

    monkeypatch.setattr(Pump, "run", run)
    for path in (clip, hurt):
        done = velatura("run", path, tmp_path / f"{path.stem}-out.mkv")
        assert done.returncode == 8, done.stderr
        assert "was changed while it was read" in done.stderr
        assert "damaged" not in done.stderr


def test_no_slip_suggests_to_throw_something_away(clip: Path, tmp_path: Path) -> None:
    for slip in ("--starts", "--restar", "--overwrit"):
        done = velatura("run", clip, tmp_path / "out.mkv", slip)
        assert done.returncode == 2
        assert f"No such option: {slip}" in done.stderr
        assert "--restart" not in done.stderr
        assert "--overwrite" not in done.stderr
    assert "--quality" in velatura("run", clip, tmp_path / "out.mkv", "--qualit", "good").stderr


def test_quiet_is_quiet(clip: Path, tmp_path: Path) -> None:
    done = velatura("run", clip, tmp_path / "out.mkv", "--quiet")
    assert done.stdout == done.stderr == ""


def test_frames_size_and_encoding_options(clip: Path, tmp_path: Path) -> None:
    velatura("run", clip, tmp_path / "o.mkv", "--frames", 10, "--size", "40x30", "--codec", "ffv1",
             "--pix-fmt", "yuv444p", "--no-audio")  # fmt: skip
    found = videos.read(tmp_path / "o.mkv")
    assert (len(found.luma), found.width, found.height) == (10, 40, 30)
    assert (found.codec, found.pix_fmt, found.audio) == ("ffv1", "yuv444p", [])


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    """A run of some seconds reports its progress in whole lines, without control characters."""
    code = (
        "import velatura.runtime.jobs.progress as v; v.LineView.EVERY = 0.05; "
        "from velatura.runtime.__main__ import main; main()"
    )
    arguments = ["run", "pattern:160x120?frames=150", str(tmp_path / "o.mkv"), "-m", "upscale-2x"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if "frames" in line]
    assert lines
    assert "/150 frames" in lines[0]
    assert "fps" in lines[0]
    assert "queues" in lines[0]
    assert "\x1b" not in done.stderr


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    arguments = ["run", "pattern:160x120?frames=200", str(tmp_path / "o.mkv"), "-m", "upscale-2x"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(
        [*VELATURA, *arguments], stdout=slave, stderr=slave, env=environment
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while chunk := os.read(master, 4096):
                shown += chunk
        except OSError:
            pass  # the terminal's other end closes with the process
        assert process.wait(60) == 0
    os.close(master)
    text = shown.decode()
    assert "\x1b[" in text
    assert "/200 frames" in text
    assert "200 of 200 frames" in text


UNHURRIED = """
import pathlib, sys, time, velatura.runtime.media.encode as e
make, made, middle = e.VideoEncoder.picture, 0, pathlib.Path(sys.argv.pop())
def picture(*a):
    global made
    made += 1
    time.sleep(0.02)
    if made == 20:
        middle.touch()
    return make(*a)
e.VideoEncoder.picture = picture
from velatura.runtime.__main__ import main
main()
"""
"""A run that tells when it is in its middle, by a file."""


def hear_no_ctrl_c() -> None:
    """As a process that a shell starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("number", "begin"),
    [(signal.SIGINT, None), (signal.SIGTERM, None), (signal.SIGTERM, hear_no_ctrl_c)],
    ids=["SIGINT", "SIGTERM", "SIGTERM in the background"],
)
def test_ctrl_c_leaves_a_whole_file(
    number: signal.Signals, begin: Callable[[], None] | None, tmp_path: Path
) -> None:
    source = videos.make(
        tmp_path / "in.mp4", codec="libx264", tone=True, frames=200, size=(96, 64), seconds=8.0
    )
    target, middle = tmp_path / "out.mp4", tmp_path / "middle"
    with subprocess.Popen(
        [sys.executable, "-c", UNHURRIED, "run", str(source), str(target), "-m", "upscale-2x",
         str(middle)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=begin,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not middle.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    middle.unlink()
    assert process.returncode == 130
    found = videos.read(target)
    assert f"the output is whole and holds {len(found.luma)} frames" in out
    assert 20 <= len(found.luma) < 200
    assert abs(found.audio[-1][0] - found.seconds[-1]) < 0.2, "the sound ends with the picture"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_models_and_info(clip: Path) -> None:
    listed = velatura("models").stdout
    assert all(name in listed for name in zoo_models())
    cards = json.loads(velatura("models", "--json").stdout)
    assert cards["upscale-2x"]["fp32"]["scale"] == 2
    told = velatura("info", "upscale-2x").stdout
    assert "luma" in told
    assert "7796" in told.replace(",", "")
    video = json.loads(velatura("info", clip, "--json").stdout)
    assert (video["size"], video["codec"], video["audio"]) == ("64x48", "h264", ["aac"])
    wrong = velatura("info", "upscale")
    assert wrong.returncode == 5
    assert "did you mean upscale-4x or upscale-2x" in wrong.stderr


@pytest.mark.slow
def test_doctor_proves_that_it_works() -> None:
    told = json.loads(velatura("doctor", "--json").stdout)
    assert told["used"] == "openvino"
    assert told["self_test"]["fps_640x360"] > 1
    assert told["backends"]["openvino"].startswith("available: fp32")
    assert "self_test" in velatura("doctor").stdout


def test_version_and_plain_usage_errors() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert velatura("--version").stdout.strip() == project["version"]
    for arguments in (("run",), ("run", "a", "b", "--precision", "int4"), ("dance",)):
        done = velatura(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_sister_commands_are_found() -> None:
    pytest.importorskip("torch")
    assert "recipe" in velatura("train", "--help").stdout.lower()
    assert "checkpoint" in velatura("export", "--help").stdout.lower()
