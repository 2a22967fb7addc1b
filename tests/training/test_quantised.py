"""Quantisation-aware training computes what INT8 will, and mends what INT8 loses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner
from velatura.export.command import kept_in_float
from velatura.export.precision import quantise
from velatura.export.to_onnx import to_onnx
from velatura.training.checkpoint import Checkpoint
from velatura.training.command import app
from velatura.training.loop import Options, averaged_net, fit, read_samples
from velatura.training.nets import build_net
from velatura.training.nets.blocks import CollapsibleConv, ScaledConv, UpsampleConv
from velatura.training.nets.quantised import FakeQuantiser, fake_quantise
from velatura.training.recipe import Recipe, load_recipe

from .test_loop import start
from .test_nets import disturbed


@pytest.fixture
def upscaler() -> Recipe:
    net = {"kind": "luma-upscaler", "channels": 8, "layers": 0, "width": 16}
    return replace(
        load_recipe("upscale-2x"), net=net, photos=("photos/wikipedia_photos",), steps=300, batch=4,
        crop=48, warmup=5, average=0.9, precision="fp32",
    )  # fmt: skip


@pytest.fixture
def style() -> Recipe:
    net = {"kind": "fast-style", "channels": 8, "stem": 8, "blocks": 1, "deep_blocks": 1}
    return replace(
        load_recipe("starry-night"), net=net, photos=("photos/wikipedia_photos",), steps=4, batch=1,
        crop=64, warmup=1, style_sizes=(64,), style_scales=(1.0, 1.0), stable_from=0.0,
        repeat_until=0.0,
    )  # fmt: skip


def untrained(recipe: Recipe) -> Checkpoint:
    """A checkpoint of random weights and statistics, as a run would have saved it."""
    net = disturbed(build_net(recipe.net["kind"], {k: v for k, v in recipe.net.items() if k != "kind"}))
    average = AveragedModel(net, use_buffers=True).state_dict()
    return Checkpoint(recipe.to_mapping(), 0, 0.0, net.state_dict(), average, {})


def run(model: Any, pictures: list[Tensor]) -> list[Tensor]:
    """The graph as it is written, node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [torch.from_numpy(session.run(None, {"image": x.numpy()})[0]) for x in pictures]


def test_the_grids_are_those_of_int8() -> None:
    torch.manual_seed(1)
    quantiser = FakeQuantiser()
    x = torch.randn(2, 3, 40, 40) + 0.5
    found = quantiser(x)
    assert 200 < len(found.unique()) <= 256
    assert 0 in found, "padding is"
    step = float(quantiser.get_buffer("reach").sum() / 255)
    assert (found - x).abs().max() <= 1.01 * step, "half for the value, half for the zero point"
    kernel = torch.randn(4, 8, 12, 12) * torch.tensor([0.0, 1.0, 10.0, 1e3])[:, None, None, None]
    rounded = quantiser.kernel(kernel)
    for channel, values in zip(kernel, rounded, strict=True):
        assert len(values.unique()) <= 255
        assert (values - channel).abs().max() <= 0.501 * channel.abs().max() / 127
    assert (rounded[2] == -rounded[2]).sum() < 30, "few are zero: each channel has its own scale"


def test_a_range_grows_at_once_and_fades_slowly() -> None:
    quantiser, reach = FakeQuantiser(), lambda: quantiser.get_buffer("reach").tolist()
    quantiser(torch.tensor([-1.0, 3.0]))
    assert reach() == [1.0, 3.0]
    quantiser(torch.tensor([1.0, 2.0]))
    assert reach() == pytest.approx([0.99, 2.99])
    quantiser(torch.tensor([-5.0, 0.0]))
    assert reach()[0] == 5.0
    quantiser.eval()(torch.tensor([-50.0, 50.0]))
    assert reach()[0] == 5.0, "only in training"
    rare = FakeQuantiser(rare=0.01)
    rare(torch.arange(1000.0))
    assert rare.get_buffer("reach").tolist() == [0.0, 989.0]


