"""The samples inside real engines: they run with one command, motion is true, and the UI exact."""

import importlib.util
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from velatura.training.metrics.stability import occluded, warp_frame

ROOT = Path(__file__).resolve().parents[1]
GAMES = ROOT / "samples" / "games"
SIZE = (320, 180)
Floats = npt.NDArray[np.float32]
Drawn = list[tuple[Floats, Floats, Floats]]
"""Per frame RGB (H, W, 3) of 0..255, motion (H, W, 2) in pixels and depth (H, W), top row first."""


@cache
def without(engine: str) -> str:
    """Why an engine cannot draw here; nothing where it can."""
    if importlib.util.find_spec(engine) is None:
        return f"{engine} is not installed"
    if engine == "pygame":
        return ""
    if importlib.util.find_spec("moderngl") is None:
        return "moderngl, which tells whether EGL works, is not installed"
    code = "import moderngl; moderngl.create_context(standalone=True, backend='egl', require=330)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return f"no OpenGL 3.3 over EGL: {done.stderr.strip()[-200:]}" if done.returncode else ""


def need(engine: str) -> None:
    if reason := without(engine):
        pytest.skip(reason)


def run(*command: object, cwd: Path = ROOT) -> None:
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def drawn(folder: str, code: str, target: Path) -> Drawn:
    """What a sample's own classes draw, by `code` that fills the list `frames`."""
    ending = "import numpy as np\nfor k, f in enumerate(frames):\n    np.savez(f'{sys.argv[1]}{k}', *f)"
    run("-c", f"import sys\nframes = []\n{code}\n{ending}", target / "f", cwd=GAMES / folder)
    found: Drawn = []
    for number in range(len(list(target.glob("f*.npz")))):
        with np.load(target / f"f{number}.npz") as arrays:
            colour, motion, depth = (arrays[f"arr_{k}"].astype(np.float32) for k in range(3))
        found.append((colour, motion, depth))
    return found


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize(
    ("engine", "script", "options", "panel"),
    [
        ("panda3d", "scene.py", ["--frames", 3], np.s_[12:32, 10:150]),
        # Slower than any machine's models: the last frame that was styled is a late one.
        ("pygame", "game.py", ["--frames", 8, "--rate", 5], np.s_[8:36, 8:168]),
        ("moderngl", "blocks.py", ["--frames", 3], np.s_[-22:-8, 8:112]),
    ],
)
def test_a_sample_writes_a_restyled_picture_with_an_exact_ui(
    engine: str, script: str, options: list[object], panel: tuple[slice, slice], tmp_path: Path
) -> None:
    need(engine)
    target = tmp_path / "out.png"
    run(GAMES / engine / script, target, "--size", "{}x{}".format(*SIZE), *options)
    after, before = (cv2.imread(str(p)) for p in (target, tmp_path / "out.before.png"))
    assert after.shape == before.shape == (SIZE[1], SIZE[0], 3)
    assert len(np.unique(after[panel].reshape(-1, 3), axis=0)) > 5, "there is something on the panel"
    assert np.array_equal(after[panel], before[panel])
    rest = np.ones(SIZE[::-1], bool)
    rest[panel] = False
    difference = np.abs(after.astype(int) - before)[rest]
    assert difference.mean() > 15, "the rest is restyled"
    sides = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[60:] for picture in (before, after)]
    agree = np.corrcoef(*(cv2.GaussianBlur(s, (0, 0), 3).ravel() for s in sides))[0, 1]
    assert agree > 0.3, "and shows the same, the same side up"


PANDA = """
from scene import Game
game = Game((320, 180))
def draw(number, other):
    c, m, d = game.render(number, other)
    frames.append((c[::-1, :, 2::-1].copy(), m[::-1] * [160, -90], d[::-1].copy()))
for number in (20, 21):
    draw(number, number - 1)
draw(20, 21)
"""


