"""How a clip's pictures agree with each other from frame to frame."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from ..data import Image
from .base import Flow, Metric


def gradient_energy(frame: npt.NDArray[np.generic]) -> float:
    """Mean squared difference of neighbours, vertical plus horizontal: what a blur takes away.

    (H, W) or (H, W, C), in the frame's own unit, squared.
    """
    pixels = frame.astype(np.float64)
    return float(np.square(np.diff(pixels, axis=0)).mean() + np.square(np.diff(pixels, axis=1)).mean())


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


def _mean_gradient_energy(frames: Sequence[Image], flows: Sequence[tuple[Flow, Flow]]) -> float:
    del flows
    return float(np.mean([gradient_energy(frame) for frame in frames]))


METRICS = (
    Metric(
        key="ewarp_{}",
        title="E_warp (Lai et al. 2018): squared difference of frames along the flow, of 0..1",
        better="lower",
        moving=warp_error,
    ),
    Metric(
        key="ewarp_{}_gradient_energy",
        title="squared difference of neighbours, in levels of 255: what a blur takes away",
        better="higher",
        moving=_mean_gradient_energy,
    ),
    Metric(
        key="flicker_{}",
        title="squared change from frame to frame, of 0..1",
        better="lower",
        static=flicker,
    ),
)