def test_the_gradient_passes_inside_of_the_range_only() -> None:
    quantiser = FakeQuantiser()
    quantiser(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([-2.0, -0.7, 0.0, 0.3, 2.0], requires_grad=True)
    quantiser.eval()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "block",
    [
        CollapsibleConv(4, 4, width=16),
        UpsampleConv(4, 3),
        ScaledConv(4, 3, stride=2),
        ScaledConv(4, 3, size=6, stride=2),
    ],
    ids=lambda block: type(block).__name__,
)
def test_a_block_rounds_its_folded_kernel(block: Any) -> None:
    disturbed(block)
    x = torch.rand(1, 4, 12, 16)
    plain = block.fold()
    block.quantiser = FakeQuantiser()
    found = block.train()(x)
    conv = plain[0] if isinstance(plain, nn.Sequential) else plain
    conv.weight.copy_(FakeQuantiser.kernel(conv.weight))
    torch.testing.assert_close(found, plain(block.quantiser.rounded(x)), rtol=1e-4, atol=1e-4)
    found.square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(block(x), found, rtol=0, atol=0)


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("name", ["upscale-2x", "upscale-4x-sharp", "starry-night"])
@torch.no_grad()
def test_a_net_computes_what_its_int8_export_will(name: str) -> None:
    """Each layer on its grid and no other: what differs is a rounding that falls the other way."""
    recipe = load_recipe(name)
    small = (
        {"width": 16, "layers": 2}
        if recipe.task == "upscale"
        else {"channels": 16, "blocks": 2, "deep_blocks": 1}
    )
    recipe = replace(recipe, net={**recipe.net, **small}, quantisation_aware=True)
    given = untrained(recipe)
    model, card = to_onnx(given)
    torch.manual_seed(2)
    x = torch.rand(1, recipe.planes, 64, 96)
    int8 = quantise(model, [x.numpy()], keep=kept_in_float(card, model)[0])
    (full,), (wanted,) = run(model, [x]), run(int8, [x])
    net: Any = averaged_net(given)
    entering: list[Tensor] = []
    for layer in net.quantised_layers:
        layer.register_forward_pre_hook(lambda _, inputs: entering.append(*inputs))
    torch.testing.assert_close(net(x), full, rtol=1e-4, atol=1e-4 * float(full.abs().max()))
    fake_quantise(net, "upscale")
    for layer, inputs in zip(net.quantised_layers, entering, strict=True):
        layer.quantiser(inputs)
    error = (net.eval()(x) - wanted).square().mean()
    assert error < 0.03 * (full - wanted).square().mean()


def test_a_run_saves_a_net_that_folds_in_float(data_root: Path, tmp_path: Path, style: Recipe) -> None:
    """Weight normalisation and losses over two passes, as a style trains."""
    before = untrained(style)
    recipe = replace(style, quantisation_aware=True)
    done = fit(recipe, root=data_root, folder=tmp_path, options=Options(init=before))
    assert any(name.endswith("quantiser.reach") and value[1] > 0 for name, value in done.net.items())
    net = averaged_net(done)
    assert not any(isinstance(part, FakeQuantiser) for part in net.modules())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.fold()(x), net(x), rtol=1e-4, atol=1e-4)  # type: ignore[operator]
    again = replace(style, name="again", steps=1)
    fit(again, root=data_root, folder=tmp_path / "again", options=Options(init=done))


