"""Several processes make one output: the same film, whoever dies on the way."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import videos
from .cutting import FRAMES, INTERRUPTED, SINK, command, contents, cut_off, finish, journal, names, run

TRUNCATED = 8


def segments(target: Path) -> list[Path]:
    return sorted(journal(target).glob("*.seg"))


def started(
    source: Path, target: Path, *options: object, until: Callable[[], bool]
) -> "subprocess.Popen[str]":
    """A run that has come so far."""
    process = subprocess.Popen(
        command(source, target, "--journal", *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    patience = time.monotonic() + 60
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.005)
    return process


def children(process: "subprocess.Popen[str]") -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    # Python starts a process of its own beside those that it is asked for.
    return [pid for pid in map(int, text.split()) if b"spawn_main" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def all_gone(pids: list[int]) -> bool:
    return not any(b"spawn_main" in command_line(pid) for pid in pids)


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough to hit it while it is made."""
    return videos.make(
        tmp_path_factory.mktemp("long") / "in.mp4",
        codec="libx264",
        tone=True,
        frames=600,
        size=(96, 64),
    )


@pytest.fixture(scope="module")
def long_uncut(long_film: Path) -> dict[str, Any]:
    """What one process makes of it."""
    target = long_film.with_name("out.mp4")
    finish(long_film, target, "--journal")
    return contents(target)


@pytest.fixture
def long_source(long_film: Path, tmp_path: Path) -> Path:
    shutil.copy2(long_film, tmp_path / "in.mp4")
    return tmp_path / "in.mp4"


@pytest.mark.parametrize("workers", [2, 3])
def test_the_film_is_that_of_one_process(workers: int, source: Path, uncut: dict[str, Any]) -> None:
    target = source.with_name("out.mp4")
    finish(source, target, "--journal", "--workers", workers)
    assert contents(target) == uncut


def test_what_one_process_left_is_gone_on_with_by_two(
    long_source: Path, long_uncut: dict[str, Any]
) -> None:
    target = long_source.with_name("out.mp4")
    cut_off(long_source, target, "--journal", segments=3)
    kept = [path.stat().st_mtime_ns for path in segments(target)]
    process = started(long_source, target, "--workers", 2, until=lambda: len(segments(target)) > 4)
    assert [path.stat().st_mtime_ns for path in segments(target)[:3]] == kept, "made once"
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "going on after 30 frames" in said
    assert contents(target) == long_uncut


def test_killed_with_holes_and_gone_on_by_more_or_by_one(
    long_source: Path, long_uncut: dict[str, Any]
) -> None:
    for then in (("--workers", 3), ()):
        target = long_source.with_name("out.mp4")
        process = started(long_source, target, "--workers", 2, until=lambda: len(segments(target)) > 3)  # noqa: B023
        workers = children(process)
        process.kill()
        process.communicate()
        patience = time.monotonic() + 10
        while not all_gone(workers):
            assert time.monotonic() < patience, "workers outlive the process that began them"
            time.sleep(0.02)
        # A hole, as it is left where one worker was far ahead of the other.
        hole = segments(target)[1]
        hole.unlink()
        made = {path: path.stat().st_mtime_ns for path in segments(target)[2:]}
        if then:
            process = started(
                long_source,
                target,
                *then,
                until=lambda: hole.exists() or not journal(target).is_dir(),  # noqa: B023
            )
            for path, stamp in made.items():
                assert not path.exists() or path.stat().st_mtime_ns == stamp, "made once"
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said
            assert "frames in pieces" in said
        else:
            finish(long_source, target, "--journal")
        assert contents(target) == long_uncut
        assert names(long_source.parent) == ["in.mp4", "out.mp4"]
        target.unlink()


def test_a_worker_that_dies_is_replaced(long_source: Path, long_uncut: dict[str, Any]) -> None:
    target = long_source.with_name("out.mp4")
    process = started(long_source, target, "--workers", 2, until=lambda: len(segments(target)) > 1)
    workers = children(process)
    made = {path: path.stat().st_mtime_ns for path in segments(target)}
    os.kill(workers[-1], signal.SIGKILL)
    while process.poll() is None and len(segments(target)) < 20:
        kept = {path: path.stat().st_mtime_ns for path in made if path.exists()}
        assert kept.items() <= made.items(), "made once"
        time.sleep(0.05)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert contents(target) == long_uncut


def test_ctrl_c_keeps_the_journal_and_leaves_no_process(
    long_source: Path, long_uncut: dict[str, Any]
) -> None:
    target = long_source.with_name("out.mp4")
    process = started(long_source, target, "--workers", 2, until=lambda: len(segments(target)) > 1)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, said
    assert "are kept beside" in said
    assert all_gone(workers)
    assert not target.exists()
    finish(long_source, target, "--journal", "--workers", 2)
    assert contents(target) == long_uncut


def test_a_limit_and_a_length_that_ends_with_a_segment(source: Path) -> None:
    for frames in (30, 37, FRAMES + 10):
        one, two = source.with_name("one.mp4"), source.with_name("two.mp4")
        finish(source, one, "--journal", "--frames", frames, alone=False)
        finish(source, two, "--journal", "--frames", frames, "--workers", 2, alone=False)
        assert contents(one) == contents(two)
        assert len(contents(two)["frames"]) == min(frames, FRAMES)
        one.unlink()
        two.unlink()


def test_more_workers_than_segments(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mp4", codec="libx264", frames=12)
    target = tmp_path / "out.mkv"
    finish(source, target, "--journal", "--workers", 4)
    assert len(contents(target)["frames"]) == 12


def test_a_damaged_source_is_reported_once_and_the_rest_is_kept(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.ts", codec="libx264", frames=60, options={"g": "10"})
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 3])
    ends = {}
    for workers in (1, 2):
        target = tmp_path / f"{workers}.mkv"
        done = run(source, target, "--journal", "--workers", workers)
        ends[workers] = done.returncode, contents(target)["frames"]
        assert done.stderr.count("is damaged") == (done.returncode == TRUNCATED), done.stderr
    assert ends[1] == ends[2]


@pytest.mark.parametrize(
    ("name", "options"), [("out.avi", ()), ("%03d.png", ()), ("out.mp4", ("--no-journal",))]
)
def test_what_has_no_segments_is_refused(name: str, options: tuple[str, ...], source: Path) -> None:
    done = run(source, source.with_name(name), "--workers", 2, *options)
    assert done.returncode == SINK
    assert "cannot be made by several --workers" in done.stderr
    assert names(source.parent) == ["in.mp4"]


def test_a_short_clip_is_made_by_one(source: Path) -> None:
    short = videos.make(source.with_name("short.mp4"), codec="libx264", frames=5)
    target = source.with_name("out.mp4")
    assert "one process makes it" in finish(short, target, "--workers", 2, alone=False)
    assert len(contents(target)["frames"]) == 5
