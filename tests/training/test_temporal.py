"""The losses over time, against NumPy and on motion that is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.training import temporal

RNG = np.random.default_rng(8)


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.random(shape)).float()


def test_stability_is_zero_for_a_network_that_moves_with_the_picture() -> None:
    image = tensor(1, 3, 24, 24)
    output = F.avg_pool2d(image, 3, 1, 1)
    moved = F.avg_pool2d(image[:, :, 2:18, 3:19], 3, 1, 1)
    assert temporal.stability(moved, output, (2, 3), border=2).item() == pytest.approx(0, abs=1e-12)
    assert temporal.stability(moved, output, (1, 3), border=2).item() > 1e-3


def test_frame_difference() -> None:
    pictures = [tensor(2, 3, 5, 6) for _ in range(4)]
    o, p, x, y = (picture.double().numpy() for picture in pictures)
    expected = np.mean(((o - p) - (x - y)) ** 2)
    assert temporal.frame_difference(*pictures).item() == pytest.approx(expected, rel=1e-5)


def test_feature_difference() -> None:
    sets = [{"a": tensor(2, 3, 5, 6), "b": tensor(2, 4, 3, 3)} for _ in range(4)]
    weights = {"a": 2.0, "b": 0.5}
    expected = 0.0
    for layer, weight in weights.items():
        o, p, x, y = (found[layer].double().numpy() for found in sets)
        expected += weight * np.abs((o - p) - (x - y)).mean() / np.abs(x).mean()
    assert temporal.feature_difference(*sets, weights).item() == pytest.approx(expected, rel=1e-5)


def test_warp_samples_between_pixels() -> None:
    image = tensor(1, 1, 6, 8)
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 0], flow[:, 1] = 1.5, -1.0
    found = temporal.warp(image, flow)[0, 0].numpy()
    source = image[0, 0].numpy()
    for row in range(1, 6):
        for column in range(6):
            expected = (source[row - 1, column + 1] + source[row - 1, column + 2]) / 2
            assert found[row, column] == pytest.approx(expected, abs=1e-5)


def test_flow_consistency_by_hand() -> None:
    output, other = tensor(1, 3, 6, 8), tensor(1, 3, 6, 8)
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 0] = 2.0
    mask = temporal.inside(flow)
    assert mask[0, 0].numpy().tolist() == [[1.0] * 6 + [0.0] * 2] * 6
    o, p = output.numpy(), other.numpy()
    expected = np.mean((o[..., :6] - p[..., 2:]) ** 2)
    assert temporal.flow_consistency(output, other, flow, mask).item() == pytest.approx(
        expected, rel=1e-5
    )


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_synthetic_motion_and_its_way_back_cancel(seed: int) -> None:
    """Warping by the one, then by the other, gives the picture again, and the loss sees no error."""
    draw = torch.Generator().manual_seed(seed)
    flow, back = temporal.random_motion(2, (64, 80), draw)
    rows = torch.linspace(0, 3, 64).sin().view(1, 1, -1, 1) + torch.linspace(0, 2, 80).cos()
    image = rows.expand(2, 3, 64, 80)
    mask = temporal.inside(flow, 8)
    assert temporal.flow_consistency(image, temporal.warp(image, back), flow, mask).item() < 1e-5
    assert mask.mean() > 0.3
    assert flow.abs().amax() < 6 + 0.03 * 40
