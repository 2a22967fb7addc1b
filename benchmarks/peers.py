"""`upscale-2x` beside FSRCNN, FSRCNN-small and ESPCN, as OpenCV's users take them.

The peers' frozen TensorFlow graphs are run by OpenVINO, in FP32, under `velatura evaluate`'s protocol.
"""

from pathlib import Path
from typing import Any

import numpy as np
from velatura.export.verify import upscaler_psnr
from velatura.runtime import open_engine
from velatura.runtime.backends import openvino
from velatura.runtime.backends.graph import macs_per_pixel
from velatura.training.data import Image
from velatura.training.metrics.pairs import benchmark_psnr

from .quality import ROOT

PEERS = ("FSRCNN_x2.pb", "FSRCNN-small_x2.pb", "ESPCN_x2.pb")
SETS = ("set5", "set14")


def measure() -> dict[str, Any]:
    """Y-PSNR and multiply-adds per input pixel; raises FileNotFoundError without the peers' files."""
    folder = ROOT / "peers"
    found: dict[str, Any] = {}
    for name in PEERS:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}")
        found[name] = peer(folder / name)
    with open_engine("upscale-2x", "openvino", precision="fp32") as engine:
        row: dict[str, Any] = {
            f"{data}_psnr_y_db": round(upscaler_psnr(engine, ROOT / "eval" / data / "x2"), 3)
            for data in SETS
        }
        model: Any = engine
        row["macs_per_pixel"] = round(macs_per_pixel(model.model.proto, engine.card))
    found["upscale-2x"] = row
    return found


def peer(path: Path) -> dict[str, Any]:
    """One frozen graph: NHWC luma, 0..1, full range, in; twice the size out."""
    core = openvino.core()
    model = core.read_model(str(path))

    def upscale(luma: Image) -> Image:
        height, width = luma.shape
        model.reshape([1, height, width, 1])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        full = (luma[None, :, :, None].astype(np.float32) - 16.0) / 219.0
        (output,) = compiled([full]).values()
        limited = np.asarray(output).squeeze() * 219.0 + 16.0
        return np.clip(np.round(limited), 0, 255).astype(np.uint8)

    row: dict[str, Any] = {
        f"{data}_psnr_y_db": round(
            float(np.mean(list(benchmark_psnr(upscale, ROOT / "eval" / data / "x2", 2)))), 3
        )
        for data in SETS
    }
    row["macs_per_pixel"] = round(multiply_adds(model))
    return row


def multiply_adds(model: Any) -> float:
    """Per input pixel: a convolution's kernel at every output, a transposed one's at every input."""
    side = 64
    model.reshape([1, side, side, 1])
    total = 0.0
    for op in model.get_ops():
        kind = op.get_type_name()
        if kind == "Convolution":
            total += np.prod(op.input(1).get_shape()) * np.prod(op.output(0).get_shape()[2:])
        elif kind == "ConvolutionBackpropData":
            total += np.prod(op.input(1).get_shape()) * np.prod(op.input(0).get_shape()[2:])
    return float(total) / side**2
