"""The loss networks against an independent computation, and their refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from velatura.training.perception import Perception
from velatura.training.vgg import VGG16_BLOCKS, VGG19_BLOCKS, load_vgg16, load_vgg19
from velatura.training.winograd import LEAST_CHANNELS, WinogradConv

from .conftest import random_vgg

IMAGE = np.random.default_rng(5).random((3, 20, 24))
"""RGB, 0..1."""


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, pad: int = 1) -> np.ndarray:
    """A convolution as sums over shifted pictures, float64."""
    height, width = x.shape[1:]
    size = weight.shape[2]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((weight.shape[0], height + 2 * pad - size + 1, width + 2 * pad - size + 1))
    for row in range(size):
        for column in range(size):
            window = padded[:, row : row + out.shape[1], column : column + out.shape[2]]
            out += np.einsum("oi,ihw->ohw", weight[:, :, row, column].astype(np.float64), window)
    return out + bias.astype(np.float64)[:, None, None]


def pool(x: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in x.shape[1:])
    x = x[:, :height, :width]
    return np.maximum.reduce([x[:, i::2, j::2] for i in range(2) for j in range(2)])


def reference(weights: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for block, sizes in enumerate(VGG16_BLOCKS, 1):
        for index in range(1, len(sizes) + 1):
            name = f"conv{block}_{index}"
            if f"{name}.weight" not in weights:
                return found
            x = np.maximum(convolve(x, weights[f"{name}.weight"], weights[f"{name}.bias"]), 0)
            found[f"relu{block}_{index}"] = x
        x = pool(x)
    return found


def compare(found: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    for layer, array in expected.items():
        error = np.abs(found[layer][0].numpy() - array).max()
        assert error < 1e-4 * max(np.abs(array).max(), 1), layer


def caffe_names(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same weights as the Caffe conversions name them."""
    names = [
        f"conv{b}_{k}" for b, sizes in enumerate(VGG16_BLOCKS, 1) for k in range(1, len(sizes) + 1)
    ]
    arrays = list(state.values())
    pairs = zip(names, arrays[::2], arrays[1::2], strict=False)
    return {f"{n}.{p}": t.numpy() for n, w, b in pairs for p, t in (("weight", w), ("bias", b))}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Two blocks of a random VGG-16, under torchvision's names."""
    return random_vgg(VGG16_BLOCKS, 2)


def test_caffe_weights_want_bgr_minus_the_mean(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    named = caffe_names(weights)
    np.savez(tmp_path / "caffe.npz", **named)
    net = load_vgg16(tmp_path / "caffe.npz")
    mean = np.array([103.939, 116.779, 123.68])[:, None, None]
    expected = reference(named, IMAGE[::-1] * 255.0 - mean)
    assert net.layers == tuple(expected)
    with torch.no_grad():
        compare(net(torch.from_numpy(IMAGE)[None].float(), net.layers), expected)


def test_torchvision_weights_want_normalised_rgb(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({**weights, "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    net = load_vgg16(tmp_path / "vgg16.pth")
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    std = np.array([0.229, 0.224, 0.225])[:, None, None]
    expected = reference(caffe_names(weights), (IMAGE - mean) / std)
    assert net.layers == tuple(expected)
    with torch.no_grad():
        compare(net(torch.from_numpy(IMAGE)[None].float(), net.layers), expected)


def test_the_real_weights_hold_all_that_the_paper_uses(real_data: Path) -> None:
    """Named edges and corners: a bright disc makes relu4_3 louder than an even picture does."""
    net = load_vgg16(real_data / "weights/vgg16_features_torchvision.pth")
    assert net.layers[-1] == "relu5_3"
    even = torch.full((1, 3, 64, 64), 0.4)
    disc = even.clone()
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc[:, :, (rows - 32) ** 2 + (columns - 32) ** 2 < 200] = 0.9
    with torch.no_grad():
        loud, quiet = (net(x, ["relu4_3"])["relu4_3"].square().mean() for x in (disc, even))
    assert loud > 2 * quiet


def test_a_layer_that_is_not_there_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "vgg16.pth")
    net = load_vgg16(tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"no layer relu4_3.*relu2_2"):
        net(torch.zeros(1, 3, 16, 16), ["relu4_3"])


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no loss network's weights at"):
        load_vgg16(tmp_path / "none.npz")


def test_another_network_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{"fc.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match="not a VGG-16"):
        load_vgg16(tmp_path / "other.npz")


def test_only_what_is_asked_for_is_computed(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "vgg16.pth")
    features = Perception(["relu1_2", "relu2_2"], load_vgg16(tmp_path / "vgg16.pth"))
    picture = torch.from_numpy(IMAGE)[None].float()
    with torch.no_grad():
        found = features(picture)
        some = features(picture, ["relu1_2"])
    assert set(found) == {"relu1_2", "relu2_2"}
    assert set(some) == {"relu1_2"}
    torch.testing.assert_close(some["relu1_2"], found["relu1_2"])


def test_loss_networks_never_learn(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "vgg16.pth")
    net = load_vgg16(tmp_path / "vgg16.pth")
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("size", [(16, 24), (5, 3), (9, 14)])
def test_winograds_convolution_is_the_convolution(size: tuple[int, int]) -> None:
    """Forwards and backwards, also where 4 divides neither side."""
    torch.manual_seed(3)
    conv = torch.nn.Conv2d(8, 12, 3, padding=1)
    x = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    results = []
    for layer in (conv, WinogradConv(conv)):
        given = x.clone().requires_grad_()
        output = layer(given)
        (gradient,) = torch.autograd.grad(output.square().sum(), given)
        results.append((output, gradient))
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_hastened_network_is_the_same(tmp_path: Path) -> None:
    torch.save(random_vgg(VGG16_BLOCKS, 3), tmp_path / "vgg16.pth")
    plain, quick = (load_vgg16(tmp_path / "vgg16.pth") for _ in range(2))
    quick.hasten()
    wide = [type(conv) for conv in quick.convs.values()]
    assert wide.count(WinogradConv) == 4, f"those of at least {LEAST_CHANNELS} channels"
    x = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        found, expected = (net(x, ["relu1_2", "relu3_3"]) for net in (quick, plain))
    for layer, activation in expected.items():
        torch.testing.assert_close(found[layer], activation, rtol=1e-3, atol=1e-4)


def test_vgg19_has_four_convolutions_in_its_third_block(tmp_path: Path) -> None:
    torch.save(random_vgg(VGG19_BLOCKS, 3), tmp_path / "vgg19.pth")
    net = load_vgg19(tmp_path / "vgg19.pth")
    assert net.layers[-4:] == ("relu3_1", "relu3_2", "relu3_3", "relu3_4")
    with torch.no_grad():
        assert net(torch.rand(1, 3, 32, 32), ["relu3_4"])["relu3_4"].shape == (1, 256, 8, 8)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vgg16.pth").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="not a weight file that can be read"):
        load_vgg16(tmp_path / "vgg16.pth")
