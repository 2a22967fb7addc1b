"""The shipped models: cards, figures, and how they behave on real pictures and the sample clip."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from velatura.export.evaluate import scene
from velatura.export.verify import parity_db, runner, upscaler_psnr
from velatura.runtime import open_engine
from velatura.runtime.backends.graph import macs_per_pixel
from velatura.runtime.card import read_card
from velatura.runtime.zoo import zoo_models
from velatura.training.data import limited_luma, read_image
from velatura.training.metrics.grid import grid_excess
from velatura.training.nets import build_net
from velatura.training.recipe import load_recipe
from velatura.training.unfold import begin_with

from .rows import soaking

STYLES = ("composition-vii", "starry-night", "the-scream", "udnie", "wave")
SOME = ("starry-night", "wave")
"""One of each network; the others of theirs are looked at by `make soak`."""
UPSCALERS = ("upscale-2x", "upscale-2x-sharp", "upscale-4x", "upscale-4x-sharp")

# FSRCNN's paper reports 37.00 and 32.63.
BOUNDS = {"set5": 36.9, "set14": 32.7}


def files() -> list[tuple[str, str, Path]]:
    return [(n, p, path) for n, variants in zoo_models().items() for p, path in variants.items()]


def test_the_zoo_holds_what_it_should() -> None:
    assert set(zoo_models()) == {*STYLES, *UPSCALERS}
    for name, variants in zoo_models().items():
        assert set(variants) == {"fp32", "int8"}, name


@pytest.mark.parametrize(("name", "precision", "path"), files())
def test_every_model_carries_its_card(name: str, precision: str, path: Path) -> None:
    card = read_card(onnx.load(str(path)))
    assert card is not None
    assert (card.name, card.precision) == (name, precision)
    assert card.recipe == load_recipe(name).name
    assert card.licence
    assert card.attribution
    assert "steps" in card.training
    assert card.measures
    assert card.data
    assert ("relu" in card.losses) == (name not in ("upscale-2x", "upscale-4x"))
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("name", ["set5", "set14"])
@pytest.mark.parametrize("backend", ["openvino", "ort"])
def test_upscaling_is_as_faithful_as_it_must_be(data_root: Path, name: str, backend: str) -> None:
    folder = data_root / "eval" / name / "x2"
    with open_engine("upscale-2x", backend, precision="fp32") as engine:
        full = upscaler_psnr(engine, folder)
        assert full >= BOUNDS[name]
        assert full == pytest.approx(engine.card.measures[f"{name}_psnr_y_db"], abs=0.02)
    with open_engine("upscale-2x", backend, precision="int8") as engine:
        assert upscaler_psnr(engine, folder) >= full - 0.15


def test_upscaling_costs_less_than_opencvs_fsrcnn() -> None:
    """Half of it is the aim, which at this fidelity is not reached: the status page says so."""
    peers = json.loads((Path(__file__).parents[1] / "benchmarks/results/peers.json").read_text())
    path = zoo_models()["upscale-2x"]["fp32"]
    model = onnx.load(str(path))
    card = read_card(model)
    assert card is not None
    assert macs_per_pixel(model, card) < peers["FSRCNN_x2.pb"]["macs_per_pixel"]


@pytest.mark.parametrize("name", UPSCALERS)
def test_upscaling_keeps_flat_pictures_flat(name: str) -> None:
    for precision in ("fp32", "int8"):
        with open_engine(name, precision=precision) as engine:
            edge = engine.card.halo * engine.card.scale
            for level in (16, 60, 128, 235):
                output = engine.run(np.full((64, 64), level, np.uint8)).astype(int)
                output = output[edge:-edge, edge:-edge]
                assert np.ptp(output) <= 1, (precision, level)
                assert abs(np.median(output) - level) <= 1, (precision, level)


@pytest.fixture(scope="module")
def photographs(own_pictures: list[Path]) -> list[np.ndarray]:
    return [read_image(path) for path in own_pictures]


@pytest.mark.parametrize("name", soaking(STYLES, but=SOME))
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("period", [2, 4])
def test_style_draws_no_pixel_grid(
    photographs: list[np.ndarray], name: str, precision: str, period: int
) -> None:
    with open_engine(name, precision=precision) as engine:
        assert grid_excess(runner(engine), photographs, period) < 3


def test_style_changes_the_picture_and_keeps_its_structure(photographs: list[np.ndarray]) -> None:
    """Colours move towards the painting's blue; edges stay where they are."""
    import cv2

    with open_engine("starry-night") as engine:
        for image in photographs:
            output = engine.run(image)
            assert output.shape == image.shape
            assert output.std() > 15, "not a flat picture"
            blue = output[:, :, 2].mean() - output[:, :, 0].mean()
            assert blue > image[:, :, 2].mean() - image[:, :, 0].mean()
            before, after = (
                cv2.GaussianBlur(limited_luma(i)[:, :, 0].astype(np.float32), (0, 0), 8)
                for i in (image, output)
            )
            assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.5


