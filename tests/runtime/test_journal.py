"""What is kept of a run that was cut off: damaged, changed, locked, refused, finished, thrown away."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from velatura.runtime.resume.journal import frames_left

from . import networks, videos
from .cutting import (
    DIE,
    FRAMES,
    INTERRUPTED,
    SINK,
    command,
    contents,
    cut_off,
    finish,
    journal,
    names,
    run,
)


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize(
    ("number", "how"),
    [(0, "flipped"), (1, "cut"), (1, "removed"), (2, "removed"), (2, "empty"), (2, "flipped")],
)
def test_a_damaged_segment_is_made_again(
    number: int, how: str, source: Path, uncut: dict[str, Any]
) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    assert frames_left(target) == 30
    path = journal(target) / f"{number:06d}.seg"
    data = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
    else:
        data[len(data) // 2] ^= 4
        path.write_bytes(data if how == "flipped" else data[: len(data) // 2] if how == "cut" else b"")
    said = finish(source, target, "--journal")
    assert (f"going on after {number}0 frames" in said) == (number > 0)
    assert ("damaged" in said) == ((how, number) != ("removed", 2))
    assert contents(target) == uncut


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("left", ["", "{", '{"sha256": "", "state": "{}"}', "[]", None])
def test_a_damaged_journal_begins_anew(left: str | None, source: Path, uncut: dict[str, Any]) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    path = journal(target) / "journal.json"
    path.unlink()
    if left is not None:
        path.write_text(left)
    assert frames_left(target) == 0
    assert "damaged or missing: the run begins anew" in finish(source, target, "--journal")
    assert contents(target) == uncut


def refusal(source: Path, target: Path, *options: object) -> str:
    before = {p.name: p.read_bytes() for p in journal(target).iterdir()}
    done = run(source, target, *options)
    assert done.returncode == SINK, done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name: p.read_bytes() for p in journal(target).iterdir()} == before
    return done.stderr


def test_other_options_are_refused(source: Path, uncut: dict[str, Any]) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    for options, said in (
        (("--crf", 30), "--crf has changed (was not given, is 30)"),
        (("--preset", "fast"), "--preset has changed (was not given, is fast)"),
        (("--size", "32x32"), "--size has changed (was not given, is 32x32)"),
        (("--no-audio",), "--audio has changed"),
        (("-m", "wave"), "-m has changed (was identity, is identity, wave)"),
        (("--codec", "hevc", "--frames", 40), "--frames has changed (was not given, is 40)"),
    ):
        found = refusal(source, target, "--journal", *options)
        assert said in found
        assert "left 30 frames" in found
        assert "--restart" in found
    finish(source, target, "--journal")
    assert contents(target) == uncut


def test_another_model_of_the_same_name_is_refused(source: Path, tmp_path: Path) -> None:
    def write(factor: float) -> None:
        node = networks.helper.make_node("Mul", ["image", "scale"], ["result"])
        weights = {"scale": np.array([factor], np.float32)}
        networks.write(networks.model([node], weights, [1, 3, "h", "w"]), tmp_path / "mine.onnx")

    write(0.5)
    target = source.with_name("out.mp4")
    options = ("--journal", "-m", tmp_path / "mine.onnx", "--range", 1)
    cut_off(source, target, *options)
    write(0.75)
    assert "mine.onnx has changed" in refusal(source, target, *options)


@pytest.mark.parametrize("how", ["touched", "replaced"])
def test_another_source_is_refused(how: str, source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    if how == "touched":
        os.utime(source, (1, 1))
    else:
        videos.make(source, codec="libx264", tone=True, frames=FRAMES, size=(96, 64), seconds=2.9)
    found = refusal(source, target, "--journal")
    assert f"the source's {'time' if how == 'touched' else 'contents'}" in found
    assert "the source's time" in found
    said = finish(source, target, "--journal", "--restart")
    assert "going on" not in said


def test_a_source_that_is_replaced_meanwhile_is_noticed(source: Path) -> None:
    target = source.with_name("out.mp4")
    touch = f"""
import os, velatura.runtime.resume.segments as s
make = s.SegmentWriter.__init__
def made(self, folder, number):
    make(self, folder, number)
    if number == 2: os.utime({str(source)!r}, (1, 1))
