"""A contact sheet of the zoo: photographs and screens in every style, a detail through every upscaler.

python samples/contact_sheet.py PHOTOGRAPH... [--before FOLDER] [-o SHEET.jpg]

Beside the photographs stand a game, a night and an interface, drawn by seed. With --before, the styles
of another folder of models, such as an earlier zoo, stand below those of the same name.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from velatura.runtime import open_engine
from velatura.runtime.zoo import zoo_models
from velatura.training.degrade import bicubic_downscale
from velatura.training.synthetic import interface, night, sprites_on_black

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


def screens() -> list[Image]:
    """A game, a night and an interface, as the training draws them, of seeds that it does not use."""
    draw = np.random.default_rng(2**32 + 1)
    return [np.ascontiguousarray(kind(384, draw)) for kind in (sprites_on_black, night, interface)]


def styles(pictures: list[Image], before: Path | None) -> list[Image]:
    """The pictures, and below them what each style makes of them, as rows."""
    rows = [[labelled(picture, "original") for picture in pictures]]
    for name, files in zoo_models().items():
        older = before / f"{name}.onnx" if before else None
        models = [(files["fp32"], name), *([(older, f"{name}, before")] if older else [])]
        for path, text in models:
            if not path.is_file():
                continue
            with open_engine(str(path), precision="fp32") as engine:
                if engine.card.task == "style":
                    rows.append([labelled(np.array(engine.run(p)), text) for p in pictures])
    return [np.hstack(row) for row in rows]


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
    parser.add_argument("photographs", type=Path, nargs="+", metavar="PHOTOGRAPH")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="models to stand below ours")
    parser.add_argument("-o", "--out", type=Path, default=Path("contact_sheet.jpg"))
    arguments = parser.parse_args()
    if arguments.before and not arguments.before.is_dir():
        parser.exit(3, f"contact_sheet: no folder {arguments.before}\n")
    photos: list[Image] = []
    for path in arguments.photographs:
        photo = cv2.imread(str(path))
        if photo is None or min(photo.shape[:2]) < 2 * DETAIL:
            parser.exit(3, f"contact_sheet: {path} is no picture of {2 * DETAIL} pixels\n")
        photos.append(np.ascontiguousarray(photo[:, :, ::-1]))
    rows = styles([*photos, *screens()], arguments.before)
    pages = [*rows, sheet(upscaled(photos[0]), 4)]
    width = max(page.shape[1] for page in pages)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pages]
    cv2.imwrite(str(arguments.out), np.vstack(padded)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
    print(arguments.out)


if __name__ == "__main__":
    main()