def test_panda3d_gives_true_motion_and_depth(tmp_path: Path) -> None:
    need("panda3d")
    (before, _, _), (after, motion, depth), (_, forward, _) = drawn("panda3d", PANDA, tmp_path)
    hidden = occluded(motion, forward)
    assert hidden.mean() < 0.15, "there and back agree but for edges and what comes into sight"
    moved = np.hypot(*np.moveaxis(motion, 2, 0)) > 0.5
    seen = moved & ~hidden
    assert seen.mean() > 0.4

    def error(vectors: Floats) -> float:
        return float(np.abs(warp_frame(before, vectors) - after)[seen].mean())

    assert error(motion) < 3
    for wrong in ((0, 0), (-1, -1), (-1, 1), (1, -1), (0.5, 0.5)):
        assert error(motion * np.float32(wrong)) > 1.5 * error(motion), wrong
    assert depth.max() < 301, "the sky is the farthest"
    assert depth[0, 160] > 200, "and above"
    assert 1 < depth[-1, 160] < 10, "the pavement is at one's feet"
    assert (np.diff(depth[-30:, 160]) < 0).all(), "and nearer the lower it is in the picture"


BLOCKS = """
from blocks import Game
game = Game((320, 180))
for number in (20, 21):
    c, v, d = (a.copy() for a in game.render(number))
    frames.append((c[::-1, :, :3], v[::-1].astype('f4') * [-320, 180], d[::-1]))
"""


def test_moderngl_gives_true_motion_of_what_its_shader_moves(tmp_path: Path) -> None:
    need("moderngl")
    (before, _, _), (after, motion, depth) = drawn("moderngl", BLOCKS, tmp_path)
    ground = depth < 1
    assert 0.4 < ground.mean() < 0.9
    assert (motion[~ground] == 0).all(), "the sky stands still"

    # Not smoothed: at its edges a pixel is one thing or another, so the middle half counts.
    def error(vectors: Floats) -> float:
        return float(np.median(np.abs(warp_frame(before, vectors) - after).mean(2)[ground]))

    for wrong in ((0, 0), (-1, -1), (-1, 1), (1, -1)):
        assert error(motion * np.float32(wrong)) > 1.5 * error(motion), wrong


LEVEL = """
import numpy as np, pygame
from game import Level
pygame.display.init()
pygame.display.set_mode((320, 180))
level = Level((320, 180))
for number in range(4):
    level.draw(number)
    picture = pygame.surfarray.array3d(level.picture).swapaxes(0, 1)
    frames.append((picture, level.motion.copy(), level.depth.copy()))
"""


def test_pygame_gives_motion_that_is_exact_to_the_pixel(tmp_path: Path) -> None:
    need("pygame")
    frames = drawn("pygame", LEVEL, tmp_path)
    assert (frames[0][1] == 0).all(), "nothing has come from anywhere yet"
    for (before, _, far), (after, motion, depth) in pairwise(frames):
        assert {tuple(m) for m in motion.reshape(-1, 2)} >= {(0, 0), (3, 0)}, "the sky, and the level"
        rows, columns = np.indices(depth.shape)
        y, x = rows + motion[:, :, 1].astype(int), columns + motion[:, :, 0].astype(int)
        inside = (x >= 0) & (x < SIZE[0]) & (y >= 0) & (y < SIZE[1])
        y, x = y.clip(0, SIZE[1] - 1), x.clip(0, SIZE[0] - 1)
        same = inside & (far[y, x] == depth)
        assert same.mean() > 0.9
        assert np.array_equal(before[y, x][same], after[same])


@pytest.mark.soak
def test_the_stability_benchmark_tells_a_stage_from_a_blur(monkeypatch: pytest.MonkeyPatch) -> None:
    need("panda3d")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import game_stability

    monkeypatch.setattr(game_stability, "SIZE", SIZE)
    # A style that flickers, which the default one hardly does.
    monkeypatch.setattr(game_stability, "MODEL", "composition-vii")
    found = game_stability.measure(6)
    rows = found["rows"]
    assert rows["source"]["ewarp_over_source"] == rows["net"]["ewarp_over_net"] == 1
    assert rows["net"]["ewarp_over_source"] > 5, "the net flickers"
    assert rows["net_blurred"]["gradient_energy_over_net"] < 0.2, "a blur is found out"
    assert rows["stabilised_0.9"]["ewarp_over_net"] < 1 / 3
    assert 0.9 < rows["stabilised_0.9"]["gradient_energy_over_net"] < 1.1
    assert found["frames"] == 6
    assert set(found["stage_median_ms"]) == {"0.5", "0.8", "0.9", "0.95", "every_second"}
