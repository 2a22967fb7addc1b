"""The optimisation of Gatys et al., and the `velatura train` command around it."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from velatura.training import command
from velatura.training.checkpoint import Checkpoint
from velatura.training.data import read_image
from velatura.training.describe import describe
from velatura.training.objectives import StyleObjective, centre_square
from velatura.training.optimize import optimise, value_of
from velatura.training.recipe import load_recipe, shipped_recipes


@pytest.fixture(scope="module")
def objective(data_root: Path) -> StyleObjective:
    recipe = replace(load_recipe("starry-night"), precision="fp32", style_sizes=(96,))
    return StyleObjective(recipe, data_root, None, torch.device("cpu"))


@pytest.fixture(scope="module")
def photo(data_root: Path) -> torch.Tensor:
    return centre_square(read_image(data_root / "eval/kodak24/kodim07.png"), 96)


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("start", ["noise", "photo"])
def test_the_objective_falls_and_is_what_is_said(
    objective: StyleObjective, photo: torch.Tensor, start: str
) -> None:
    content = objective.content(photo)
    found = optimise(photo, objective, iterations=12, keep=[4], start=start)  # type: ignore[arg-type]
    assert [state.iterations for state in found] == [4, 12]
    assert found[1].objective < 0.8 * found[0].objective
    assert found[1].objective < value_of(objective, photo, photo, content), (
        "closer than the photograph itself"
    )
    for state in found:
        assert value_of(objective, state.picture, photo, content) == pytest.approx(
            state.objective, rel=1e-5
        )
        assert 0 <= state.picture.min() <= state.picture.max() <= 1
    assert 0 < found[0].seconds < found[1].seconds


def test_two_paintings_give_the_weighted_mean_of_their_gram_matrices(data_root: Path) -> None:
    recipe = replace(load_recipe("wave"), precision="fp32", style_sizes=(96,))
    paintings = ("style/wave.jpg", "style/udnie.jpg")

    def target(**changes: object) -> dict[str, torch.Tensor]:
        changed = replace(recipe, **changes)  # type: ignore[arg-type]
        return StyleObjective(changed, data_root, None, torch.device("cpu")).targets[0]

    a, b = (target(style_images=(name,)) for name in paintings)
    even = target(style_images=paintings)
    blend = target(style_images=paintings, style_blend=(3.0, 1.0))
    for layer in recipe.style:
        torch.testing.assert_close(even[layer], (a[layer] + b[layer]) / 2)
        torch.testing.assert_close(blend[layer], 0.75 * a[layer] + 0.25 * b[layer])
    cropped = target(style_crop=(0.0, 0.0, 0.5, 1.0))
    assert not torch.allclose(cropped["relu1_2"], a["relu1_2"], rtol=1e-2)
    both = target(style_sizes=(96, 128))
    single = target(style_sizes=(128,))
    for layer in recipe.style:
        torch.testing.assert_close(both[layer], (a[layer] + single[layer]) / 2)


@pytest.fixture(autouse=True)
def _data_for_the_command(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELATURA_DATA", str(data_root))


def invoke(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command.app, [str(word) for word in words])
    return done.exit_code, done.output


def test_the_command_restyles_one_picture(data_root: Path, tmp_path: Path) -> None:
    code, told = invoke(
        "wave", "--method", "optimize", "--content", data_root / "eval/kodak24/kodim07.png",
        "-o", tmp_path / "out.png", "--iterations", 10, "--short-side", 64,
    )  # fmt: skip
    assert code == 0, told
    assert "iteration 10/10 objective" in told
    picture = cv2.imread(str(tmp_path / "out.png"))
    assert picture.shape == (64, 96, 3)
    assert picture.std() > 10


def test_the_command_trains_on_ones_own_painting_and_photographs(
    data_root: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        soft = cv2.GaussianBlur(rng.integers(0, 256, (120, 130, 3), np.uint8), (0, 0), 3)
        cv2.imwrite(str(tmp_path / f"photos/{number}.png"), soft)
    words = [
        "wave", "--style", data_root / "style/udnie.jpg", "--photos", tmp_path / "photos",
        "--name", "mine",
        "--set", "crop=96", "--set", "batch=1", "--set", "style_sizes=[96]", "--steps", 2,
        "--set", 'net={kind="fast-style", channels=8, stem=8, blocks=1, deep_blocks=1}',
        "-o", tmp_path / "run",
    ]  # fmt: skip
    code, told = invoke(*words)
    assert code == 0, told
    assert "velatura export" in told
    assert "mine.onnx" in told
    assert (tmp_path / "run/preview.png").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["sunflowers"], "no recipe 'sunflowers'"),
        (["wave", "--set", "brush=1"], "unknown key brush"),
        (["wave", "--set", "steps"], "is not KEY=VALUE"),
        (["wave", "--time-budget", "soon"], "--time-budget 'soon'"),
        (["wave", "--weights", "resnet=x.pth"], "NETWORK=PATH"),
        (["wave", "--weights", "vgg16=none.pth"], "no VGG-16 weights at none.pth"),
        (["wave", "--style", "none.jpg"], "no painting at"),
        (["wave", "--photos", "none"], "no folder of photographs at"),
        (["wave", "--init", "none.pt"], "no checkpoint at none.pt"),
        (["wave", "--init", "none.onnx"], "no model at none.onnx"),
        (["wave", "--method", "anneal"], "neither train nor optimize"),
        (["upscale-2x", "--method", "optimize"], "needs a style recipe"),
    ],
)
def test_bad_input_says_what_is_wrong(words: list[str], complaint: str, tmp_path: Path) -> None:
    code, told = invoke(*words, "-o", tmp_path / "run")
    assert code == 3
    assert complaint in told
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_network_is_described(name: str) -> None:
    facts = describe(name)
    assert facts is not None
    assert facts["parameters"] > 0
    assert facts["macs_per_pixel"] > 1000
    assert facts["losses"]


def test_multiply_adds_of_known_networks() -> None:
    upscaler, paper = describe("upscale-2x"), describe("johnson-style")
    assert upscaler is not None
    assert paper is not None
    # Six 3x3 convolutions and the skip, without their biases, at every input pixel.
    assert upscaler["macs_per_pixel"] == 9 * (14 + 4 * 14 * 14 + 14 * 4 + 4) == 7722
    assert (upscaler["parameters"], paper["parameters"]) == (7_796, 1_679_235)
    assert describe("no-such-thing") is None


def test_a_style_begins_with_the_run_that_its_recipe_names(data_root: Path, tmp_path: Path) -> None:
    """Where that run lies beside; else with nothing."""
    quick = [
        "--data", data_root, "--steps", 1, "--set", "crop=64", "--set", "style_sizes=[64]",
        "--set", "repeat_until=0.99",
        "--set", 'net={kind="fast-style", channels=8, stem=8, blocks=1, deep_blocks=1}',
    ]  # fmt: skip
    for name, out in (
        ("wave", "alone/wave"),
        ("starry-night", "runs/starry-night"),
        ("wave", "runs/wave"),
    ):
        code, told = invoke(name, *quick, "-o", tmp_path / out)
        assert code == 0, told
    begun = [
        Checkpoint.load(tmp_path / f"{f}/wave/checkpoint.pt").started_from for f in ("alone", "runs")
    ]
    assert begun == ["", "starry-night after 1 steps"]
