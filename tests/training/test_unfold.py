"""An exported style, unfolded, goes on learning from where it stands."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn
from velatura.export.to_onnx import to_onnx
from velatura.training.loop import Options, fit
from velatura.training.nets import LumaUpscaler, build_net
from velatura.training.recipe import Recipe, load_recipe
from velatura.training.unfold import begin_with

NET = {"kind": "fast-style", "channels": 8, "stem": 8, "blocks": 1, "deep_blocks": 1}


@pytest.fixture(scope="module")
def model(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A style that was trained a little, as it is exported."""
    folder = tmp_path_factory.mktemp("model")
    quick = replace(quick_recipe(), steps=200, learning_rate=5e-3, warmup=5)
    exported, _ = to_onnx(fit(quick, root=data_root, folder=folder))
    onnx.save(exported, str(folder / "wave.onnx"))
    return folder / "wave.onnx"


def fresh(**changes: object) -> nn.Module:
    options = {**NET, **changes}
    return build_net(str(options.pop("kind")), options)


@torch.no_grad()
def test_it_computes_what_the_model_does(model: Path) -> None:
    net = fresh()
    assert begin_with(net, model).startswith("wave.onnx (200 of 200 steps")
    x = torch.rand(1, 3, 48, 64)
    session = InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": x.numpy()})
    torch.testing.assert_close(net(x), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)


@pytest.fixture
def recipe() -> Recipe:
    return quick_recipe()


def quick_recipe() -> Recipe:
    return replace(
        load_recipe("wave"), net=NET, repeat_until=0.99,
        photos=("photos/wikipedia_photos",), crop=64, batch=1, steps=1, warmup=1, learning_rate=1e-6,
        style_sizes=(64,), style_scales=(1.0, 1.0), stable_from=1.0,
    )  # fmt: skip


def test_training_begins_where_the_model_stands(
    data_root: Path, tmp_path: Path, recipe: Recipe, model: Path
) -> None:
    losses: dict[str, float] = {}
    for who, init in (("begun", model), ("fresh", None)):
        options = Options(init=init, report_every=1)
        done = fit(recipe, root=data_root, folder=tmp_path / who, options=options)
        losses[who] = json.loads((tmp_path / who / "log.jsonl").read_text().splitlines()[0])["pixel"]
        assert done.started_from.startswith("wave.onnx") == (who == "begun")
    assert losses["begun"] < 0.8 * losses["fresh"]


def test_what_does_not_fit_is_refused(
    tmp_path: Path, recipe: Recipe, data_root: Path, model: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="to begin with"):
        begin_with(fresh(), tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="no ONNX model"):
        begin_with(fresh(), tmp_path / "bad.onnx")
    for other in (fresh(channels=16), fresh(blocks=2), fresh(deep_blocks=0), LumaUpscaler()):
        with pytest.raises(ValueError, match="another network"):
            begin_with(other, model)
    large = replace(recipe, net={"kind": "fast-style", "size": "large"})
    with pytest.raises(ValueError, match="another network"):
        fit(large, root=data_root, folder=tmp_path / "run", options=Options(init=model))