s.SegmentWriter.__init__ = made
"""
    done = run(source, target, "--journal", before=touch)
    assert done.returncode == SINK
    assert "was changed or replaced while it was read" in done.stderr
    assert not target.exists()


@pytest.mark.parametrize("option", ["--journal", "--no-journal"])
def test_a_second_process_is_refused(option: str, source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    with FileLock(journal(target) / "lock"):
        assert "another velatura is at work on it" in refusal(source, target, option, "--restart")
    finish(source, target, "--journal")


def test_without_a_journal(source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    said = finish(source, target, "--no-journal", alone=False)
    assert "the journal of an earlier run" in said
    assert journal(target).is_dir()
    target.unlink()
    finish(source, target, "--no-journal", "--restart")


def test_short_videos_have_none(source: Path) -> None:
    target = source.with_name("out.mp4")
    never = "import velatura.runtime.resume.journal as jj; jj.Journal.__init__ = None"
    assert run(source, target, "--frames", 39, before=never).returncode == 0
    assert run(source, target, "--frames", 40, "--overwrite", before=never).returncode != 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [("%03d.png", (), "no video file"), ("null:", (), "no video file"),
     ("o.mkv", ("--codec", "mpeg4"), "mpeg4 can be joined"), ("o.avi", (), "AVI"),
     ("o.mkv", ("--while-building", "pass"), "--while-building pass")],
)  # fmt: skip
def test_what_can_have_none(
    name: str, options: tuple[str, ...], said: str, source: Path, tmp_path: Path
) -> None:
    target = name if name == "null:" else tmp_path / name
    done = run(source, Path(target), "--journal", *options)
    assert done.returncode == SINK
    assert said in done.stderr
    assert run(source, Path(target), *options).returncode == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_a_full_disk_while_joining_keeps_all(source: Path, uncut: dict[str, Any]) -> None:
    """The segments fit below the limit, the output does not."""
    target = source.with_name("out.mp4")
    target.write_bytes(b"good")
    done = run(source, target, "--journal", "--overwrite", preexec_fn=limit_file_size)
    assert done.returncode == SINK, done.stderr
    assert "cannot be written" in done.stderr
    assert f"{FRAMES} frames are kept" in done.stderr
    assert target.read_bytes() == b"good"
    assert f"going on after {FRAMES} frames" in finish(source, target, "--journal", "--overwrite")
    assert contents(target) == uncut


def test_a_full_disk_in_the_first_segment_leaves_nothing(source: Path) -> None:
    target = source.with_name("out.mkv")
    options = ("--journal", "--codec", "ffv1", "--size", "192x128")
    done = run(source, target, *options, preexec_fn=limit_file_size)
    assert done.returncode == SINK, done.stderr
    assert "are kept" not in done.stderr
    assert names(source.parent) == ["in.mp4"]


def test_a_really_full_disk(source: Path, tmp_path: Path, uncut: dict[str, Any]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        done = run(source, disk / "out.mp4", "--journal")
        assert "No space left on device: make room" in done.stderr
        assert "frames are kept" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        finish(source, disk / "out.mp4", "--journal", alone=False)
        assert contents(disk / "out.mp4") == uncut
        assert names(disk) == ["out.mp4"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def interrupt(source: Path, target: Path, before: str) -> tuple[int, str]:
    """Ctrl-C while the third segment is made."""
    with subprocess.Popen(
        command(source, target, "--journal", before=before), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not (journal(target) / "000001.seg").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    return process.returncode, out


SLOW = """
import time, velatura.runtime.media.encode as e
make = e.VideoEncoder.picture
e.VideoEncoder.picture = lambda *a: (time.sleep(0.05), make(*a))[1]
"""


def test_ctrl_c_finishes_the_file(source: Path, uncut: dict[str, Any]) -> None:
    target = source.with_name("out.mp4")
    code, out = interrupt(source, target, SLOW)
    assert code == INTERRUPTED
    found = contents(target)
    count = len(found["frames"])
    assert 20 <= count < FRAMES
    assert f"the output is whole and holds {count} frames" in out
    assert found["frames"][:20] == uncut["frames"][:20]
    last = found["sound"][-1][0] / 48_000
    assert abs(last - found["frames"][-1][0]) < 0.2, "the sound ends with the picture"
    assert names(source.parent) == ["in.mp4", "out.mp4"]
    assert "exists: --overwrite replaces it" in run(source, target, "--journal").stderr


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("moment", ["Journal.finish", "OutputFile.publish", "Journal.remove"])
def test_killed_while_ctrl_c_finishes(moment: str, source: Path, uncut: dict[str, Any]) -> None:
    """Before its name is given the whole film is still to be had; after it, the short one is it."""
    target = source.with_name("out.mp4")
    kind, method = moment.split(".")
    module = "resume.journal" if kind == "Journal" else "sinks.output_file"
    die = f"{DIE}\nimport velatura.runtime.{module} as m; m.{kind}.{method} = lambda *a, **k: die()"
    code, _ = interrupt(source, target, f"{SLOW}\n{die}")
    assert code == -signal.SIGKILL
    done = run(source, target, "--journal")
    if moment == "Journal.remove":
        assert "exists: --overwrite replaces it" in done.stderr
        assert len(contents(target)["frames"]) < FRAMES
    else:
        assert "going on after" in done.stderr
        assert contents(target) == uncut
    assert names(source.parent) == ["in.mp4", "out.mp4"]


def test_names_of_all_kinds(source: Path, uncut: dict[str, Any]) -> None:
    target = source.with_name("-Größe & 'more' 夏.mp4")
    cut_off(source, target, "--journal")
    finish(source, target, "--journal")
    assert contents(target) == uncut


def test_picture_sequences_go_on_too(tmp_path: Path) -> None:
    import cv2

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(35):
        cv2.imwrite(str(pictures / f"{number:03d}.png"), videos.drawing((64, 48), number))
    target = tmp_path / "out.mkv"
    given = pictures / "%03d.png"
    options = ("--journal", "--codec", "ffv1")
    finish(given, target, *options, alone=False)
    whole = contents(target)
    target.unlink()
    cut_off(given, target, *options, segments=2)
    cv2.imwrite(str(pictures / "010.png"), videos.drawing((64, 48), 99))
    assert "the source's pictures has changed" in refusal(given, target, *options)
    finish(given, target, *options, "--restart", alone=False)
    assert len(contents(target)["frames"]) == len(whole["frames"])
