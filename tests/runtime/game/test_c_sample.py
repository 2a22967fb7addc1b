"""The C sample compiles, plays, and its motion vectors are true."""

import ctypes
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.runtime.game.shm import futex, segment

from . import sdk
from .sdk import compile_c

pytestmark = [
    pytest.mark.skipif(futex.missing() is not None, reason="shared memory is for Linux"),
    pytest.mark.skipif(sdk.GCC is None, reason="gcc must be installed"),
]

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "games" / "c"


def run(*arguments: str) -> str:
    command = [sys.executable, str(SAMPLE / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    compile_c(SAMPLE / "game.c", tmp_path / "game", "-O2")


def test_one_command_writes_the_picture(tmp_path: Path) -> None:
    before = set(segment.FOLDER.glob(f"{segment.PREFIX}sample-*"))
    told = run(str(tmp_path / "picture.png"), "identity", "3")
    assert told.startswith("3 frames done, 0 passed")
    picture = cv2.imread(str(tmp_path / "picture.png"))
    assert picture.shape == (360, 1280, 3)
    assert np.array_equal(picture[:, :640], picture[:, 640:]), "the identity changes nothing"
    assert picture.std() > 30, "there is something to be seen"
    assert set(segment.FOLDER.glob(f"{segment.PREFIX}sample-*")) <= before, "nothing is left"


@pytest.mark.slow
def test_with_a_model(tmp_path: Path) -> None:
    run(str(tmp_path / "picture.png"), "upscale-2x", "2")
    picture = cv2.imread(str(tmp_path / "picture.png")).astype(float)
    assert picture.shape == (720, 2560, 3)
    drawn, made = picture[:, :1280], picture[:, 1280:]
    small = made.reshape(360, 2, 640, 2, 3).mean((1, 3))
    assert np.abs(small - drawn[::2, ::2]).mean() < 4
    assert np.abs(made - drawn).mean() > 0.1, "the model made it, not its stand-in"


def test_its_motion_and_depth_are_true(tmp_path: Path) -> None:
    text = f"""
        #define main game_main
        #include "{SAMPLE / "game.c"}"
        #undef main
        void render(unsigned char *p, float *m, float *d, int w, int h, float t, float step);
        void render(unsigned char *p, float *m, float *d, int w, int h, float t, float step) {{
            draw(p, m, d, w, h, t, step);
        }}
    """
    library = ctypes.CDLL(str(compile_c(text, tmp_path / "game.so", "-shared", "-fPIC", "-O2")))
    width, height, step = 320, 180, 0.15  # a large one: small mistakes show

    def render(seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shapes = (
            ((height, width, 4), np.uint8),
            ((height, width, 2), np.float32),
            ((height, width), np.float32),
        )
        arrays = [np.zeros(shape, kind) for shape, kind in shapes]
        places = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        library.render(*places, width, height, ctypes.c_float(seconds), ctypes.c_float(step))
        return arrays[0], arrays[1], arrays[2]

    then, _, depth_then = render(2.0 - step)
    now, motion, depth = render(2.0)
    y, x = np.mgrid[:height, :width].astype(np.float32)

    def off(factor: float, axes: tuple[int, int] = (1, 1)) -> np.ndarray:
        """By how much the frame before, moved by so much of the motion, misses this one."""
        moved = cv2.remap(
            then,
            x + factor * axes[0] * motion[..., 0],
            y + factor * axes[1] * motion[..., 1],
            cv2.INTER_LINEAR,
        )
        return np.abs(moved.astype(int) - now)[..., :3].mean(-1)

    there = x + motion[..., 0], y + motion[..., 1]
    near = (depth < 12) & (there[0] > 0) & (there[1] > 0)
    near &= (there[0] < width - 1) & (there[1] < height - 1)
    wrong = [(0.0, (1, 1)), (0.9, (1, 1)), (1.1, (1, 1)), (1.0, (-1, 1)), (1.0, (1, -1))]
    # Not nothing: edges are resampled, and shadows go another way than the floor they lie on.
    for factor, axes in wrong:
        assert off(1.0)[near].mean() < 0.95 * off(factor, axes)[near].mean(), (factor, axes)
    assert off(1.0)[near].mean() < 0.45 * off(0.0)[near].mean()
    # The camera circles slowly: what stays in sight hardly changes its distance.
    depth_moved = cv2.remap(depth_then, *there, cv2.INTER_NEAREST)
    assert np.quantile(np.abs(depth_moved / depth - 1)[near], 0.9) < 0.05
    assert np.isfinite(motion).all()
    assert 4 < depth.min() < 9 < depth.max()
