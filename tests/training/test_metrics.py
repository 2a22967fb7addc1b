"""Fidelity and grid measures on pictures whose answer is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.training.data import limited_luma, read_image
from velatura.training.metrics import benchmark_psnr, grid_energy, matlab_luma, psnr


def test_psnr_of_a_known_error() -> None:
    reference = np.zeros((20, 20))
    assert psnr(reference + 5.0, reference, border=2) == pytest.approx(20 * np.log10(255 / 5))
    spoiled = reference.copy()
    spoiled[0] = 99
    assert psnr(spoiled, reference, border=2) == float("inf")


def test_psnr_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        psnr(np.zeros((2, 2)), np.zeros((2, 3)), border=0)


def test_matlab_luma_of_the_primaries() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert matlab_luma(colours)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966])


@pytest.mark.parametrize(("name", "bicubic"), [("set5", 33.64), ("set14", 30.22)])
def test_bicubic_reaches_the_published_figure(data_root: Path, name: str, bicubic: float) -> None:
    """If our protocol differed from the field's, bicubic would not land on its known value."""

    def upscale(luma: np.ndarray) -> np.ndarray:
        return cv2.resize(luma, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)

    found = np.mean(list(benchmark_psnr(upscale, data_root / "eval" / name / "x2", 2)))
    # OpenCV's cubic has a = -0.75 where the papers' has -0.5, which is worth a few tenths.
    assert found == pytest.approx(bicubic, abs=0.45)


def test_grid_energy_tells_a_grid_from_a_photograph(data_root: Path) -> None:
    image = limited_luma(read_image(data_root / "eval/kodak24/kodim05.png"))[:, :, 0].astype(float)
    assert grid_energy(image, 4) < 5
    gridded = image.copy()
    gridded[::4, ::4] += 12
    assert grid_energy(gridded, 4) > 100
    # A grid of period 4 has harmonics at period 2, but not the other way round.
    halved = image.copy()
    halved[::2, ::2] += 12
    assert grid_energy(halved, 2) > 100
