"""A short real training run: it learns, resumes exactly, and refuses what does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from velatura.training.checkpoint import Checkpoint
from velatura.training.loop import averaged_net, fit, learning_rate
from velatura.training.recipe import Recipe, load_recipe, shipped_recipes


def small(recipe: Recipe, **changes: object) -> Recipe:
    """A recipe cut down to seconds, on the real photographs."""
    return replace(recipe, **{"photos": ("photos/wikipedia_photos",), "warmup": 5, **changes})  # type: ignore[arg-type]


@pytest.fixture
def upscaler() -> Recipe:
    net = {"kind": "luma-upscaler", "channels": 8, "layers": 1, "width": 16}
    return small(load_recipe("upscale-2x"), net=net, steps=60, batch=4, crop=48, average=0.9)


@pytest.fixture
def style() -> Recipe:
    net = {"kind": "fast-style", "channels": 8, "stem": 8, "blocks": 1}
    return small(load_recipe("starry-night"), net=net, steps=12, batch=1, crop=96, style_sizes=(128,))


def losses(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_an_upscaler_learns(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    fit(upscaler, root=data_root, folder=tmp_path, report_every=10)
    found = losses(tmp_path, "pixel")
    assert found[-1] < 0.5 * found[0]
    assert (tmp_path / "preview.png").stat().st_size > 0


def test_a_style_learns(data_root: Path, tmp_path: Path, style: Recipe) -> None:
    fit(style, root=data_root, folder=tmp_path, report_every=3)
    found = losses(tmp_path, "style")
    assert found[-1] < found[0]
    assert {"content", "style", "tv", "grid", "stability"} < set(
        json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    )


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("kind", ["upscaler", "style"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    data_root: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    recipe = replace(request.getfixturevalue(kind), steps=8, precision="fp32")
    whole = fit(recipe, root=data_root, folder=tmp_path / "whole", report_every=2)

    def stop(progress: object) -> None:
        if getattr(progress, "step") == 6:  # noqa: B009
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(recipe, root=data_root, folder=tmp_path / "cut", report_every=2, save_every=4, report=stop)
    assert Checkpoint.load(tmp_path / "cut/checkpoint.pt").step == 4
    resumed = fit(recipe, root=data_root, folder=tmp_path / "cut", report_every=2)
    assert resumed.step == whole.step
    for name, weight in whole.net.items():
        torch.testing.assert_close(resumed.net[name], weight, rtol=1e-4, atol=1e-6)
    first, second = averaged_net(whole).state_dict(), averaged_net(resumed).state_dict()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-6)


def test_a_folder_of_another_recipe_is_refused(data_root: Path, tmp_path: Path, style: Recipe) -> None:
    fit(replace(style, steps=1), root=data_root, folder=tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        fit(replace(style, steps=2), root=data_root, folder=tmp_path)


def test_the_time_budget_ends_the_run(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    recipe = replace(upscaler, steps=10**6)
    done = fit(recipe, root=data_root, folder=tmp_path, time_budget=1.0)
    assert 1.0 <= done.elapsed < 20
    assert 0 < done.step < 10**6


def test_the_rate_warms_up_and_falls_to_a_hundredth(upscaler: Recipe) -> None:
    peak = upscaler.learning_rate
    assert learning_rate(upscaler, 0, 0.0) == pytest.approx(peak / upscaler.warmup)
    assert learning_rate(upscaler, 1000, 0.0) == pytest.approx(peak)
    assert learning_rate(upscaler, 1000, 1.0) == pytest.approx(peak / 100)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_name_data_that_exists(data_root: Path, name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for folder in recipe.photos:
        assert (data_root / folder).is_dir()
    if recipe.style_image:
        assert (data_root / recipe.style_image).is_file()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = 3 =", "line 1"),
        ('name = "x"\ncolour = 1', "unknown key colour"),
        ('name = "x"', "missing"),
    ],
)
def test_a_bad_recipe_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as error:
        load_recipe(path)
    assert "bad.toml" in str(error.value)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(FileNotFoundError, match="starry-night"):
        load_recipe("sunflowers")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a velatura checkpoint"):
        Checkpoint.load(tmp_path / "other.pt")
