"""LPIPS against the same formula in NumPy, and that it orders pictures as people do."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from velatura.training.data import read_image
from velatura.training.metrics.lpips import HEADS, Kind, Lpips, load_lpips
from velatura.training.vgg import TORCHVISION, load_vgg16

from .test_vgg import convolve

CHANNELS: dict[Kind, tuple[int, ...]] = {
    "vgg": (64, 128, 256, 512, 512),
    "alex": (64, 192, 384, 256, 256),
}


def write_alexnet(path: Path) -> dict[str, np.ndarray]:
    """Random weights of AlexNet's shapes, with heads."""
    draw = np.random.default_rng(4)
    weights: dict[str, np.ndarray] = {}
    before = 3
    for number, (channels, size) in enumerate(
        zip(CHANNELS["alex"], (11, 5, 3, 3, 3), strict=True), start=1
    ):
        scale = (2 / (size**2 * before)) ** 0.5
        weights[f"conv{number}.weight"] = draw.normal(0, scale, (channels, before, size, size))
        weights[f"conv{number}.bias"] = draw.normal(0, 0.1, channels)
        weights[f"lin{number - 1}.weight"] = draw.random(channels)
        before = channels
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array.astype(np.float32) for name, array in weights.items()})
    return weights


def maximum(x: np.ndarray) -> np.ndarray:
    """Pooling of 3x3 with stride 2, without padding."""
    rows, columns = ((side - 3) // 2 + 1 for side in x.shape[1:])
    return np.maximum.reduce(
        [x[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)]
    )


def distance(a: list[np.ndarray], b: list[np.ndarray], heads: list[np.ndarray]) -> float:
    total = 0.0
    for x, y, head in zip(a, b, heads, strict=True):
        x, y = (f / (np.sqrt((f**2).sum(0)) + 1e-10) for f in (x, y))
        total += np.einsum("chw,c->hw", (x - y) ** 2, head).mean()
    return total


def test_alexnets_distance_is_that_of_its_formula(tmp_path: Path) -> None:
    weights = write_alexnet(tmp_path / HEADS["alex"])
    mean, std = (np.array(v)[:, None, None] for v in (TORCHVISION.mean, TORCHVISION.std))

    def features(picture: np.ndarray) -> list[np.ndarray]:
        x, found = (picture - mean) / std, []
        for number, (stride, pad) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), start=1):
            x = maximum(x) if number in (2, 3) else x
            full = convolve(x, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"], pad=pad)
            x = np.maximum(full[:, ::stride, ::stride], 0)
            found.append(x)
        return found

    a, b = np.random.default_rng(6).random((2, 3, 70, 66))
    expected = distance(features(a), features(b), [weights[f"lin{n}.weight"] for n in range(5)])
    measure = load_lpips("alex", tmp_path)
    pair = [torch.from_numpy(x)[None].float() for x in (a, b)]
    assert float(measure(*pair)) == pytest.approx(expected, rel=1e-4)
    assert float(measure(pair[0], pair[0])) == 0.0


def test_a_distance_scales_pixels_and_weighs_channels(data_root: Path) -> None:
    """Each pixel's activations scaled to length 1, differences weighted by channel, as the formula."""
    network = load_vgg16(data_root / "weights/vgg16_features_torchvision.pth")
    layers = ("relu1_2", "relu2_2")
    draw = np.random.default_rng(3)
    heads = [draw.random(channels) for channels in (64, 128)]
    a, b = (torch.rand(1, 3, 24, 24) for _ in range(2))

    def features(picture: torch.Tensor) -> list[torch.Tensor]:
        found = network(picture, layers)
        return [found[layer] for layer in layers]

    measure = Lpips(features, [torch.from_numpy(head).float() for head in heads])
    with torch.no_grad():
        arrays = [[f[0].double().numpy() for f in features(x)] for x in (a, b)]
    assert float(measure(a, b)) == pytest.approx(distance(*arrays, heads), rel=1e-4)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no LPIPS weights at"):
        load_lpips("alex", tmp_path)
    (tmp_path / "weights").mkdir()
    np.savez(tmp_path / HEADS["vgg"], other=np.zeros(3))
    with pytest.raises(ValueError, match=r"lacks lin0\.weight"):
        load_lpips("vgg", tmp_path)


@pytest.mark.parametrize("kind", ["vgg", "alex"])
def test_the_published_weights_mind_a_blur_more_than_a_brighter_picture(
    real_data: Path, kind: Kind
) -> None:
    """Of two damages with the same error in pixels, people mind the blur."""
    image = read_image(real_data / "eval/kodak24/kodim08.png")[:192, :192]
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5))
    error = float(np.sqrt(np.square(blurred.astype(float) - image).mean()))
    brighter = np.clip(image.astype(float) + error, 0, 255).astype(np.uint8)
    original, soft, light = (
        torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in (image, blurred, brighter)
    )
    measure = load_lpips(kind, real_data)
    far, near = float(measure(soft, original)), float(measure(light, original))
    assert 0 < near < 0.5 * far < 1
