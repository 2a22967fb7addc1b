"""What the shipped models are worth: fidelity of upscaling, INT8 against FP32, grid artefacts."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from velatura.export.verify import grid_excess, parity_db, upscaler_psnr
from velatura.runtime import open_engine
from velatura.training.data import Image, limited_luma, read_image
from velatura.training.metrics import benchmark_psnr

ROOT = Path(os.environ.get("VELATURA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

# Published Y-PSNR of bicubic (MATLAB, a = -0.5) at x2, which the bounds refer to.
PUBLISHED_BICUBIC = {"set5": 33.64, "set14": 30.22}


def measure() -> dict[str, Any]:
    """Figures for every precision of both models; raises FileNotFoundError without the data folder."""
    if not ROOT.is_dir():
        raise FileNotFoundError(f"no data folder at {ROOT}: set VELATURA_DATA")
    kodak = [read_image(path) for path in sorted((ROOT / "eval" / "kodak24").glob("*.png"))]
    luma = [limited_luma(image)[:, :, 0] for image in kodak]
    return {"upscale-2x": upscaling(luma), "starry-night": style(kodak)}


def upscaling(pictures: list[Image]) -> dict[str, Any]:
    """Y-PSNR on the standard pairs, border 2 cropped, MATLAB luma."""

    def bicubic(image: Image) -> Image:
        return np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)

    found: dict[str, Any] = {}
    for name, published in PUBLISHED_BICUBIC.items():
        folder = ROOT / "eval" / name / "x2"
        row: dict[str, Any] = {
            "bicubic_published": published,
            "bicubic_opencv": round(float(np.mean(list(benchmark_psnr(bicubic, folder, 2)))), 3),
        }
        for precision in ("fp32", "bf16", "int8"):
            with open_engine("upscale-2x", "openvino", precision=precision) as engine:
                row[precision] = round(upscaler_psnr(engine, folder), 3)
        found[name] = row
    found["parity_db"] = parities("upscale-2x", pictures)
    return found


def style(pictures: list[Image]) -> dict[str, Any]:
    """Grid energy of the output over the input's, and parity, on Kodak's photographs."""
    found: dict[str, Any] = {"parity_db": parities("starry-night", pictures)}
    for precision in ("fp32", "int8"):
        with open_engine("starry-night", "openvino", precision=precision) as engine:
            found[f"grid_energy_over_input_{precision}"] = {
                f"period_{period}": round(grid_excess(engine, pictures, period), 3)
                for period in (2, 4, 8)
            }
    return found


def parities(model: str, pictures: list[Image]) -> dict[str, float]:
    """PSNR in dB of each precision's output against FP32's."""
    found: dict[str, float] = {}
    with open_engine(model, "openvino", precision="fp32") as reference:
        for precision in ("bf16", "int8"):
            with open_engine(model, "openvino", precision=precision) as engine:
                found[precision] = round(parity_db(reference, engine, pictures), 2)
    return found
