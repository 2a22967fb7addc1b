"""What the temporal terms are worth: starry-night against the same network trained without them.

The control is trained and exported with

    velatura train starry-night --set stability=0 --out runs/control --time-budget 40m
    velatura export runs/control/checkpoint.pt runs/control.onnx

and found through the environment variable VELATURA_CONTROL.
"""

import os
from pathlib import Path
from typing import Any

from velatura.export.evaluate import style
from velatura.runtime import open_engine

from .quality import ROOT


def measure() -> dict[str, Any]:
    """Both models' measures and their ratios; raises FileNotFoundError without the control."""
    control = Path(os.environ.get("VELATURA_CONTROL", "runs/control.onnx"))
    if not control.is_file():
        raise FileNotFoundError(f"no control at {control}: train it, then set VELATURA_CONTROL")
    found: dict[str, Any] = {}
    for who, model in (("stable", "starry-night"), ("control", str(control))):
        with open_engine(model, "openvino", precision="fp32") as engine:
            found[who] = {"training": engine.card.training, **style(engine, ROOT)}
    measures = ("ewarp_pan", "ewarp_dis", "flicker_static", "objective_style", "objective")
    found["stable_over_control"] = {
        name: round(found["stable"][name]["model"] / found["control"][name]["model"], 3)
        for name in measures
    }
    return found
