"""A contact sheet of the zoo: one photograph in every style, and one detail through every upscaler.

python samples/contact_sheet.py PHOTOGRAPH [-o SHEET.jpg]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from velatura.runtime import open_engine
from velatura.runtime.zoo import zoo_models
from velatura.training.degrade import bicubic_downscale

HEIGHT = 300
DETAIL = 96
Image = np.ndarray


def labelled(image: Image, text: str) -> Image:
    """The picture at the sheet's height with its name below."""
    width = round(image.shape[1] * HEIGHT / image.shape[0])
    way = cv2.INTER_AREA if image.shape[0] > HEIGHT else cv2.INTER_NEAREST
    picture = cv2.resize(image, (width, HEIGHT), interpolation=way)
    legend = np.full((28, width, 3), 255, np.uint8)
    cv2.putText(legend, text, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return np.vstack([picture, legend])


def styles(photo: Image) -> list[Image]:
    """The photograph and what each style makes of it."""
    found = [labelled(photo, "photograph")]
    for name in zoo_models():
        with open_engine(name, precision="fp32") as engine:
            if engine.card.task == "style":
                found.append(labelled(np.array(engine.run(photo)), name))
    return found


def upscaled(photo: Image) -> list[Image]:
    """A detail, reduced by each scale, and what bicubic and each upscaler make of it."""
    top, left = photo.shape[0] // 2 - DETAIL, photo.shape[1] // 2 - DETAIL
    detail = photo[top : top + 2 * DETAIL, left : left + 2 * DETAIL]
    found: list[Image] = [labelled(detail, "detail")]
    models = [name for name in zoo_models() if name.startswith("upscale")]
    for scale in (2, 4):
        # Bicubic with antialiasing, the field's reduction, and not INTER_AREA: what aliases in the
        # small picture shows in every enlargement.
        high = torch.from_numpy(detail.copy()).permute(2, 0, 1)[None] / 255.0
        low = bicubic_downscale(high, scale)[0].permute(1, 2, 0).clamp(0, 1) * 255.0
        small = low.round().byte().numpy()
        large = cv2.resize(small, (2 * DETAIL, 2 * DETAIL), interpolation=cv2.INTER_CUBIC)
        found.append(labelled(large, f"bicubic {scale}x"))
        planes = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)
        limited = np.round(planes[:, :, 0] * (219 / 255) + 16).astype(np.uint8)
        wide = cv2.cvtColor(large, cv2.COLOR_RGB2YCrCb)
        for name in models:
            with open_engine(name, precision="fp32") as engine:
                if engine.card.scale == scale:
                    luma = (np.array(engine.run(limited)).astype(float) - 16) * (255 / 219)
                    picture = wide.copy()
                    picture[:, :, 0] = np.clip(np.round(luma), 0, 255)
                    found.append(labelled(cv2.cvtColor(picture, cv2.COLOR_YCrCb2RGB), name))
    return found


def sheet(cells: list[Image], columns: int) -> Image:
    """The cells in rows, on white."""
    width = max(cell.shape[1] for cell in cells) + 8
    rows: list[Image] = []
    for start in range(0, len(cells), columns):
        row = [np.full((HEIGHT + 36, width, 3), 255, np.uint8) for _ in range(columns)]
        for place, cell in zip(row, cells[start : start + columns], strict=False):
            place[: cell.shape[0], : cell.shape[1]] = cell
        rows.append(np.hstack(row))
    return np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photograph", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("contact_sheet.jpg"))
    arguments = parser.parse_args()
    photo = cv2.imread(str(arguments.photograph))
    if photo is None or min(photo.shape[:2]) < 2 * DETAIL:
        parser.exit(3, f"contact_sheet: {arguments.photograph} is no picture of {2 * DETAIL} pixels\n")
    rgb = np.ascontiguousarray(photo[:, :, ::-1])
    pages = [sheet(styles(rgb), 3), sheet(upscaled(rgb), 4)]
    width = max(page.shape[1] for page in pages)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pages]
    cv2.imwrite(str(arguments.out), np.vstack(padded)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
    print(arguments.out)


if __name__ == "__main__":
    main()
