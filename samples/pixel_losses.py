"""Why pixel losses mislead: a picture shifted by one pixel against a blurred one.

The shift is invisible and the blur is not; MSE, PSNR and SSIM say the opposite, the VGG distance says
what the eye says. Needs VGG-16 weights and, without an argument, the data folder's photographs:

    python samples/pixel_losses.py [PICTURE] [-o FIGURE.png]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from velatura.training.data import Image, data_root, limited_luma, read_image
from velatura.training.metrics.psnr import psnr
from velatura.training.metrics.ssim import ssim
from velatura.training.metrics.vgg_distance import vgg_distance

LAYERS = ("relu2_2", "relu3_3")
"""The deeper, the less a pixel's place counts."""

SIDE = 360
BLUR_SIGMA = 1.3


def variants(picture: Image) -> dict[str, Image]:
    """The middle of a picture, the same one pixel further right, and the same blurred."""
    top, left = ((side - SIDE) // 2 for side in picture.shape[:2])
    blurred = np.asarray(cv2.GaussianBlur(picture, (0, 0), BLUR_SIGMA), np.uint8)
    return {
        "original": picture[top : top + SIDE, left : left + SIDE],
        "shifted by one pixel": picture[top : top + SIDE, left + 1 : left + 1 + SIDE],
        "blurred": blurred[top : top + SIDE, left : left + SIDE],
    }


def measures(found: dict[str, Image], root: Path) -> dict[str, dict[str, float]]:
    """MSE, PSNR and SSIM on luma, and the VGG distance, of each variant against the original."""
    distances = {layer: vgg_distance(root, layer=layer) for layer in LAYERS}
    original = found["original"]
    truth = limited_luma(original)[:, :, 0]
    rows: dict[str, dict[str, float]] = {}
    for name, image in found.items():
        if image is original:
            continue
        luma = limited_luma(image)[:, :, 0]
        rows[name] = {
            "MSE": float(np.square(luma.astype(float) - truth).mean()),
            "PSNR dB": psnr(luma, truth, border=0),
            "SSIM": ssim(luma, truth, border=0),
            **{f"VGG {layer}": distance(image, original) for layer, distance in distances.items()},
        }
    return rows


def figure(found: dict[str, Image], rows: dict[str, dict[str, float]]) -> Image:
    """The variants side by side, their figures below."""
    columns: list[Image] = []
    for name, image in found.items():
        lines = [name, *(f"{key} {value:.4g}" for key, value in rows.get(name, {}).items())]
        legend = np.full((154, SIDE, 3), 255, np.uint8)
        for number, line in enumerate(lines):
            place = (8, 24 + 24 * number)
            cv2.putText(
                legend, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (20, 20, 20), 1, cv2.LINE_AA
            )
        columns += [np.vstack([image, legend]), np.full((SIDE + 154, 8, 3), 255, np.uint8)]
    return np.hstack(columns[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path, help="at least 362 pixels on its short side")
    parser.add_argument("-o", "--out", type=Path, default=Path("pixel_losses.png"))
    arguments = parser.parse_args()
    try:
        root = data_root()
        picture = read_image(arguments.picture or root / "eval/kodak24/kodim08.png")
        if min(picture.shape[:2]) < SIDE + 2:
            raise ValueError(f"the picture is smaller than {SIDE + 2} pixels")
        found = variants(picture)
        rows = measures(found, root)
    except (OSError, ValueError) as error:
        parser.exit(3, f"pixel_losses: {error}\n")
    for name, row in rows.items():
        print(f"{name:<22}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    cv2.imwrite(str(arguments.out), np.ascontiguousarray(figure(found, rows)[:, :, ::-1]))
    print(arguments.out)


if __name__ == "__main__":
    main()
