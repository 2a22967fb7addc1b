"""Photographs as crops: what is drawn, what is refused."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from velatura.training.data import (
    FramePairs,
    PhotoCrops,
    Samples,
    UprightCrops,
    limited_luma,
    stream,
)
from velatura.training.degrade import bicubic_downscale, gaussian_downscale, video_downscale
from velatura.training.metrics.pairs import matlab_luma
from velatura.training.synthetic import KINDS, sprites_on_black


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


def test_crops_are_reduced_as_far_as_the_recipe_and_the_photograph_allow(tmp_path: Path) -> None:
    """A ramp's slope tells the factor: steps of one level a pixel become steps of up to two."""
    ramp = np.tile(np.arange(80, dtype=np.uint8)[:, None], (1, 80))
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    slopes: dict[float, np.ndarray] = {}
    for reduce in (1.0, 0.5, 0.01):
        crops = PhotoCrops([tmp_path], crop=24, seed=1, luma=False, reduce=reduce)
        levels = crops.batch(0, 64).numpy()[:, 0] * 255
        assert levels.shape == (64, 24, 24)
        slopes[reduce] = np.ptp(levels, axis=(1, 2)) / 23
    np.testing.assert_allclose(slopes[1.0], 1.0, atol=1e-4)
    assert slopes[0.5].min() >= 0.95
    assert 1.8 < slopes[0.5].max() < 2.1
    assert slopes[0.01].max() < 80 / 24 + 0.1, "never beyond the photograph"


def test_broken_and_small_pictures_are_skipped_and_counted(photos: Path) -> None:
    crops = PhotoCrops([photos], crop=24, seed=1, luma=True)
    assert len(crops.photos) == 3
    assert crops.skipped == 2
    batch = crops.batch(0, 2)
    assert batch.shape == (2, 1, 24, 24)
    assert 16 / 255 <= batch.min() <= batch.max() <= 235 / 255


def test_a_folder_without_use_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no photograph of at least 100 pixels \(5 files"):
        PhotoCrops([photos], crop=100, seed=1, luma=False)
    with pytest.raises(FileNotFoundError, match="no folder of photographs"):
        PhotoCrops([tmp_path / "none"], crop=8, seed=1, luma=False)


def test_luma_is_matlabs_rounded() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    assert np.abs(limited_luma(rgb)[:, :, 0] - matlab_luma(rgb)).max() <= 0.5001


def test_downscaling_agrees_with_the_standard_pairs(real_data: Path) -> None:
    """Our low resolution is the one that the field's test pictures were made with."""
    from velatura.training.data import read_image

    for path in sorted((real_data / "eval/set5/x2/hr").glob("*.png")):
        high = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 255
        low = read_image(path.parents[1] / "lr" / path.name).astype(float)
        found = bicubic_downscale(high, 2)[0].permute(1, 2, 0).numpy() * 255
        rows, columns = (min(a, b) for a, b in zip(found.shape[:2], low.shape[:2], strict=True))
        error = np.abs(found[:rows, :columns] - low[:rows, :columns])
        assert error.mean() < 0.2, path


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no photographs \(\.bmp, \.jpeg"):
        PhotoCrops([tmp_path], crop=8, seed=1, luma=False)
    with pytest.raises(FileNotFoundError, match="holds no videos"):
        FramePairs([tmp_path], crop=8, seed=1)


def test_what_the_cache_does_not_hold_is_read_again(photos: Path) -> None:
    cached = PhotoCrops([photos], crop=24, seed=1, luma=False)
    uncached = PhotoCrops([photos], crop=24, seed=1, luma=False, cache_bytes=60 * 80 * 3)
    assert [photo is None for photo in uncached.photos] == [False, True, True]
    for index in range(4):
        assert torch.equal(cached.batch(index, 3), uncached.batch(index, 3))


def test_two_halves_of_a_batch_are_the_batch(photos: Path) -> None:
    crops = UprightCrops([photos], crop=24, seed=1, luma=False)
    halves = torch.cat([crops.batch(5, 2), crops.batch(5, 2, first=2)])
    assert torch.equal(crops.batch(5, 4), halves)


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("degradation", ["bicubic", "gaussian", "video"])
def test_workers_deliver_what_one_process_makes(photos: Path, degradation: str) -> None:
    crops = PhotoCrops([photos], crop=24, seed=1, luma=True)
    samples = Samples(crops, videos=None, scale=2, degradation=degradation)
    alone = list(stream(samples, range(3, 9), 2))
    helped = list(stream(samples, range(3, 9), 2, workers=2))
    assert len(alone) == len(helped) == 6
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.photos, b.photos)
        assert a.low is not None
        assert b.low is not None
        assert a.low.shape == (2, 1, 12, 12)
        assert torch.equal(a.low, b.low)


def test_frame_pairs_of_real_clips_follow_each_other(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "rabbit.mp4").symlink_to(clips / "rabbit320.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    pairs = FramePairs([tmp_path], crop=96, seed=3)
    assert pairs.skipped == 1
    assert len(pairs.pairs) == 24
    batch = pairs.batch(4, 3)
    assert batch.shape == (2, 3, 3, 96, 96)
    assert torch.equal(batch, pairs.batch(4, 3))
    near = np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs.pairs])
    far = np.abs(pairs.pairs[0][0].astype(int) - pairs.pairs[-1][0]).mean()
    assert 0 < near < far