# The others were trained with the losses of before, which know nothing of light.
LIT = ("starry-night",)


@pytest.mark.parametrize("name", LIT)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_style_keeps_the_light_of_the_scene_and_its_black(
    own_pictures: list[Path], name: str, precision: str
) -> None:
    photos = [read_image(path) for path in own_pictures]
    with open_engine(name, precision=precision) as engine:
        found = scene(engine, photos)
    assert found["light_correlation"]["model"] >= 0.85
    assert found["halo_on_black"]["model"] <= 3


@pytest.mark.parametrize("name", LIT)
def test_a_shipped_style_can_be_trained_further(name: str) -> None:
    options = dict(load_recipe(name).net)
    net = build_net(options.pop("kind"), options)
    words = begin_with(net, zoo_models()[name]["fp32"])
    assert words.startswith(f"{name}.onnx (")
    assert "steps" in words


@pytest.mark.parametrize("name", soaking(STYLES, but=SOME))
def test_int8_style_is_the_same_picture(photographs: list[np.ndarray], name: str) -> None:
    with open_engine(name, precision="fp32") as full, open_engine(name, precision="int8") as low:
        assert parity_db(full, low, photographs) >= 38.0


@pytest.mark.soak
@pytest.mark.parametrize("name", ["upscale-2x", "upscale-4x"])
def test_the_feature_loss_brings_the_picture_nearer_to_the_eye(data_root: Path, name: str) -> None:
    """Lower VGG distance, at some cost in PSNR: the trade that Johnson et al. describe."""
    from velatura.training.metrics.pairs import benchmark_pairs
    from velatura.training.metrics.vgg_distance import vgg_distance

    distance = vgg_distance(data_root)
    found: dict[str, float] = {}
    for model in (name, f"{name}-sharp"):
        with open_engine(model, precision="fp32") as engine:
            folder = data_root / f"eval/set14/x{engine.card.scale}"
            pairs = benchmark_pairs(runner(engine), folder, engine.card.scale, luma=True)
            found[model] = float(np.mean([distance(pair.output, pair.truth) for pair in pairs]))
    assert found[f"{name}-sharp"] < 0.92 * found[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_stable_over_time(data_root: Path, name: str) -> None:
    """Half of what starry-night's network shows without the temporal terms, 0.0170 on the same pans
    (benchmarks/results/stability.json)."""
    from velatura.export.evaluate import pans

    photos = [read_image(data_root / f"eval/kodak24/kodim{n:02d}.png") for n in (1, 2, 3, 5, 6)]
    with open_engine(name, precision="fp32") as engine:
        found = pans(engine, photos)
    assert found["ewarp_pan"]["model"] < 0.5 * 0.0170


@pytest.mark.parametrize("name", ["upscale-2x", "upscale-4x", *STYLES[:2]])
def test_tiles_are_seamless(name: str, own_pictures: list[Path]) -> None:
    """A frame cut into tiles is the frame in one piece, within one level."""
    from velatura.runtime.backends.shape_compiled import StaticEngine

    image = read_image(own_pictures[2])[:288, :352]
    with open_engine(name, precision="fp32") as engine:
        assert isinstance(engine, StaticEngine)
        picture = limited_luma(image)[:, :, 0] if engine.card.input_colour == "luma" else image
        whole = engine.run(picture).astype(int)
        engine.max_pixels = 256 * 256
        tiled = engine.run(picture).astype(int)
    assert np.abs(whole - tiled).max() <= 1
