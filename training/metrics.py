"""Measures of fidelity, of grid artefacts, and of a clip's stability, in float64 NumPy."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .data import Image, limited_luma, read_image

Array = npt.NDArray[np.float64]


def matlab_luma(rgb: npt.NDArray[np.uint8]) -> Array:
    """BT.601 limited-range luma as MATLAB's `rgb2ycbcr`, (H, W, 3) uint8 -> (H, W), 16..235, unrounded.

    This is the Y that published super-resolution figures are measured on.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return rgb.astype(np.float64) @ weights + 16.0


def psnr(image: npt.NDArray[np.generic], reference: npt.NDArray[np.generic], *, border: int) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, `border` pixels cropped from every side.

    Raises ValueError when the shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {image.shape} and {reference.shape}")
    crop = (slice(border, -border or None),) * 2
    difference = image[crop].astype(np.float64) - reference[crop].astype(np.float64)
    error = float(np.mean(np.square(difference)))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


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


def benchmark_pairs(
    upscale: Callable[[Image], Image], folder: Path, *, luma: bool
) -> Iterator[tuple[Array, Array]]:
    """Luma of the upscaled picture and of the truth, for each standard pair of a folder, in order.

    The pairs are `lr/NNN.png`, `hr/NNN.png`. `upscale` takes BT.601 limited-range luma (H, W) uint8
    where `luma`, else RGB (H, W, 3) uint8, and gives the same, larger. The truth
    is MATLAB luma, unrounded.
    Raises FileNotFoundError when the folder holds no pairs.
    """
    paths = sorted((folder / "lr").glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no lr/*.png")
    for path in paths:
        low = read_image(path)
        output = upscale(limited_luma(low)[:, :, 0] if luma else low)
        pixels = output.astype(np.float64) if luma else matlab_luma(output)
        truth = matlab_luma(read_image(folder / "hr" / path.name))
        height, width = (min(a, b) for a, b in zip(pixels.shape, truth.shape, strict=True))
        yield pixels[:height, :width], truth[:height, :width]


def benchmark_psnr(
    upscale: Callable[[Image], Image], folder: Path, scale: int, *, luma: bool = True
) -> Iterator[float]:
    """Y-PSNR in dB of each of `benchmark_pairs`, with `scale` pixels of border cropped."""
    for output, truth in benchmark_pairs(upscale, folder, luma=luma):
        yield psnr(output, truth, border=scale)


def grid_energy(image: npt.NDArray[np.generic], period: int) -> float:
    """How far a picture's spectrum stands out at the frequencies of a grid of `period` pixels.

    `image` is (H, W). The measure is the energy at all harmonics (i/period, j/period), other than
    zero, as a multiple of the mean energy of their surroundings in the spectrum (a ring up to 8 bins
    away): 1 means no grid at all, a sub-pixel convolution's grid gives 100 and more.
    """
    height, width = (size // period * period for size in image.shape)
    pixels = image[:height, :width].astype(np.float64)
    # A window keeps the frame's own edges from leaking along the axes, where the harmonics lie.
    window = np.outer(np.hanning(height), np.hanning(width))
    spectrum = np.abs(np.fft.fft2((pixels - pixels.mean()) * window)) ** 2
    peak = around = 0.0
    for row in range(period):
        for column in range(period):
            if row == column == 0:
                continue
            centre = (row * height // period, column * width // period)
            near = _patch(spectrum, centre, 1)
            ring = _patch(spectrum, centre, 8)
            peak += near.mean()
            around += (ring.sum() - near.sum()) / (ring.size - near.size)
    return float(peak / max(around, 1e-12))


def _patch(spectrum: Array, centre: tuple[int, int], radius: int) -> Array:
    rows = np.arange(centre[0] - radius, centre[0] + radius + 1) % spectrum.shape[0]
    columns = np.arange(centre[1] - radius, centre[1] + radius + 1) % spectrum.shape[1]
    return spectrum[np.ix_(rows, columns)]


def gradient_energy(frame: npt.NDArray[np.generic]) -> float:
    """Mean squared difference of neighbours, vertical plus horizontal: what a blur takes away.

    (H, W) or (H, W, C), in the frame's own unit, squared.
    """
    pixels = frame.astype(np.float64)
    return float(np.square(np.diff(pixels, axis=0)).mean() + np.square(np.diff(pixels, axis=1)).mean())


Flow = npt.NDArray[np.float32]
"""(H, W, 2) in pixels, (x, y): the sample of this frame is found at its place plus flow in the next."""


def warp_error(frames: Sequence[Image], flows: Sequence[tuple[Flow, Flow]]) -> float:
    """E_warp of Lai et al. 2018 ("Learning Blind Video Temporal Consistency"), pictures scaled to 0..1.

    Frame t + 1 is warped to t; `sum(M * difference^2) / sum(M)`, mean over channels and frame pairs.
    `flows[t]` is the flow from t to t + 1 and back. M is 0 where `occluded` says so. Raises ValueError
    unless there is one pair of flows for each pair of frames.
    """
    if len(frames) < 2 or len(flows) != len(frames) - 1:
        raise ValueError(
            f"{len(frames)} frames need {len(frames) - 1} pairs of flows, not {len(flows)}"
        )
    errors: list[float] = []
    for before, after, (forward, backward) in zip(frames, frames[1:], flows, strict=False):
        a, b = (f.astype(np.float32) / 255.0 for f in (before, after))
        mask = ~occluded(forward, backward)
        squared = np.square(a - warp_frame(b, forward)).astype(np.float64)
        squared = squared.mean(2) if squared.ndim == 3 else squared
        errors.append(float((squared * mask).sum() / max(float(mask.sum()), 1.0)))
    return float(np.mean(errors))


def warp_frame(frame: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """`frame` sampled bilinearly at each pixel plus `flow`; edges are repeated."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    place = (columns + flow[:, :, 0], rows + flow[:, :, 1])
    warped = cv2.remap(frame, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def occluded(forward: Flow, backward: Flow) -> npt.NDArray[np.bool_]:
    """(H, W): where the next frame does not show the same thing (Sundaram et al. 2010, as in Ruder).

    With w the flow, w_b the flow back at its end: |w + w_b|^2 > 0.01 (|w|^2 + |w_b|^2) + 0.5, or at a
    motion boundary, |grad w|^2 > 0.01 |w|^2 + 0.002; and whatever leads out of the frame.
    """
    back = warp_frame(backward, forward).reshape(backward.shape)
    length = np.square(forward).sum(2) + np.square(back).sum(2)
    hidden = np.square(forward + back).sum(2) > 0.01 * length + 0.5
    gradients = [np.square(np.gradient(forward[:, :, k], axis=axis)) for k in (0, 1) for axis in (0, 1)]
    boundary = sum(gradients) > 0.01 * np.square(forward).sum(2) + 0.002
    height, width = forward.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    x, y = columns + forward[:, :, 0], rows + forward[:, :, 1]
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    return hidden | boundary | outside


def dis_flows(frames: Sequence[Image]) -> list[tuple[Flow, Flow]]:
    """OpenCV's DIS flow between successive (H, W, 3) RGB frames, there and back."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [np.asarray(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), np.uint8) for f in frames]
    none = np.zeros((*gray[0].shape, 2), np.float32)
    return [
        (
            np.array(estimator.calc(a, b, none.copy()), np.float32),
            np.array(estimator.calc(b, a, none.copy()), np.float32),
        )
        for a, b in pairwise(gray)
    ]


def flicker(frames: Sequence[Image]) -> float:
    """Mean squared change from frame to frame, pictures scaled to 0..1, as of a static scene."""
    changes = [np.square((a.astype(np.float64) - b) / 255.0).mean() for a, b in pairwise(frames)]
    return float(np.mean(changes))


def pan(
    image: Image, *, count: int, velocity: tuple[float, float], size: tuple[int, int]
) -> tuple[list[Image], list[tuple[Flow, Flow]]]:
    """A synthetic pan over a still, with its true flow: frames (height, width, 3) uint8, and flows.

    The window moves by `velocity` (x, y) pixels a frame; samples between pixels are bicubic. Raises
    ValueError when the still is too small for the way.
    """
    height, width = size
    way = [abs(v) * (count - 1) for v in velocity]
    if image.shape[1] < width + way[0] + 2 or image.shape[0] < height + way[1] + 2:
        raise ValueError(f"a still of {image.shape[:2]} is too small for a pan of {size} by {way}")
    start = [1.0 + (w if v < 0 else 0.0) for v, w in zip(velocity, way, strict=True)]
    frames: list[Image] = []
    for number in range(count):
        x, y = (s + v * number for s, v in zip(start, velocity, strict=True))
        matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        frames.append(np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=flags), np.uint8))
    flow = np.broadcast_to(np.array(velocity, np.float32), (height, width, 2))
    return frames, [(-flow, np.array(flow))] * (count - 1)


Style = Callable[[Image], Image]
"""A model that restyles an RGB picture, (H, W, 3) uint8 -> the same."""


def light_correlation(output: Image, photo: Image, *, side: int = 16) -> float:
    """Correlation of the mean luma of `side` x `side` blocks, output against photograph; 1 at best.

    Whether the scene's light and dark are still where they were. (H, W, 3) uint8 RGB each.
    """
    a, b = (_block_luma(image, side).ravel() for image in (output, photo))
    return float(np.corrcoef(a, b)[0, 1])


def _block_luma(image: Image, side: int) -> Array:
    height, width = (size // side * side for size in image.shape[:2])
    luma = matlab_luma(image)[:height, :width]
    return luma.reshape(height // side, side, width // side, side).mean((1, 3))


def sprites_picture(
    size: tuple[int, int] = (360, 640), *, count: int = 16, seed: int = 1
) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Black with square sprites of 4 to 10 pixels, and the pixels 8 to 40 away from the nearest."""
    draw = np.random.default_rng(seed)
    picture = np.zeros((*size, 3), np.uint8)
    for _ in range(count):
        side = int(draw.integers(4, 11))
        top, left = (int(draw.integers(0, length - side)) for length in size)
        picture[top : top + side, left : left + side] = draw.integers(96, 256, 3)
    dark = (picture.max(2) == 0).astype(np.uint8)
    away = np.asarray(cv2.distanceTransform(dark, cv2.DIST_L2, 5), np.float32)
    return picture, (away >= 8) & (away <= 40)


def halo(style: Style) -> float:
    """How far bright dots on black shine into it, in levels of 255.

    Mean absolute difference of the outputs for `sprites_picture` and for black, over the pixels 8 to 40
    away from the nearest sprite.
    """
    picture, near = sprites_picture()
    lit, dark = (style(image).astype(np.float64) for image in (picture, np.zeros_like(picture)))
    return float(np.abs(lit - dark)[near].mean())


def border_difference(
    style: Style, photo: Image, *, width: int = 16, cut: int = 64
) -> tuple[float, float]:
    """What a model does differently at a picture's border, in levels of 255, and elsewhere.

    The photograph less `cut` pixels on every side is restyled alone and as part of the whole: mean
    absolute difference over its outermost `width` pixels, and over the rest. `cut` is a multiple of
    every model's stride, so that only the border differs. Raises ValueError for a photograph that is
    too small.
    """
    if min(photo.shape[:2]) <= 2 * (cut + width):
        raise ValueError(f"a photograph of {photo.shape[:2]} is too small to cut {cut} pixels away")
    inner = (slice(cut, -cut),) * 2
    alone = style(np.ascontiguousarray(photo[inner])).astype(np.float64)
    difference = np.abs(alone - style(photo)[inner])
    rest = np.zeros(difference.shape[:2], np.bool_)
    rest[width:-width, width:-width] = True
    return float(difference[~rest].mean()), float(difference[rest].mean())
