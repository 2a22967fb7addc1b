"""Small data of the tests' own, so that everyone's run covers the same: drawn, random, made by seed."""

import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from velatura.training.degrade import bicubic_downscale
from velatura.training.synthetic import screen_crop
from velatura.training.vgg import VGG16_BLOCKS

# Nets this small gain nothing from a second thread, and wait for it where the machine is busy.
torch.set_num_threads(1)

PHOTOS = ("bsds500", "coco128", "imagenet_sample", "wikipedia_photos")
PAINTINGS = ("starry_night", "wave", "the_scream", "composition_vii", "udnie", "gauguin_arlesiennes",
             "monet_bordighera")  # fmt: skip


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with shading, texture of all sizes and sharp edges, (height, width, 3) uint8."""
    draw = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for octave in range(6):
        cells = draw.normal(size=(3 + 2**octave, 4 + 2**octave, 3))
        picture += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) / 1.6**octave
    picture = 128 + 45 * picture
    side = max(height, width)
    shapes = screen_crop(side, draw)[:height, :width].astype(np.float64)
    mask = cv2.resize(draw.normal(size=(5, 5)), (width, height), interpolation=cv2.INTER_CUBIC) > 0.3
    picture[mask] = 0.5 * picture[mask] + 0.5 * shapes[mask]
    return np.clip(picture, 0, 255).astype(np.uint8)


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[:, :, ::-1])


def random_vgg(blocks: tuple[tuple[int, ...], ...], until: int) -> dict[str, torch.Tensor]:
    """Weights of the first blocks under torchvision's names, each layer as loud as the one before."""
    draw = torch.Generator().manual_seed(7)
    state: dict[str, torch.Tensor] = {}
    number, channels = 0, 3
    for sizes in blocks[:until]:
        for size in sizes:
            weight = torch.randn(size, channels, 3, 3, generator=draw)
            state[f"features.{number}.weight"] = weight * (2 / (9 * channels)) ** 0.5
            state[f"features.{number}.bias"] = torch.randn(size, generator=draw) * 0.1
            number, channels = number + 2, size
        number += 1
    return state


def pan_video(path: Path) -> None:
    """Fifty frames of a window that moves over a still."""
    still = scene(200, 320, 90)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        for number in range(50):
            window = still[number : number + 128, 2 * number : 2 * number + 192]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(window), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as the recipes want it, with a loss network of random weights."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(PHOTOS):
        for picture in range(4):
            write(root / "photos" / name / f"{picture}.png", scene(300, 340, 10 * number + picture))
    for number, name in enumerate(PAINTINGS):
        write(root / "style" / f"{name}.jpg", scene(260, 300, 100 + number))
    for number in (1, 3, 5, 7, 8, 15, 20, 23):
        write(root / "eval/kodak24" / f"kodim{number:02d}.png", scene(256, 384, 200 + number))
    for name in ("set5", "set14"):
        for scale in (2, 4, 8):
            high = scene(128, 160, 300)
            tensor = torch.from_numpy(high).permute(2, 0, 1)[None].float() / 255
            low = bicubic_downscale(tensor, scale)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
            write(root / "eval" / name / f"x{scale}" / "hr/001.png", high)
            write(root / "eval" / name / f"x{scale}" / "lr/001.png", low)
    (root / "weights").mkdir()
    torch.save(random_vgg(VGG16_BLOCKS, 4), root / "weights/vgg16_features_torchvision.pth")
    (root / "clips").mkdir()
    pan_video(root / "clips/rabbit320.mp4")
    return root


@pytest.fixture(scope="session")
def clips(data_root: Path) -> Path:
    """Clips of our own."""
    return data_root / "clips"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The data folder: `$VELATURA_DATA`, else `../shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("VELATURA_DATA") or beside)
    if not root.is_dir():
        pytest.skip(f"no data folder at {root}: set VELATURA_DATA to run this test")
    return root
