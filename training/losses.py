"""The losses of Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer".

All take float tensors (N, C, H, W) and return a float32 scalar.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def pixel_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over all elements."""
    return (output.float() - target.float()).abs().mean()


def pixel_l2(output: Tensor, target: Tensor) -> Tensor:
    """Squared Euclidean distance divided by C*H*W, mean over the batch (Johnson, section 3.2)."""
    return (output.float() - target.float()).square().mean()


def feature_reconstruction(
    output: Mapping[str, Tensor], target: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """Sum over layers of `weight * ||output - target||^2 / (C*H*W)`, mean over the batch (equation 2).

    Each layer is also divided by the target's own mean square, so that a weight means the same at
    every depth; the paper's loss is this one times that energy.
    """
    terms: list[Tensor] = []
    for layer, weight in weights.items():
        goal = target[layer].float()
        energy = goal.square().mean().clamp_min(1e-6)
        terms.append(weight * (output[layer].float() - goal).square().mean() / energy)
    return torch.stack(terms).sum()


def gram_matrix(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, C) float32: inner products of channels over C*H*W (equation 3).

    The product runs in the features' own precision (BF16 accumulates in float32), pixels by channels,
    which is a view of channels-last memory: copies into the other order took half of a training step.
    """
    _, channels, height, width = features.shape
    flat = features.permute(0, 2, 3, 1).flatten(1, 2)
    return (flat.transpose(1, 2) @ flat).float() / (channels * height * width)


def gram_style(
    output: Mapping[str, Tensor], target: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """Sum over layers of `weight * ||G(output) - target||_F^2`, mean over the batch (equation 4).

    `target` holds Gram matrices, (1, C, C). Each layer is divided by its target's squared norm.
    """
    terms: list[Tensor] = []
    for layer, weight in weights.items():
        goal = target[layer]
        difference = gram_matrix(output[layer]) - goal
        distance = difference.square().sum((1, 2)).mean()
        terms.append(weight * distance / goal.square().sum().clamp_min(1e-12))
    return torch.stack(terms).sum()


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbours, vertical plus horizontal (section 3.2; beta = 2)."""
    image = image.float()
    rows = (image[:, :, 1:] - image[:, :, :-1]).square().mean()
    columns = (image[:, :, :, 1:] - image[:, :, :, :-1]).square().mean()
    return rows + columns


def pixel_grid(image: Tensor, period: int) -> Tensor:
    """How much the picture depends on the pixel's place in a grid: variance of the phases' means.

    A picture split into `period` x `period` cells has `period`^2 phases; in a photograph their means
    are alike, in the output of a strided network with artefacts they are not.
    """
    batch, channels, height, width = image.shape
    rows, columns = height // period, width // period
    cells = image.float()[:, :, : rows * period, : columns * period]
    phases = cells.reshape(batch, channels, rows, period, columns, period).mean((2, 4))
    return (phases - phases.mean((2, 3), keepdim=True)).square().mean()


def stability(shifted_output: Tensor, output: Tensor, shift: tuple[int, int], border: int) -> Tensor:
    """Mean squared difference between f(shift(x) + noise) and shift(f(x)), `border` pixels left out.

    `shift` is (rows, columns), by which the input was rolled. A network that passes through strides is
    bound to the pixel lattice only by its artefacts: what moves with the lattice and not with the
    picture is penalised, and so is what follows noise. Both flicker in a video.
    """
    moved = output.roll(shift, (2, 3))
    difference = shifted_output.float() - moved.float()
    return difference[:, :, border:-border, border:-border].square().mean()
