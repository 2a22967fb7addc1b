"""A run that is cut off, by whatever and wherever, goes on: the film is the same, frame for frame."""

import json
import random
import signal
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime import Encoding, Pump, open_sink, open_source

from . import videos
from .cutting import DIE_AT_CALL, FRAMES, SINK, command, contents, cut_off, finish, journal, names, run


def test_segments_change_nothing_but_key_frames(source: Path, uncut: dict[str, Any]) -> None:
    plain = source.with_name("plain.mp4")
    finish(source, plain, "--no-journal")
    found = contents(plain)
    assert [s for s, _ in found["frames"]] == [s for s, _ in uncut["frames"]]
    for part in ("header", "duration", "sound"):
        assert found[part] == uncut[part]


def die_at_random(source: Path, uncut: dict[str, Any], times: int, draw: random.Random) -> int:
    """Kill runs at any time, each cut run going on with what the last one left; how many were."""
    target = source.with_name("out.mp4")
    cuts = 0
    while cuts < times:
        with subprocess.Popen(
            command(source, target, "--journal"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                process.communicate(timeout=draw.uniform(0.2, 1.0))
            except subprocess.TimeoutExpired:
                process.kill()
                cuts += 1
                continue
        if process.returncode:
            assert process.returncode == SINK, "it was killed after all was done"
            assert not journal(target).exists()
        assert contents(target) == uncut
        assert names(source.parent) == ["in.mp4", "out.mp4"]
        target.unlink()
    if not target.exists() or journal(target).exists():
        again = run(source, target, "--journal")
        if again.returncode:
            # All was done but the removal of an empty folder: as after any run, the name is taken.
            assert again.returncode == SINK
            assert "exists: --overwrite replaces it" in again.stderr
            assert not journal(target).exists()
    assert contents(target) == uncut
    return cuts


@pytest.mark.soak
def test_killed_at_random(source: Path, uncut: dict[str, Any]) -> None:
    assert die_at_random(source, uncut, 5, random.Random(5)) == 5


@pytest.mark.soak
def test_killed_at_random_fifty_times(source: Path, uncut: dict[str, Any]) -> None:
    assert die_at_random(source, uncut, 50, random.Random(50)) == 50


def die_at_calls(source: Path, uncut: dict[str, Any], first: int, step: int) -> int:
    """Die before or after each `step`-th change of the file system, and go on from there."""
    target = source.with_name("out.mp4")
    for call in range(first, 1000, step):
        done = run(source, target, "--journal", before=DIE_AT_CALL.format(call))
        if done.returncode == 0:
            return call
        assert done.returncode == -signal.SIGKILL, done.stderr
        again = run(source, target, "--journal")
        if again.returncode:
            # All was done but the removal of an empty folder: as after any run, the name is taken.
            assert again.returncode == SINK
            assert "exists: --overwrite replaces it" in again.stderr
        assert contents(target) == uncut, call
        assert names(source.parent) == ["in.mp4", "out.mp4"], call
        target.unlink()
    raise AssertionError("it never came to an end")


def test_killed_at_some_steps(source: Path, uncut: dict[str, Any]) -> None:
    assert die_at_calls(source, uncut, 3, 13) > 60


@pytest.mark.soak
def test_killed_at_every_step(source: Path, uncut: dict[str, Any]) -> None:
    assert die_at_calls(source, uncut, 1, 1) > 60


OTHERS = ("ten bits", "odd size")


def varied(folder: Path, kind: str) -> Path:
    if kind == "variable":
        draw = np.random.default_rng(1)
        times = np.cumsum(draw.choice([10, 33, 40, 41, 700], 35)).tolist()
        return videos.make(folder / "in.mkv", frames=35, pts=times, tone=True)
    if kind == "ten bits":
        return videos.make(
            folder / "in.mkv", frames=35, pix_fmt="yuv420p10le", rate=Fraction(24000, 1001)
        )
    return videos.make(folder / "in.mkv", size=(65, 47), frames=35, pix_fmt="yuv444p")


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize(
    "kind", ["variable", *(pytest.param(k, marks=pytest.mark.soak) for k in OTHERS)]
)
@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [("h264", ".mp4", ("--preset", "medium")), ("h264", ".mkv", ()), ("h264", ".ts", ()),
     ("hevc", ".mp4", ()), ("av1", ".mkv", ("--preset", "12")), ("vp9", ".webm", ("--no-audio",)),
     ("ffv1", ".mkv", ())],
)  # fmt: skip
def test_every_codec_joins(
    codec: str, suffix: str, options: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    given = varied(tmp_path, kind)
    target = tmp_path / f"out{suffix}"
    options = ("--journal", "--codec", codec, *options)
    finish(given, target, *options)
    whole = contents(target)
    target.unlink()
    cut_off(given, target, *options, segments=2)
    assert "going on after 20 frames" in finish(given, target, *options)
    assert contents(target) == whole
    finish(given, tmp_path / f"plain{suffix}", *options, "--no-journal", alone=False)
    plain = contents(tmp_path / f"plain{suffix}")
    assert [s for s, _ in plain["frames"]] == [s for s, _ in whole["frames"]]
    assert plain["sound"] == whole["sound"]


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_the_same_pictures_make_the_same_file(codec: str, tmp_path: Path) -> None:
    """Else a segment that is made again would differ; x264 with AVX-512 differs at this size."""
    given = videos.make(tmp_path / "in.mkv", size=(160, 120), frames=12)
    found: set[str] = set()
    for _ in range(8):
        with (
            open_source(given) as source,
            open_sink(
                tmp_path / "o.mp4", like=source, encoding=Encoding(codec=codec), overwrite=True
            ) as sink,
        ):
            Pump(source, [], sink).run()
        found.add(str(contents(tmp_path / "o.mp4")["frames"]))
    assert len(found) == 1


def test_the_summary_counts_all_frames(source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    done = run(source, target, "--journal", "--json")
    report = json.loads(done.stdout)
    assert (report["frames_in"], report["frames_out"], report["frames_kept"]) == (FRAMES, FRAMES, 30)
    assert report["output_seconds"] == pytest.approx(FRAMES / 25)
    assert done.stderr == ""


def test_models_run_as_they_did_before(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    target = source.with_name("out.mkv")
    options = ("--journal", "-m", "upscale-2x", "--codec", "ffv1")
    finish(source, target, *options)
    whole = contents(target)
    target.unlink()
    cut_off(source, target, *options)
    # Nothing is remembered any more of what was measured to be fastest.
    forgetful = tmp_path.parent / f"{tmp_path.name}-cache"
    monkeypatch.setenv("VELATURA_CACHE", str(forgetful))
    assert "by measurement" not in finish(source, target, *options)
    assert contents(target) == whole
