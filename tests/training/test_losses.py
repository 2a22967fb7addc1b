"""Losses against the same formulas written in NumPy, float64."""

import numpy as np
import pytest
import torch
from velatura.training import losses

RNG = np.random.default_rng(3)


def features(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()


def gram(array: np.ndarray) -> np.ndarray:
    """Equation 3 of Johnson et al., written as the sum it is."""
    batch, channels, height, width = array.shape
    found = np.zeros((batch, channels, channels))
    for row in range(height):
        for column in range(width):
            pixel = array[:, :, row, column]
            found += pixel[:, :, None] * pixel[:, None, :]
    return found / (channels * height * width)


def test_gram_matrix() -> None:
    array = features(2, 5, 6, 7)
    np.testing.assert_allclose(
        losses.gram_matrix(tensor(array)).numpy(), gram(array), rtol=1e-4, atol=1e-7
    )


def test_gram_matrix_of_channels_last_memory_is_the_same() -> None:
    array = features(2, 5, 6, 7)
    last = tensor(array).to(memory_format=torch.channels_last)
    np.testing.assert_allclose(losses.gram_matrix(last).numpy(), gram(array), rtol=1e-4, atol=1e-7)


def test_gram_style() -> None:
    first, second = features(2, 4, 5, 6), features(2, 3, 4, 4)
    goals = {"a": gram(features(1, 4, 9, 9)), "b": gram(features(1, 3, 9, 9))}
    weights = {"a": 2.0, "b": 0.5}
    expected = sum(
        weights[name]
        * np.mean(np.sum((gram(array) - goals[name]) ** 2, axis=(1, 2)))
        / np.sum(goals[name] ** 2)
        for name, array in (("a", first), ("b", second))
    )
    found = losses.gram_style(
        {"a": tensor(first), "b": tensor(second)},
        {name: tensor(goal) for name, goal in goals.items()},
        weights,
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_feature_reconstruction() -> None:
    output, target = features(2, 4, 5, 6), features(2, 4, 5, 6)
    expected = 3.0 * np.mean((output - target) ** 2) / np.mean(target**2)
    found = losses.feature_reconstruction({"r": tensor(output)}, {"r": tensor(target)}, {"r": 3.0})
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_total_variation() -> None:
    image = features(2, 3, 6, 5)
    expected = np.mean(np.diff(image, axis=2) ** 2) + np.mean(np.diff(image, axis=3) ** 2)
    assert losses.total_variation(tensor(image)).item() == pytest.approx(expected, rel=1e-5)


def test_pixel_losses() -> None:
    output, target = features(2, 3, 4, 5), features(2, 3, 4, 5)
    difference = output - target
    assert losses.pixel_l1(tensor(output), tensor(target)).item() == pytest.approx(
        np.abs(difference).mean(), rel=1e-5
    )
    assert losses.pixel_l2(tensor(output), tensor(target)).item() == pytest.approx(
        (difference**2).mean(), rel=1e-5
    )


def test_pixel_grid_is_the_variance_of_the_phases() -> None:
    image = features(2, 3, 9, 13)
    cells = image[:, :, :8, :12]
    phases = np.stack(
        [cells[:, :, row::4, column::4].mean((2, 3)) for row in range(4) for column in range(4)]
    )
    found = losses.pixel_grid(tensor(image), 4).item()
    assert found == pytest.approx(phases.var(axis=0).mean(), rel=1e-4)


def test_pixel_grid_sees_a_grid_and_no_stripe_of_another_period() -> None:
    rows = torch.arange(32).view(1, 1, 32, 1).expand(1, 1, 32, 32)
    assert losses.pixel_grid((rows % 4 == 0).float(), 4).item() > 0.1
    assert losses.pixel_grid((rows % 32 < 16).float(), 4).item() == pytest.approx(0.0, abs=1e-9)


def test_stability_is_zero_for_a_network_that_moves_with_the_picture() -> None:
    image = tensor(features(1, 3, 24, 24))
    box = torch.nn.functional.avg_pool2d
    output = box(image, 3, 1, 1)
    moved = box(image.roll((2, 3), (2, 3)), 3, 1, 1)
    assert losses.stability(moved, output, (2, 3), border=6).item() == pytest.approx(0, abs=1e-12)
    assert losses.stability(moved, output, (1, 3), border=6).item() > 1e-3
