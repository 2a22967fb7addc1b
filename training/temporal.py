"""Losses that keep a video stable: over noise, over small shifts, over frames, and along true motion.

Pictures are (N, C, H, W) in 0..1. A flow is (N, 2, H, W) in pixels, (x, y) in that order: sample (x, y)
of this frame is found at (x, y) + flow of the other.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .device import mean_of_processes


def stability(moved: Tensor, output: Tensor, place: tuple[int, int], border: int) -> Tensor:
    """Mean squared difference between f(part of x + noise) and that part of f(x), less `border` pixels.

    `moved` is the network's output for the input from row and column `place` on, (N, C, h, w). A
    network that passes through strides is bound to the pixel lattice only by its artefacts: what moves
    with the lattice and not with the picture is penalised, and so is what follows noise. Both flicker
    in a video.
    """
    row, column = place
    height, width = moved.shape[2:]
    same = output[:, :, row : row + height, column : column + width].float()
    difference = moved.float() - same
    return difference[:, :, border:-border, border:-border].square().mean()


def frame_difference(
    output: Tensor, output_before: Tensor, frame: Tensor, frame_before: Tensor
) -> Tensor:
    """Mean squared difference of the outputs' change and the frames' change; no flow is needed.

    The pixel term P-FDB of Wang et al. 2021 ("Consistent Video Style Transfer via Frame Differences",
    arXiv 2102.05822): ||(o_t - o_{t-1}) - (x_t - x_{t-1})||^2 over its elements.
    """
    change = output.float() - output_before.float()
    return (change - (frame.float() - frame_before.float())).square().mean()


def feature_difference(
    output: Mapping[str, Tensor],
    output_before: Mapping[str, Tensor],
    frame: Mapping[str, Tensor],
    frame_before: Mapping[str, Tensor],
    weights: Mapping[str, float],
) -> Tensor:
    """`frame_difference` on the loss network's activations, as mean absolute value (their C-FDB).

    Sum over layers of `weight * |d phi(o) - d phi(x)| / mean |phi(x)|`, so that a weight means the same
    at every depth.
    """
    terms: list[Tensor] = []
    for layer, weight in weights.items():
        change = output[layer].float() - output_before[layer].float()
        wanted = frame[layer].float() - frame_before[layer].float()
        energy = mean_of_processes(frame[layer].float().abs().mean()).clamp_min(1e-6)
        terms.append(weight * (change - wanted).abs().mean() / energy)
    return torch.stack(terms).sum()


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """`image` sampled bilinearly at each pixel plus `flow`; edges are repeated. The shape stays."""
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device, dtype=torch.float32)
    columns = torch.arange(width, device=image.device, dtype=torch.float32)
    x = columns[None, None] + flow[:, 0]
    y = rows[None, :, None] + flow[:, 1]
    # grid_sample counts from -1 at the left edge of the first pixel to 1 at the right of the last.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], 3)
    return F.grid_sample(
        image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def inside(flow: Tensor, border: int = 0) -> Tensor:
    """(N, 1, H, W), 1 where the flow leads to a place inside the other frame, `border` pixels in."""
    height, width = flow.shape[2:]
    rows = torch.arange(height, device=flow.device)[None, :, None]
    columns = torch.arange(width, device=flow.device)[None, None]
    x, y = columns + flow[:, 0], rows + flow[:, 1]
    here = (
        (columns >= border) & (columns < width - border) & (rows >= border) & (rows < height - border)
    )
    there = (x >= border) & (x <= width - 1 - border) & (y >= border) & (y <= height - 1 - border)
    return (here & there)[:, None].float()


def flow_consistency(output: Tensor, output_other: Tensor, flow: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask of ||o_t - warp(o_other, flow)||^2, divided by the channels.

    The temporal loss of Ruder et al. 2016 ("Artistic Style Transfer for Videos", equation 7), here with
    true flow: synthetic motion, or a renderer's motion vectors. `mask` is (N, 1, H, W), 0 where the
    other frame does not show the same thing.
    """
    squared = (output.float() - warp(output_other, flow)).square().mean(1, keepdim=True)
    return (squared * mask).sum() / mean_of_processes(mask.sum()).clamp_min(1.0)


def random_motion(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    pan: float = 6.0,
    zoom: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """A synthetic pan and zoom per picture: its flow and the flow back, each (N, 2, H, W).

    Pans up to `pan` pixels in both directions; zooms about the centre by up to the part `zoom`. A point
    at p from the centre is found at (1 + z) p + d in the other picture, which is inverted exactly.
    """
    height, width = size
    draw = torch.rand(count, 3, generator=generator) * 2 - 1
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    place = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]
    shift = (draw[:, :2] * pan)[:, :, None, None]
    scale = 1.0 + (draw[:, 2] * zoom)[:, None, None, None]
    return scale * place + shift - place, (place - shift) / scale - place
