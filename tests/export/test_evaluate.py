"""`velatura evaluate`: what it measures, and that the measures tell good from bad."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner
from velatura.export import evaluate
from velatura.runtime import open_engine
from velatura.training.data import read_image
from velatura.training.metrics import METRICS, Metric, Style
from velatura.training.metrics.flip import flip
from velatura.training.metrics.vgg_distance import vgg_distance
from velatura.training.metrics.vmaf import vmaf


def invoke(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(evaluate.app, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.mark.soak
def test_an_upscaler_is_measured_beside_bicubic(data_root: Path) -> None:
    code, told = invoke("upscale-2x", "--data", data_root, "--json")
    assert code == 0, told
    found = json.loads(told)["measures"]
    with open_engine("upscale-2x", precision="fp32") as engine:
        card = engine.card
    for name in ("set5", "set14"):
        psnr, ssim, vgg, distance = (
            found[f"{name}_{measure}"] for measure in ("psnr_y_db", "ssim_y", "vgg_relu2_2", "flip")
        )
        assert psnr["model"] == pytest.approx(card.measures[f"{name}_psnr_y_db"], abs=0.02)
        assert psnr["model"] > psnr["bicubic"] + 2
        assert ssim["model"] > ssim["bicubic"]
        assert vgg["model"] < vgg["bicubic"]
        assert 0 < distance["model"] < distance["bicubic"]


@pytest.mark.soak
def test_a_style_is_measured_beside_its_input_and_a_blur(data_root: Path) -> None:
    clip = data_root / "clips/rabbit320.mp4"
    code, told = invoke("starry-night", "--data", data_root, "--clip", clip, "--json")
    assert code == 0, told
    found = json.loads(told)["measures"]
    # The recipe counts Gram distances by their roots, and 0.775 is the root of 0.6.
    assert found["objective"]["model"] < 0.775 * found["objective"]["input"]
    parts = [row["model"] for name, row in found.items() if name.startswith("objective_")]
    assert len(parts) >= 5
    assert sum(parts) == pytest.approx(found["objective"]["model"], rel=1e-3)
    assert found["light_correlation"]["model"] > 0.85
    assert found["halo_on_black"]["model"] < 3
    assert found["border_difference"]["inside"] < found["border_difference"]["model"]
    for measure in ("ewarp_pan", "ewarp_dis", "flicker_static"):
        assert found[measure]["blurred"] < found[measure]["model"], (
            "blur cheats, which is why it is shown"
        )
    assert (
        found["ewarp_pan_gradient_energy"]["blurred"]
        < 0.5 * found["ewarp_pan_gradient_energy"]["model"]
    )


def test_flip_is_zero_for_equal_pictures_and_grows(own_pictures: list[Path]) -> None:
    image = read_image(own_pictures[0])[:120, :160]
    draw = np.random.default_rng(1)
    noisy = [
        np.clip(image + draw.normal(0, level, image.shape), 0, 255).astype(np.uint8)
        for level in (5, 20)
    ]
    assert flip(image, image) == pytest.approx(0, abs=1e-6)
    assert 0 < flip(noisy[0], image) < flip(noisy[1], image) < 1


def test_the_vgg_distance_prefers_a_shift_to_a_blur(data_root: Path) -> None:
    import cv2

    image = read_image(data_root / "eval/kodak24/kodim08.png")
    original, shifted = image[50:250, 50:250], image[50:250, 51:251]
    blurred = cv2.GaussianBlur(image, (0, 0), 1.3)[50:250, 50:250]
    distance = vgg_distance(data_root)
    assert distance(original, original) == 0
    assert distance(shifted, original) < distance(blurred, original)

    def mse(a: np.ndarray) -> float:
        return float(np.square(a.astype(float) - original).mean())

    assert mse(shifted) > mse(blurred), "where the pixel loss says the opposite"


def test_a_matched_histogram_has_the_inputs_mean(own_pictures: list[Path]) -> None:
    image = read_image(own_pictures[1])[:100, :120]
    dark = (image * 0.7).astype(np.uint8)
    found = evaluate.matched(dark, image)
    assert found.shape == image.shape
    assert np.abs(found.mean((0, 1)) - image.mean((0, 1))).max() < 0.6


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["sunflowers"], 5, "unknown model"),
        (["wave", "--recipe", "sunflowers"], 3, "no recipe 'sunflowers'"),
        (["wave", "--recipe", "upscale-2x"], 3, "makes no style"),
    ],
)
def test_bad_input_says_what_is_wrong(
    own_data: Path, words: list[str], code: int, complaint: str
) -> None:
    found, told = invoke(*words, "--data", own_data)
    assert found == code
    assert complaint in told


def test_without_pictures_there_is_nothing_to_measure(tmp_path: Path) -> None:
    code, told = invoke("upscale-2x", "--data", tmp_path)
    assert code == 3
    assert "no evaluation pictures" in told


class Framed:
    """A model that repeats the picture in a black frame of four pixels."""

    def run(self, picture: np.ndarray) -> np.ndarray:
        output = picture.copy()
        output[:4] = output[-4:] = 0
        output[:, :4] = output[:, -4:] = 0
        return output


def test_the_scene_is_judged_by_its_light_its_black_and_its_border(own_pictures: list[Path]) -> None:
    photos = [read_image(path) for path in own_pictures[:2]]
    found = evaluate.scene(Framed(), photos)  # type: ignore[arg-type]
    assert found["light_correlation"]["model"] > 0.9
    assert found["halo_on_black"]["model"] == 0.0
    assert found["border_difference"]["model"] > 10 * found["border_difference"]["inside"]
    assert evaluate.scene(Framed(), []) == {  # type: ignore[arg-type]
        "light_correlation": {},
        "halo_on_black": {"model": 0.0},
        "border_difference": {},
    }


def test_a_line_in_the_table_makes_a_measure(
    own_data: Path, own_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports hold what the table does, taken of whatever the measure has a function for."""

    def lightest(style: Style, photos: Sequence[np.ndarray]) -> dict[str, float]:
        return {"model": float(max(style(photo).max() for photo in photos))}

    def planes(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray], border: int) -> float:
        return float(len(outputs) == len(truths)) + border

    one = Metric(
        key="{}_lightest", title="the lightest", better="higher", scene=lightest, planes=planes
    )
    monkeypatch.setattr(evaluate, "METRICS", (one,))
    photos = [read_image(path) for path in own_pictures[:1]]
    found = evaluate.scene(Framed(), photos)  # type: ignore[arg-type]
    assert found == {"{}_lightest": {"model": float(photos[0].max())}}
    told = evaluate.coded(own_data, 2, {"model": lambda plane: plane.repeat(2, 0).repeat(2, 1)})
    assert told == {f"kodak_crf{crf}_lightest": {"model": 3.0} for crf in (23, 30)}


