"""3x3 convolutions of the loss network on CPUs, with a quarter of the multiplications.

Winograd's F(4x4, 3x3) as Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks") use
it: tiles of 6x6 samples are transformed, multiplied by the transformed kernels, and transformed back to
4x4 results. Direct convolutions run at the processor's peak already, so that only fewer products make
them faster: on one AVX-512 core, kernels of 256 channels and more took half of the time.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_CHANNELS = 128
"""Below, the transformations cost more than the products that they spare (at 64, a third more)."""

# Lavin and Gray's matrices for the points 0, 1, -1, 2, -2 and infinity.
_INPUT = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = torch.tensor(
    [[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
)
_OUTPUT = torch.tensor(
    [[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


class WinogradConv(nn.Module):
    """A frozen 3x3 convolution with zero padding of 1: (N, I, H, W) -> (N, O, H, W), float32.

    The gradient goes to the input alone, as a loss network needs it.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """The same function as `conv`, within float32's rounding of sums (1e-5 of the largest)."""
        super().__init__()
        weight = conv.weight.detach().double()
        # There, a kernel turned by half a turn with channels exchanged is the gradient's.
        for name, kernel in (("there", weight), ("back", weight.flip(2, 3).transpose(0, 1))):
            scaled = torch.einsum("ai,bj,ocij->abco", _KERNEL / 24, _KERNEL / 24, kernel)
            self.register_buffer(name, scaled.flatten(0, 1).float().contiguous(), persistent=False)
        assert conv.bias is not None
        self.register_buffer("bias", conv.bias.detach().clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.get_buffer(name) for name in ("there", "back", "bias"))
        return cast(Tensor, cast(Any, _Winograd).apply(x, *parts))


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return convolve(x, there).add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None, None]:
        (back,) = cast("tuple[Tensor]", ctx.saved_tensors)
        return convolve(gradients[0], back), None, None, None


def convolve(x: Tensor, kernels: Tensor) -> Tensor:
    """(N, I, H, W) with kernels (36, I, O) -> (N, O, H, W), channels last."""
    count, channels, height, width = x.shape
    rows, columns = -(-height // 4), -(-width // 4)
    around = (1, 4 * columns - width + 1, 1, 4 * rows - height + 1)
    padded = F.pad(x, around).permute(0, 2, 3, 1).contiguous()
    row, picture = padded.shape[2] * channels, padded.shape[1] * padded.shape[2] * channels
    tiles = padded.as_strided(
        (6, 6, count, rows, columns, channels),
        (row, channels, picture, 4 * row, 4 * channels, 1),
    )
    # The two transformations, along rows and along columns, as one matrix of 36 columns.
    sunk = torch.kron(_INPUT, _INPUT) @ tiles.reshape(36, -1)
    product = torch.bmm(sunk.view(36, -1, channels), kernels)
    risen = torch.kron(_OUTPUT, _OUTPUT) @ product.flatten(1)
    result = risen.view(4, 4, count, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    whole = result.reshape(count, 4 * rows, 4 * columns, -1).permute(0, 3, 1, 2)
    return whole[:, :, :height, :width]
