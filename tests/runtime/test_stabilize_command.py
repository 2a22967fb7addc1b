"""`--stabilize`: what it does to a film, and that the film is the same however it was made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime import open_source

from .cutting import contents, cut_off, finish, names, run

OPTIONS = ("--journal", "--stabilize", 0.5)
USAGE = 2


def lumas(path: Path) -> Any:
    with open_source(str(path)) as source:
        return np.array([frame.planes[0] for frame in source]).astype(int)


@pytest.fixture(scope="module")
def steady(film: Path) -> dict[str, Any]:
    """What a run that nobody disturbs makes of it."""
    target = film.with_name("steady.mp4")
    finish(film, target, *OPTIONS, alone=False)
    found = contents(target)
    target.unlink()
    return found


def test_noise_is_calmed(source: Path) -> None:
    plain, calm = source.with_name("plain.mkv"), source.with_name("calm.mkv")
    finish(source, plain, "--codec", "ffv1", "--frames", 12, alone=False)
    finish(source, calm, "--codec", "ffv1", "--frames", 12, "--stabilize", 0.9, alone=False)
    changes = [np.abs(np.diff(lumas(path), axis=0)).mean() for path in (plain, calm)]
    assert changes[1] < changes[0] / 2
    finish(
        source, plain, "--codec", "ffv1", "--stabilize", 0, "--overwrite", "--frames", 12, alone=False
    )
    assert np.abs(np.diff(lumas(plain), axis=0)).mean() == changes[0]


def test_a_run_that_was_cut_off_goes_on_as_it_would_have(source: Path, steady: dict[str, Any]) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, *OPTIONS)
    assert "going on after 30 frames" in finish(source, target, *OPTIONS)
    assert contents(target) == steady
    assert names(source.parent) == ["in.mp4", "out.mp4"]


def test_its_figures_count_what_is_written(source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, *OPTIONS)
    report = json.loads(run(source, target, *OPTIONS, "--json").stdout)
    assert report["frames_kept"] == 30
    assert report["frames_in"] == report["frames_out"] == 64


def test_several_processes_make_the_same_film(source: Path, steady: dict[str, Any]) -> None:
    target = source.with_name("out.mp4")
    finish(source, target, *OPTIONS, "--workers", 2)
    assert contents(target) == steady


def test_without_a_journal_it_is_the_same_film(source: Path) -> None:
    kept, plain = source.with_name("kept.mkv"), source.with_name("plain.mkv")
    for target, journal in ((kept, "--journal"), (plain, "--no-journal")):
        options = (journal, "--codec", "ffv1", "--stabilize", 0.5, "--frames", 25)
        finish(source, target, *options, alone=False)
    assert contents(plain)["frames"] == contents(kept)["frames"]


def test_another_strength_does_not_go_on(source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, *OPTIONS)
    done = run(source, target, "--journal", "--stabilize", 0.7)
    assert done.returncode
    assert "--stabilize has changed (was 0.5, is 0.7)" in done.stderr


@pytest.mark.parametrize("strength", ["-0.1", "1.01", "nan"])
def test_a_strength_beyond_is_refused(strength: str, source: Path) -> None:
    done = run(source, source.with_name("out.mp4"), "--stabilize", strength)
    assert done.returncode == USAGE
    assert "is not within 0..1" in done.stderr
    assert names(source.parent) == ["in.mp4"]


def test_a_dry_run_tells_of_it(source: Path) -> None:
    done = run(source, source.with_name("out.mp4"), "--stabilize", 0.9, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "--stabilize 0.9" in done.stdout