def test_the_help_names_every_measure() -> None:
    code, told = invoke("--help")
    words = " ".join(told.split())
    assert code == 0
    assert all(metric.title in words for metric in METRICS)
    keys = [metric.key for metric in METRICS]
    assert len(set(keys)) == len(keys)


def test_coded_pictures_are_measured_beside_each_other(own_data: Path) -> None:
    """The better of two upscalers is so by PSNR and, where it can be had, by VMAF."""

    def bicubic(plane: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.resize(plane, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))

    def repeated(plane: np.ndarray) -> np.ndarray:
        return plane.repeat(2, 0).repeat(2, 1)

    found = evaluate.coded(own_data, 2, {"model": bicubic, "bicubic": repeated})
    for crf in (23, 30):
        row = found[f"kodak_crf{crf}_psnr_y_db"]
        assert row["model"] > row["bicubic"]
    rows = (found["kodak_crf23_psnr_y_db"]["model"], found["kodak_crf30_psnr_y_db"]["model"])
    assert rows[0] > rows[1], "the coarser coding costs"


def test_vmaf_is_high_for_equal_planes_and_falls() -> None:
    pytest.importorskip("imageio_ffmpeg", reason="VMAF needs imageio-ffmpeg, which is optional")
    draw = np.random.default_rng(1)
    plane = cv2.GaussianBlur(draw.integers(16, 236, (144, 192), np.uint8), (0, 0), 2)
    soft = np.asarray(cv2.GaussianBlur(plane, (0, 0), 3))
    scores = [vmaf([other, other], [plane, plane]) for other in (plane, soft)]
    assert scores[0] > 90
    assert scores[1] < scores[0] - 20
    with pytest.raises(ValueError, match="planes of one size"):
        vmaf([plane], [plane[:100]])
    with pytest.raises(ValueError, match="even sides"):
        vmaf([plane[:, :101]], [plane[:, :101]])
