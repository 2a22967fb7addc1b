"""Photographs as crops: what is drawn, what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from velatura.training.data import PhotoCrops, UprightCrops, bicubic_downscale, limited_luma
from velatura.training.metrics import matlab_luma


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (60, 80, 3), np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((10, 10, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("ignored")
    return tmp_path


@pytest.mark.parametrize("kind", [PhotoCrops, UprightCrops])
def test_batches_repeat_by_index_and_seed(photos: Path, kind: type[PhotoCrops]) -> None:
    first = kind([photos], crop=24, seed=1, luma=False)
    again = kind([photos], crop=24, seed=1, luma=False)
    other = kind([photos], crop=24, seed=2, luma=False)
    assert first.batch(7, 4).shape == (4, 3, 24, 24)
    torch.testing.assert_close(first.batch(7, 4), again.batch(7, 4), rtol=0, atol=0)
    assert not torch.equal(first.batch(7, 4), first.batch(8, 4))
    assert not torch.equal(first.batch(7, 4), other.batch(7, 4))


def test_broken_and_small_pictures_are_skipped_and_counted(photos: Path) -> None:
    crops = PhotoCrops([photos], crop=24, seed=1, luma=True)
    assert len(crops.photos) == 3
    assert crops.skipped == 2
    batch = crops.batch(0, 2)
    assert batch.shape == (2, 1, 24, 24)
    assert 16 / 255 <= batch.min() <= batch.max() <= 235 / 255


def test_a_folder_without_use_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no photograph of at least 100 pixels"):
        PhotoCrops([photos], crop=100, seed=1, luma=False)
    with pytest.raises(FileNotFoundError, match="no folder of photographs"):
        PhotoCrops([tmp_path / "none"], crop=8, seed=1, luma=False)


def test_luma_is_matlabs_rounded() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    assert np.abs(limited_luma(rgb)[:, :, 0] - matlab_luma(rgb)).max() <= 0.5001


def test_downscaling_agrees_with_the_standard_pairs(data_root: Path) -> None:
    """Our low resolution is the one that the field's test pictures were made with."""
    from velatura.training.data import read_image

    for path in sorted((data_root / "eval/set5/x2/hr").glob("*.png")):
        high = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 255
        low = read_image(path.parents[1] / "lr" / path.name).astype(float)
        found = bicubic_downscale(high, 2)[0].permute(1, 2, 0).numpy() * 255
        rows, columns = (min(a, b) for a, b in zip(found.shape[:2], low.shape[:2], strict=True))
        error = np.abs(found[:rows, :columns] - low[:rows, :columns])
        assert error.mean() < 0.2, path