class StoppedError(Exception):
    pass


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("kind", ["upscaler", "style"])
def test_an_interrupted_run_goes_on_with_its_ranges(
    data_root: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    recipe = replace(request.getfixturevalue(kind), steps=8, precision="fp32")
    given, recipe = untrained(recipe), replace(recipe, quantisation_aware=True)
    whole = fit(recipe, root=data_root, folder=tmp_path / "whole", options=Options(init=given))

    def stop(progress: object) -> None:
        if getattr(progress, "step") == 6:  # noqa: B009
            raise StoppedError

    options = Options(init=given, report_every=3, save_every=4)
    with pytest.raises(StoppedError):
        fit(recipe, root=data_root, folder=tmp_path / "cut", options=options, report=stop)
    resumed = fit(recipe, root=data_root, folder=tmp_path / "cut")
    assert resumed.step == 8
    for state, wanted in ((resumed.net, whole.net), (resumed.average, whole.average)):
        assert any(name.endswith("quantiser.reach") for name in wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-7)


def test_two_processes_share_their_ranges(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    code = """
import os
from velatura.training.checkpoint import Checkpoint
given = Checkpoint.load(folder.parent / "given.pt")
batch = 4 // int(os.environ.get("WORLD_SIZE", "1"))
recipe = replace(recipe, batch=batch, net=given.recipe["net"], quantisation_aware=True)
fit(recipe, root=root, folder=folder, options=Options(device="cpu", init=given))
"""
    untrained(upscaler).save(tmp_path / "given.pt")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29519", "WORLD_SIZE": "2"}
    runs = [start(code, data_root, tmp_path / "one", 6)]
    runs += [start(code, data_root, tmp_path / "two", 6, RANK=str(rank), **address) for rank in (0, 1)]
    for run in runs:
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output
    single, shared = (Checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for name, value in single.net.items():
        torch.testing.assert_close(shared.net[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.soak
def test_fine_tuning_mends_what_int8_loses(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    """One channel, 64 times as large as the others, leaves those four of the 256 steps.

    In float nothing changes by it: what the first layer multiplies, the next divides by.
    """
    trained = fit(upscaler, root=data_root, folder=tmp_path / "float")
    for state in (trained.net, trained.average):
        for name, value in state.items():
            if name.endswith(("head.project", "head.bias")):
                value[0] *= 64
            elif name.endswith("tail.expand"):
                value[:, 0] /= 64
    samples = read_samples(replace(upscaler, crop=192), data_root)
    unseen = [samples.batch(10**6 + index, 1) for index in range(10)]
    pictures = [sample.low for sample in unseen if sample.low is not None]

    def psnr(checkpoint: Checkpoint) -> tuple[float, float]:
        """In float and in INT8, in dB, on unseen crops."""
        model, card = to_onnx(checkpoint)
        int8 = quantise(model, [x.numpy() for x in pictures[4:]], keep=kept_in_float(card, model)[0])
        errors = [
            torch.stack([(y - s.photos).square().mean() for y, s in zip(found, unseen, strict=False)])
            for found in (run(graph, pictures[:4]) for graph in (model, int8))
        ]
        full, low = (-10 * float(error.mean().log10()) for error in errors)
        return full, low

    def tuned(aware: bool) -> tuple[float, float]:
        recipe = replace(upscaler, quantisation_aware=aware, learning_rate=3e-4)
        folder = tmp_path / f"aware-{aware}"
        return psnr(fit(recipe, root=data_root, folder=folder, options=Options(init=trained)))

    before, unaware, aware = psnr(trained), tuned(False), tuned(True)
    assert before[0] - before[1] > 0.5
    assert unaware[0] - unaware[1] > 0.5, "more training alone is no cure"
    assert aware[0] - aware[1] < 0.15
    assert aware[1] > max(before[1], unaware[1]) + 0.2


def test_the_key_needs_a_trained_net_that_folds(
    data_root: Path, tmp_path: Path, upscaler: Recipe
) -> None:
    aware = replace(upscaler, quantisation_aware=True)
    with pytest.raises(ValueError, match="needs --init, a checkpoint"):
        fit(aware, root=data_root, folder=tmp_path)
    for kind in ("srcnn", "johnson-style", "johnson-upscaler"):
        with pytest.raises(ValueError, match="leave it out, or take fast-style, luma-upscaler"):
            fake_quantise(build_net(kind, {}), "upscale")
    with pytest.raises(ValueError, match="quantisation_aware is 1, which is no bool"):
        Recipe.from_mapping({**aware.to_mapping(), "quantisation_aware": 1}, origin="recipe")


def test_optimisation_of_a_picture_has_no_use_for_it(data_root: Path) -> None:
    arguments = ["wave", "--method", "optimize", "--content", "photo.jpg", "--data", str(data_root)]
    result = CliRunner().invoke(app, [*arguments, "--set", "quantisation_aware=true"])
    assert result.exit_code == 3
    assert "leave quantisation_aware out" in result.output
