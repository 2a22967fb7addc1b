"""The loss networks against an independent computation, and their refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from velatura.training.perception import Perception
from velatura.training.vgg import VGG16_BLOCKS, VGG19_BLOCKS, load_squeezenet, load_vgg16, load_vgg19

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


def test_caffe_weights_want_bgr_minus_the_mean(data_root: Path) -> None:
    path = data_root / "weights/vgg16_relu3_3.npz"
    net = load_vgg16(path)
    with np.load(path) as arrays:
        weights = {name: arrays[name] for name in arrays.files}
    mean = np.array([103.939, 116.779, 123.68])[:, None, None]
    expected = reference(weights, IMAGE[::-1] * 255.0 - mean)
    assert net.layers == tuple(expected)
    with torch.no_grad():
        compare(net(torch.from_numpy(IMAGE)[None].float(), net.layers), expected)


def test_torchvision_weights_want_normalised_rgb(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    weights: dict[str, np.ndarray] = {}
    state: dict[str, torch.Tensor] = {}
    number, channels = 0, 3
    for block, sizes in enumerate(VGG16_BLOCKS, 1):
        for index, size in enumerate(sizes, 1):
            weight = rng.normal(size=(size, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
            bias = rng.normal(size=size) * 0.1
            if block <= 2:  # the deeper ones only cost time
                weights[f"conv{block}_{index}.weight"] = weight
                weights[f"conv{block}_{index}.bias"] = bias
            state[f"features.{number}.weight"] = torch.from_numpy(weight).float()
            state[f"features.{number}.bias"] = torch.from_numpy(bias).float()
            number, channels = number + 2, size
        number += 1
    state["classifier.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "vgg16.pth")
    net = load_vgg16(tmp_path / "vgg16.pth")
    assert net.layers[-1] == "relu5_3"
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    std = np.array([0.229, 0.224, 0.225])[:, None, None]
    expected = reference(weights, (IMAGE - mean) / std)
    with torch.no_grad():
        compare(net(torch.from_numpy(IMAGE)[None].float(), tuple(expected)), expected)


def test_a_layer_that_is_not_there_is_refused(data_root: Path) -> None:
    net = load_vgg16(data_root / "weights/vgg16_relu3_3.npz")
    with pytest.raises(ValueError, match=r"no layer relu4_3.*relu3_3"):
        net(torch.zeros(1, 3, 16, 16), ["relu4_3"])


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no loss network's weights at"):
        load_vgg16(tmp_path / "none.npz")


def test_another_network_is_refused(data_root: Path) -> None:
    with pytest.raises(ValueError, match="not a VGG-16"):
        load_vgg16(data_root / "weights/squeezenet1_1_fire9.npz")


def test_squeezenet_first_layers_against_numpy(data_root: Path) -> None:
    path = data_root / "weights/squeezenet1_1_fire9.npz"
    net = load_squeezenet(path)
    with np.load(path) as arrays:
        weights = {name: arrays[name] for name in arrays.files}
    x = IMAGE[::-1] * 255.0 - np.array([104.0, 117.0, 123.0])[:, None, None]
    full = convolve(x, weights["conv1.weight"], weights["conv1.bias"], pad=0)
    first = np.maximum(full[:, ::2, ::2], 0)
    with torch.no_grad():
        found = net(torch.from_numpy(IMAGE)[None].float(), ["conv1", "fire9"])
    compare(found, {"conv1": first})
    assert found["fire9"].shape[1] == 512


def test_only_what_is_asked_for_is_computed(data_root: Path) -> None:
    both = Perception(
        ["relu1_2", "relu2_2", "fire2"],
        vgg=load_vgg16(data_root / "weights/vgg16_relu3_3.npz"),
        squeezenet=load_squeezenet(data_root / "weights/squeezenet1_1_fire9.npz"),
    )
    picture = torch.from_numpy(IMAGE)[None].float()
    with torch.no_grad():
        found = both(picture)
        some = both(picture, ["relu2_2"])
    assert set(found) == {"relu1_2", "relu2_2", "fire2"}
    assert set(some) == {"relu2_2"}
    torch.testing.assert_close(some["relu2_2"], found["relu2_2"])


def test_loss_networks_never_learn(data_root: Path) -> None:
    for net in (
        load_vgg16(data_root / "weights/vgg16_relu3_3.npz"),
        load_squeezenet(data_root / "weights/squeezenet1_1_fire9.npz"),
    ):
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())


def torchvision_state(blocks: tuple[tuple[int, ...], ...], until: int) -> dict[str, torch.Tensor]:
    """Random weights of the first blocks, as torchvision names them."""
    state: dict[str, torch.Tensor] = {}
    number, channels = 0, 3
    for sizes in blocks[:until]:
        for size in sizes:
            state[f"features.{number}.weight"] = torch.randn(size, channels, 3, 3) * 0.1
            state[f"features.{number}.bias"] = torch.randn(size) * 0.1
            number, channels = number + 2, size
        number += 1
    return state


def test_vgg19_has_four_convolutions_in_its_third_block(tmp_path: Path) -> None:
    torch.save(torchvision_state(VGG19_BLOCKS, 3), tmp_path / "vgg19.pth")
    net = load_vgg19(tmp_path / "vgg19.pth")
    assert net.layers[-4:] == ("relu3_1", "relu3_2", "relu3_3", "relu3_4")
    with torch.no_grad():
        assert net(torch.rand(1, 3, 32, 32), ["relu3_4"])["relu3_4"].shape == (1, 256, 8, 8)


def test_torchvisions_squeezenet_is_read(tmp_path: Path, data_root: Path) -> None:
    """The Caffe weights under torchvision's names give the same activations of a prepared input."""
    with np.load(data_root / "weights/squeezenet1_1_fire9.npz") as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    places = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
    state = {}
    for name, value in weights.items():
        layer, _, rest = name.partition(".")
        number = 0 if layer == "conv1" else places[int(layer[4:])]
        state[f"features.{number}.{rest.replace('squeeze1x1', 'squeeze')}"] = value
    torch.save(state, tmp_path / "squeezenet.pth")
    net, caffe = (
        load_squeezenet(tmp_path / "squeezenet.pth"),
        load_squeezenet(data_root / "weights/squeezenet1_1_fire9.npz"),
    )
    y = torch.randn(1, 3, 64, 64) * 50
    with torch.no_grad():
        a, b = (n.activations(y, ["fire6", "fire9"]) for n in (net, caffe))
    for layer, found in a.items():
        torch.testing.assert_close(found, b[layer])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vgg16.pth").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="not a weight file that can be read"):
        load_vgg16(tmp_path / "vgg16.pth")
