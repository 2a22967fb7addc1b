"""FLIP, the difference that a viewer sees who flips between two pictures."""

from typing import Any

import numpy as np

from ..data import Image
from .base import Metric, always


def flip(output: Image, reference: Image) -> float:
    """Mean FLIP of two RGB pictures (Andersson et al. 2020), by NVIDIA's `flip-evaluator`; 0 is equal.

    Raises ValueError when that package is missing.
    """
    try:
        import flip_evaluator
    except ModuleNotFoundError as error:
        raise ValueError("FLIP needs the package flip-evaluator: pip install it") from error
    evaluator: Any = flip_evaluator
    pair = [image.astype(np.float32) / 255.0 for image in (reference, output)]
    return float(evaluator.evaluate(*pair, "LDR", applyMagma=False)[1])


METRIC = Metric(
    key="{}_flip",
    title="FLIP (Andersson et al. 2020), 0 for equal pictures",
    better="lower",
    pair=always(lambda pair: flip(pair.output, pair.truth)),
)
