"""The measures of `velatura evaluate`, one module each, and the table of them."""

from . import border, flip, grid, halo, light, lpips, psnr, ssim, stability, vgg_distance, vmaf
from .base import Metric, Pair, Style

__all__ = ["METRICS", "Metric", "Pair", "Style"]

METRICS: tuple[Metric, ...] = (
    psnr.METRIC,
    ssim.METRIC,
    vgg_distance.METRIC,
    flip.METRIC,
    *lpips.METRICS,
    vmaf.METRIC,
    light.METRIC,
    halo.METRIC,
    border.METRIC,
    *grid.METRICS,
    *stability.METRICS,
)
"""In the order of the reports. `velatura evaluate`, its help and the documents are made from it."""
