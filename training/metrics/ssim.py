"""Structural similarity."""

import cv2
import numpy as np
import numpy.typing as npt

from .base import Array, Metric, always


def ssim(image: npt.NDArray[np.generic], reference: npt.NDArray[np.generic], *, border: int) -> float:
    """Structural similarity of Wang et al. 2004 for a peak of 255, as the field reports it for luma.

    Gaussian window of 11x11 and sigma 1.5, K1 = 0.01, K2 = 0.03, mean over the windows that lie inside,
    after `border` pixels are cropped from every side. (H, W) each. Raises ValueError when the shapes
    differ or are smaller than a window.
    """
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {image.shape} and {reference.shape}")
    crop = (slice(border, -border or None),) * 2
    x, y = (np.ascontiguousarray(a[crop], np.float64) for a in (image, reference))
    if min(x.shape) < 11:
        raise ValueError(f"SSIM needs 11 pixels inside the border, not {x.shape}")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def mean(a: Array) -> Array:
        blurred = cv2.GaussianBlur(a, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(blurred, np.float64)[5:-5, 5:-5]

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


METRIC = Metric(
    key="{}_ssim_y",
    title="SSIM of luma (Wang et al. 2004), 1 at best",
    better="higher",
    pair=always(lambda pair: ssim(pair.luma, pair.true_luma, border=pair.border)),
)
