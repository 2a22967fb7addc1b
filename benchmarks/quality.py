"""What the shipped models are worth, by `velatura evaluate`, and what INT8 and FP16 cost them."""

import os
import tempfile
from pathlib import Path
from typing import Any

import onnx
from velatura.export.evaluate import style, upscaling
from velatura.export.precision import extremes, half_precision
from velatura.export.to_onnx import save
from velatura.export.verify import open_measured, parity_db, runner, upscaler_psnr
from velatura.runtime import open_engine
from velatura.runtime.backends.graph import macs_per_pixel
from velatura.runtime.zoo import zoo_models
from velatura.training.data import Image, limited_luma, read_image
from velatura.training.describe import describe
from velatura.training.metrics.grid import PERIODS, grid_excess

ROOT = Path(os.environ.get("VELATURA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

# Published Y-PSNR of bicubic (MATLAB, a = -0.5) and of FSRCNN.
PUBLISHED = {
    "bicubic x2": {"set5": 33.64, "set14": 30.22},
    "bicubic x4": {"set5": 28.42, "set14": 26.00},
    "FSRCNN x2": {"set5": 37.00, "set14": 32.63},
}


HALF_PICTURES = 6
"""Photographs on which FP16 is measured, cut to 384x256: its graph runs node by node."""


def measure() -> dict[str, Any]:
    """Figures of every model in every precision; raises FileNotFoundError without the data folder."""
    if not ROOT.is_dir():
        raise FileNotFoundError(f"no data folder at {ROOT}: set VELATURA_DATA")
    return {"published": PUBLISHED, "models": {name: model(name) for name in zoo_models()}}


def model(name: str) -> dict[str, Any]:
    """Figures of one of the zoo's models."""
    variants = zoo_models()[name]
    kodak = [read_image(path) for path in sorted((ROOT / "eval" / "kodak24").glob("*.png"))]
    with open_engine(name, "openvino", precision="fp32") as engine:
        card = engine.card
        report = upscaling(engine, ROOT) if card.task == "upscale" else style(engine, ROOT)
    pictures = kodak
    if card.input_channels == 1:
        pictures = [limited_luma(image)[:, :, 0] for image in kodak]
    proto = onnx.load(str(variants["fp32"]))
    cost = describe(card.recipe)
    assert cost is not None, card.recipe
    row: dict[str, Any] = {
        "task": card.task,
        "title": card.title,
        "training": card.training,
        "weights": cost["parameters"],
        "macs_per_pixel": round(macs_per_pixel(proto, card)),
        "card": card.measures,
        "fp32": report,
        "fp16": half(name, variants["fp32"], pictures),
    }
    if "int8" in variants:
        row["int8"] = {"parity_db": int8_parity(name, pictures), **int8(name, kodak)}
    return row


def int8(name: str, photographs: list[Image]) -> dict[str, float]:
    """Fidelity, or grid energy over the input's, of the INT8 variant."""
    with open_engine(name, "openvino", precision="int8") as engine:
        if engine.card.task == "upscale":
            return {
                f"{data}_psnr_y_db": round(upscaler_psnr(engine, folder), 3)
                for data in ("set5", "set14")
                if (folder := ROOT / "eval" / data / f"x{engine.card.scale}").is_dir()
            }
        return {
            f"grid_{period}px": round(grid_excess(runner(engine), photographs, period), 3)
            for period in PERIODS
        }


def int8_parity(model: str, pictures: list[Image]) -> float:
    """PSNR in dB of INT8's output against FP32's, over all the pictures."""
    with (
        open_engine(model, "openvino", precision="fp32") as reference,
        open_engine(model, "openvino", precision="int8") as engine,
    ):
        return round(parity_db(reference, engine, pictures), 2)


def half(name: str, path: Path, pictures: list[Image]) -> dict[str, Any]:
    """FP16 against FP32 on photographs and on extreme pictures, each tensor rounded to half."""
    with (
        open_engine(name, "ort", precision="fp32") as reference,
        tempfile.TemporaryDirectory() as place,
    ):
        made, card, largest = half_precision(onnx.load(str(path)), reference.card)
        target = Path(place) / f"{name}.fp16.onnx"
        save(made, card, target)
        with open_measured(target, "fp16") as other:
            photographs = [picture[:256, :384].copy() for picture in pictures[:HALF_PICTURES]]
            return {
                "parity_db": round(min(99.0, parity_db(reference, other, photographs)), 2),
                "parity_db_on_extremes": {
                    kind: round(min(99.0, parity_db(reference, other, [picture])), 2)
                    for kind, picture in flat_pictures(reference.card).items()
                },
                "largest_activation_on_extremes": round(largest.value, 2),
            }


def flat_pictures(card: Any) -> dict[str, Image]:
    """The pictures of `extremes` as 8-bit frames."""
    low, high = card.value_range
    found: dict[str, Image] = {}
    for kind, batch in extremes(card).items():
        picture = batch[0] if card.layout == "nhwc" else batch[0].transpose(1, 2, 0)
        levels = ((picture - low) / (high - low) * 255).round().astype("uint8")
        found[kind] = levels[:, :, 0] if card.input_channels == 1 else levels
    return found