def test_the_papers_reduction_blurs_more_than_bicubic(data_root: Path) -> None:
    from velatura.training.data import read_image

    image = read_image(data_root / "eval/kodak24/kodim08.png")
    high = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    sharp, soft = bicubic_downscale(high, 4), gaussian_downscale(high, 4)
    assert soft.shape == sharp.shape == (1, 3, 64, 96)
    assert soft.diff(dim=3).square().mean() < 0.95 * sharp.diff(dim=3).square().mean()
    assert (soft - sharp).abs().mean() < 0.05
    flat = torch.full((1, 3, 32, 32), 0.4)
    torch.testing.assert_close(
        gaussian_downscale(flat, 4), torch.full((1, 3, 8, 8), 0.4), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_video_like_input_is_the_picture_but_damaged(data_root: Path, channels: int) -> None:
    from velatura.training.data import read_image

    image = read_image(data_root / "eval/kodak24/kodim23.png")[:200, :302]
    high = torch.from_numpy(image).permute(2, 0, 1)[None, :channels].float() / 255
    clean = bicubic_downscale(high, 2)
    errors = []
    for seed in range(6):
        damaged = video_downscale(high, 2, np.random.default_rng(seed))
        assert damaged.shape == clean.shape == (1, channels, 100, 151)
        errors.append((damaged - clean).abs().mean().item() * 255)
    assert min(errors) > 0.3
    assert max(errors) < 8
    assert max(errors) > 1.3 * min(errors), "qualities differ"


def test_a_part_of_the_crops_is_drawn(photos: Path) -> None:
    """By seed, row by row: some batches' rows change against those of photographs alone."""
    plain = UprightCrops([photos], crop=24, seed=1, luma=False)
    mixed = UprightCrops([photos], crop=24, seed=1, luma=False, synthetic=0.25)
    assert torch.equal(mixed.batch(3, 4), mixed.batch(3, 4))
    everything = UprightCrops([photos], crop=24, seed=1, luma=False, synthetic=0.999)
    kinds = {everything.batch(0, 1, first=row).numpy().tobytes() for row in range(12)}
    assert len(kinds) == 12
    drawn = sum(torch.equal(mixed.batch(index, 1), everything.batch(index, 1)) for index in range(200))
    assert 25 < drawn < 80
    assert not torch.equal(plain.batch(0, 8), mixed.batch(0, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_screen_is_a_picture_and_another_each_time(
    kind: Callable[[int, np.random.Generator], np.ndarray],
) -> None:
    pictures = [kind(64, np.random.default_rng(seed)) for seed in (1, 1, 2, 3)]
    for picture in pictures:
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert np.ptp(picture) > 0
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_sprites_leave_most_of_the_picture_black() -> None:
    shares = [(sprites_on_black(128, np.random.default_rng(s)) == 0).mean() for s in range(20)]
    assert np.median(shares) > 0.8


def test_styles_see_dark_and_bright_photographs(photos: Path) -> None:
    crops = UprightCrops([photos], crop=24, seed=1, luma=False)
    means = [float(crops.batch(index, 1).mean()) for index in range(100)]
    # The photographs of this test are noise of mean one half.
    assert min(means) < 0.1
    assert max(means) > 0.58
