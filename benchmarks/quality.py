"""What the shipped models are worth, in the measures of `velatura evaluate`, and INT8 against FP32."""

import os
from pathlib import Path
from typing import Any

from velatura.export.evaluate import style, upscaling
from velatura.export.verify import grid_excess, parity_db, upscaler_psnr
from velatura.runtime import open_engine
from velatura.runtime.zoo import zoo_models
from velatura.training.data import Image, limited_luma, read_image

ROOT = Path(os.environ.get("VELATURA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

# Published Y-PSNR of bicubic (MATLAB, a = -0.5) and of FSRCNN.
PUBLISHED = {
    "bicubic x2": {"set5": 33.64, "set14": 30.22},
    "bicubic x4": {"set5": 28.42, "set14": 26.00},
    "FSRCNN x2": {"set5": 37.00, "set14": 32.63},
}


def measure() -> dict[str, Any]:
    """Figures of every model in every precision; raises FileNotFoundError without the data folder."""
    if not ROOT.is_dir():
        raise FileNotFoundError(f"no data folder at {ROOT}: set VELATURA_DATA")
    kodak = [read_image(path) for path in sorted((ROOT / "eval" / "kodak24").glob("*.png"))]
    luma = [limited_luma(image)[:, :, 0] for image in kodak]
    found: dict[str, Any] = {"published": PUBLISHED}
    for name, variants in zoo_models().items():
        with open_engine(name, "openvino", precision="fp32") as engine:
            upscales = engine.card.task == "upscale"
            report = upscaling(engine, ROOT) if upscales else style(engine, ROOT)
        row: dict[str, Any] = {"fp32": report, "parity_db": parities(name, luma if upscales else kodak)}
        if "int8" in variants:
            row["int8"] = int8(name, upscales, kodak)
        found[name] = row
    return found


def int8(name: str, upscales: bool, kodak: list[Image]) -> dict[str, float]:
    """Fidelity, or grid energy over the input's, of the INT8 variant."""
    with open_engine(name, "openvino", precision="int8") as engine:
        if upscales:
            return {
                f"{data}_psnr_y_db": round(upscaler_psnr(engine, folder), 3)
                for data in ("set5", "set14")
                if (folder := ROOT / "eval" / data / f"x{engine.card.scale}").is_dir()
            }
        return {f"grid_{period}px": round(grid_excess(engine, kodak, period), 3) for period in (2, 4)}


def parities(model: str, pictures: list[Image]) -> dict[str, float]:
    """PSNR in dB of each precision's output against FP32's."""
    found: dict[str, float] = {}
    with open_engine(model, "openvino", precision="fp32") as reference:
        for precision in ("bf16", *(["int8"] if "int8" in zoo_models()[model] else [])):
            with open_engine(model, "openvino", precision=precision) as engine:
                found[precision] = round(parity_db(reference, engine, pictures), 2)
    return found
