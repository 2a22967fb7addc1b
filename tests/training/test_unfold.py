"""A shipped style, unfolded, goes on learning from where it stands."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from velatura.runtime.zoo import zoo_models
from velatura.training.loop import Options, fit
from velatura.training.nets import LumaUpscaler, build_net
from velatura.training.nets.style import FastStyle
from velatura.training.recipe import Recipe, load_recipe
from velatura.training.unfold import begin_with

MODEL = zoo_models()["wave"]["fp32"]


def fresh() -> FastStyle:
    net = dict(load_recipe("wave").net)
    found = build_net(net.pop("kind"), net)
    assert isinstance(found, FastStyle)
    return found


@torch.no_grad()
def test_in_training_mode_it_is_nearly_the_same_for_the_photographs_it_saw() -> None:
    torch.manual_seed(4)
    photos = torch.rand(4, 3, 128, 128)
    net = fresh()
    begin_with(net, MODEL, photos)
    assert net.training
    before = net.eval()(photos)[:, :, 32:-32, 32:-32]
    # Padding differs between the modes, and so do the statistics a little.
    after = net.train()(photos)[:, :, 32:-32, 32:-32]
    assert (before - after).abs().mean() < 0.02


@pytest.fixture
def recipe() -> Recipe:
    return replace(
        load_recipe("wave"),
        photos=("photos/wikipedia_photos",), crop=128, batch=1, steps=1, warmup=1, learning_rate=1e-6,
        style_sizes=(128,), stable_from=1.0,
    )  # fmt: skip


def test_training_begins_where_the_model_stands(
    data_root: Path, tmp_path: Path, recipe: Recipe
) -> None:
    losses: dict[str, float] = {}
    for who, init in (("begun", MODEL), ("fresh", None)):
        options = Options(init=init, report_every=1)
        done = fit(recipe, root=data_root, folder=tmp_path / who, options=options)
        losses[who] = json.loads((tmp_path / who / "log.jsonl").read_text().splitlines()[0])["style"]
        assert done.started_from.startswith("wave.onnx") == (who == "begun")
    assert losses["begun"] < 0.5 * losses["fresh"]


def test_what_does_not_fit_is_refused(tmp_path: Path, recipe: Recipe, data_root: Path) -> None:
    photos = torch.rand(1, 3, 96, 96)
    with pytest.raises(FileNotFoundError, match="to begin with"):
        begin_with(fresh(), tmp_path / "none.onnx", photos)
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="no ONNX model"):
        begin_with(fresh(), tmp_path / "bad.onnx", photos)
    with pytest.raises(ValueError, match="another network"):
        begin_with(FastStyle(size="small"), MODEL, photos)
    with pytest.raises(ValueError, match="another network"):
        begin_with(FastStyle(blocks=4), MODEL, photos)
    with pytest.raises(ValueError, match="another network"):
        begin_with(LumaUpscaler(), MODEL, photos)
    other = replace(recipe, net={"kind": "fast-style", "size": "large"})
    with pytest.raises(ValueError, match="another network"):
        fit(other, root=data_root, folder=tmp_path / "run", options=Options(init=MODEL))
