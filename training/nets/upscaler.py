"""The real-time upscaler for luma: plain 3x3 convolutions, ReLU, one pixel shuffle, input residual."""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CollapsibleConv


class LumaUpscaler(nn.Module):
    """(N, 1, H, W) luma, 0..1 -> (N, 1, scale * H, scale * W).

    The network predicts what the repeated input lacks. An image-space residual costs one addition and
    loses less in INT8 than a feature residual (Berger et al. 2022, "QuickSRNet").
    """

    def __init__(
        self, *, scale: int = 2, channels: int = 16, layers: int = 4, width: int = 128
    ) -> None:
        super().__init__()
        self.scale = scale
        self.head: nn.Module = CollapsibleConv(1, channels, width=width)
        self.body = nn.ModuleList(
            CollapsibleConv(channels, channels, width=width) for _ in range(layers)
        )
        self.tail: nn.Module = CollapsibleConv(channels, scale * scale, width=width)

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels: one per 3x3 convolution."""
        return len(self.body) + 2

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 1

    @property
    def min_size(self) -> int:
        """Smallest input height and width."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.head(x))
        for layer in self.body:
            y = F.relu(layer(y))
        # The single input channel broadcasts over the scale^2 sub-pixel positions.
        return F.pixel_shuffle(self.tail(y) + x, self.scale)

    def fold(self) -> "LumaUpscaler":
        """A copy of plain convolutions that computes the same function."""
        plain = LumaUpscaler(scale=self.scale, channels=1, layers=0, width=1)
        plain.head, plain.tail = _fold(self.head), _fold(self.tail)
        plain.body = nn.ModuleList(_fold(layer) for layer in self.body)
        return plain.eval()


def _fold(layer: nn.Module) -> nn.Conv2d:
    if isinstance(layer, nn.Conv2d):
        return layer
    assert isinstance(layer, CollapsibleConv)
    return layer.fold()
