"""The Godot sample, in Debian's Godot 3 on a virtual screen."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.runtime.game.shm import futex, segment

from . import sdk
from .sdk import compile_c

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "games" / "godot"

pytestmark = [
    pytest.mark.skipif(futex.missing() is not None, reason="shared memory is for Linux"),
    pytest.mark.skipif(sdk.GCC is None, reason="gcc must be installed"),
]
needs_godot = pytest.mark.skipif(
    not all(map(shutil.which, ("godot3", "xvfb-run", "Xvfb"))),
    reason="godot3, xvfb-run and Xvfb must be installed",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SAMPLE / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_the_library_compiles_without_a_warning(tmp_path: Path) -> None:
    out = compile_c(
        SAMPLE / "velatura_godot.c", tmp_path / "library.so", "-shared", "-fPIC", "-fvisibility=hidden"
    )
    symbols = subprocess.check_output(["nm", "-D", "--defined-only", out], text=True)
    found = {line.split()[-1] for line in symbols.splitlines() if " T " in line}
    procedures = {f"velatura_{name}" for name in ("start", "show", "status_of", "stop")}
    assert found == {"godot_gdnative_init"} | procedures


@needs_godot
def test_frames_of_godot_come_back_on_its_screen(tmp_path: Path) -> None:
    before = set(segment.FOLDER.glob(f"{segment.PREFIX}godot-*"))
    done = run(str(tmp_path / "picture.png"), "identity", "4")
    assert done.returncode == 0, done.stderr
    assert "4 frames done, 0 passed" in done.stdout
    picture = cv2.imread(str(tmp_path / "picture.png")).astype(int)
    assert picture.shape == (360, 1280, 3)
    viewport, screen = picture[:, :640], picture[:, 640:]
    assert np.abs(viewport[60:] - screen[60:]).max() <= 2, "upright, and with its own colours"
    assert viewport.std() > 30
    label = np.abs(viewport[:40, :200] - screen[:40, :200]).max(-1) > 40
    assert label.sum() > 200, "the label is drawn after the models"
    assert set(segment.FOLDER.glob(f"{segment.PREFIX}godot-*")) <= before, "nothing is left"


@pytest.mark.soak
@pytest.mark.slow
@needs_godot
def test_a_style_in_godot(tmp_path: Path) -> None:
    done = run(str(tmp_path / "picture.png"), "starry-night", "3")
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "picture.png")).astype(int)
    viewport, screen = picture[:, :640], picture[:, 640:]
    assert np.abs(viewport - screen).mean() > 15, "it has another style"
    # The label keeps its ink, whatever the model paints beneath it.
    assert (screen[:40, :200].min(-1) > 235).sum() > 100
