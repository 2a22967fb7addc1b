"""Fake quantisation: a network trains with the 8 bits that its INT8 export will leave it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

RARE = {"upscale": 0.0, "style": 5e-5}
"""Part of a layer's inputs at either end that its range leaves out, by task, as INT8 is calibrated."""

FADE = 0.01
"""Part by which a range shrinks per batch towards that of the batch."""


class FakeQuantiser(nn.Module):
    """Rounds a convolution's input and kernel to 8 bits, in float; the gradient ignores the rounding.

    The grids are those of ONNX Runtime's static quantisation: uint8 with one scale and zero point for
    the input, int8 from -127 to 127 with a scale per output channel for the kernel. The range follows
    the inputs while training (Jacob et al. 2018, "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", section 3), but as calibration will measure it: it
    grows to the extremes at once and fades slowly. What lies outside is clipped and gets no gradient.
    """

    def __init__(self, rare: float = 0.0) -> None:
        """`rare` is the part of the inputs, 0..0.5, that the range leaves out at either end."""
        super().__init__()
        self.rare = rare
        # How far the range goes below and above zero, which padding needs to lie on the grid.
        self.register_buffer("reach", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> the same, of at most 256 values."""
        if self.training:
            self._observe(x.detach())
        return self.rounded(x)

    def rounded(self, x: Tensor) -> Tensor:
        """`x` on the grid of the present range."""
        reach = self.get_buffer("reach")
        scale = (reach.sum() / 255).clamp_min(torch.finfo(torch.float32).eps)
        return torch.fake_quantize_per_tensor_affine(x, scale, (reach[0] / scale).round().int(), 0, 255)

    @staticmethod
    def kernel(weight: Tensor) -> Tensor:
        """(O, I, K, K) -> the same, of at most 255 values per output channel."""
        scale = weight.detach().abs().amax((1, 2, 3)) / 127
        scale = scale.clamp_min(torch.finfo(torch.float32).eps)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        if self.rare:
            values, count = x.flatten(), 1 + round(self.rare * x.numel())
            low, high = (values.topk(count, largest=top).values[-1] for top in (False, True))
        else:
            low, high = x.aminmax()
        found = torch.stack([-low, high]).clamp_min(0)
        if dist.is_initialized():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        reach = self.get_buffer("reach")
        reach.copy_(torch.maximum(found, reach.lerp(found, FADE)))


def fake_quantise(net: nn.Module, task: str) -> None:
    """Give each layer that INT8 will quantise its `FakeQuantiser`, in place.

    Raises ValueError for a network that is not made of layers which fold to plain convolutions.
    """
    layers: list[nn.Module] | None = getattr(net, "quantised_layers", None)
    if layers is None:
        raise ValueError(
            f"quantisation_aware needs a network of layers that fold; {type(net).__name__} has none: "
            "leave it out, or take fast-style, luma-upscaler or rgb-upscaler"
        )
    device = next(net.parameters()).device
    for layer in layers:
        layer.quantiser = FakeQuantiser(RARE[task]).to(device)


def without_quantisers(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a network less its quantisers', which is that of the network in float."""
    return {name: value for name, value in state.items() if ".quantiser." not in name}
