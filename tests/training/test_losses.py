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


def test_the_gradients_written_by_hand_are_those_of_autograd() -> None:
    array, goal = torch.from_numpy(features(2, 4, 5, 6)), torch.from_numpy(features(2, 4, 5, 6))

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        distance = losses.feature_reconstruction({"r": x}, {"r": goal}, {"r": 3.0})
        return distance + losses.gram_matrix(x)[:, 0, 1].sum() + losses.gram_matrix(x).square().sum()

    def plain(x: torch.Tensor) -> torch.Tensor:
        gram = torch.einsum("nchw,ndhw->ncd", x, x) / x[0].numel()
        distance = 3.0 * (x - goal).square().mean() / goal.square().mean()
        return distance + gram[:, 0, 1].sum() + gram.square().sum()

    for memory in (torch.contiguous_format, torch.channels_last):
        x = array.clone(memory_format=memory).requires_grad_()
        (found,) = torch.autograd.grad(by_hand(x), x)
        (expected,) = torch.autograd.grad(plain(x), x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


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


def test_charbonnier() -> None:
    output, target = features(2, 3, 4, 5), features(2, 3, 4, 5)
    expected = np.sqrt((output - target) ** 2 + 0.1**2).mean()
    assert losses.charbonnier(tensor(output), tensor(target), 0.1).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_sobel_edge_is_the_difference_of_gradients() -> None:
    output, target = features(2, 3, 7, 8), features(2, 3, 7, 8)

    def gradients(x: np.ndarray) -> np.ndarray:
        rows = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
        columns = x[:, :, :, :-2] + 2 * x[:, :, :, 1:-1] + x[:, :, :, 2:]
        return np.stack([rows[..., 2:] - rows[..., :-2], columns[:, :, 2:] - columns[:, :, :-2]]) / 8

    expected = np.abs(gradients(output) - gradients(target)).mean()
    assert losses.sobel_edge(tensor(output), tensor(target)).item() == pytest.approx(expected, rel=1e-5)
    ramp = torch.arange(9.0).expand(1, 1, 9, 9) * 0.5
    # Sideways the slope is 0.5 a pixel, downwards 0.
    assert losses.sobel_edge(ramp, torch.zeros(1, 1, 9, 9)).item() == pytest.approx(0.25)


def test_a_matched_histogram_is_the_references() -> None:
    image, reference = features(2, 3, 8, 8), features(2, 3, 16, 16) * 3 + 1
    found = losses.match_histogram(tensor(image), tensor(reference)).numpy()
    for number in range(2):
        for channel in range(3):
            values = np.sort(reference[number, channel].ravel())
            places = (np.arange(64) + 0.5) / 64 * 256 - 0.5
            expected = np.interp(places, np.arange(256), values)
            np.testing.assert_allclose(np.sort(found[number, channel].ravel()), expected, atol=1e-5)
            order = np.argsort(image[number, channel].ravel())
            assert (np.diff(found[number, channel].ravel()[order]) >= 0).all(), "the order stays"
    same = tensor(image)
    torch.testing.assert_close(losses.match_histogram(same, same), same, rtol=0, atol=1e-6)


def test_the_root_of_the_gram_loss_is_taken_by_picture_and_layer() -> None:
    array, goal = features(2, 4, 5, 6), gram(features(1, 4, 9, 9))
    each = np.sum((gram(array) - goal) ** 2, axis=(1, 2)) / np.sum(goal**2)
    given = {"a": tensor(array)}, {"a": tensor(goal)}, {"a": 3.0}
    assert losses.gram_style(*given, root=True).item() == pytest.approx(
        3 * np.sqrt(each).mean(), rel=1e-5
    )


def test_light_is_the_luma_of_blocks() -> None:
    output, photo = RNG.random((2, 3, 32, 48)), RNG.random((2, 3, 32, 48))
    weights = np.array([0.299, 0.587, 0.114])
    blocks = [
        np.einsum("c,nchw->nhw", weights, p).reshape(2, 2, 16, 3, 16).mean((2, 4))
        for p in (output, photo)
    ]
    expected = np.mean((blocks[0] - blocks[1]) ** 2)
    assert losses.light(tensor(output), tensor(photo)).item() == pytest.approx(expected, rel=1e-4)
    # Strokes within a block and any change of chroma cost nothing.
    gray = torch.full((1, 3, 32, 32), 0.5)
    stripes = gray + 0.2 * torch.tensor([1.0, -1.0]).repeat(16)
    assert losses.light(stripes, gray).item() == pytest.approx(0.0, abs=1e-8)
    tinted = gray + torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1)
    assert losses.light(tinted, gray).item() == pytest.approx(0.0, abs=1e-8)


def two_tone(dark: list[float], bright: list[float]) -> torch.Tensor:
    picture = torch.empty(1, 3, 16, 16)
    picture[:, :, :8] = torch.tensor(dark).view(3, 1, 1)
    picture[:, :, 8:] = torch.tensor(bright).view(3, 1, 1)
    return picture


def test_the_palette_asks_for_the_paintings_chroma_at_each_luma() -> None:
    blue_and_yellow = two_tone([0.1, 0.15, 0.5], [0.9, 0.85, 0.3])
    target, _ = losses.palette_of(blue_and_yellow, least=0.005)
    assert losses.palette(blue_and_yellow, target).item() < 1e-6
    exchanged = two_tone([0.25, 0.2, 0.0], [0.7, 0.8, 1.0])
    gray = losses.luma(blue_and_yellow).expand(-1, 3, -1, -1)
    assert losses.palette(exchanged, target) > losses.palette(gray, target) > 0.02


def test_black_and_white_stay_without_colour_where_the_painting_has_neither() -> None:
    target, mass = losses.palette_of(two_tone([0.2, 0.25, 0.6], [0.6, 0.55, 0.2]), least=0.005)
    assert (mass[0, [0, -1]] == 0).all()
    assert target[0, [0, -1]].abs().max() < 1e-6
    for level in (0.0, 1.0):
        assert losses.palette(torch.full((1, 3, 16, 16), level), target) < 1e-3
