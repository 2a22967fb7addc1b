"""The real-time upscalers: plain 3x3 convolutions, ReLU, one pixel shuffle, input residual."""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CollapsibleConv


class Upscaler(nn.Module):
    """(N, planes, H, W), 0..1 -> (N, planes, scale * H, scale * W).

    The network predicts what the repeated input lacks. An image-space residual costs one addition and
    loses less in INT8 than a feature residual (Berger et al. 2022, "QuickSRNet").
    """

    def __init__(self, *, planes: int, scale: int, channels: int, layers: int, width: int) -> None:
        super().__init__()
        self.planes = planes
        self.scale = scale
        self.head: nn.Module = CollapsibleConv(planes, channels, width=width)
        self.body = nn.ModuleList(
            CollapsibleConv(channels, channels, width=width) for _ in range(layers)
        )
        self.tail: nn.Module = CollapsibleConv(channels, planes * scale * scale, width=width)

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
        return F.pixel_shuffle(self.tail(y) + self._repeated(x), self.scale)

    def _repeated(self, x: Tensor) -> Tensor:
        """The input at each of the scale^2 sub-pixel positions of its plane; luma broadcasts."""
        return x if self.planes == 1 else x.repeat_interleave(self.scale**2, 1)

    def fold(self) -> "Upscaler":
        """A copy of plain convolutions that computes the same function."""
        plain = Upscaler(planes=self.planes, scale=self.scale, channels=1, layers=0, width=1)
        plain.head, plain.tail = _fold(self.head), _fold(self.tail)
        plain.body = nn.ModuleList(_fold(layer) for layer in self.body)
        return plain.eval()


class LumaUpscaler(Upscaler):
    """For video: luma only, chroma being resampled beside it."""

    def __init__(
        self, *, scale: int = 2, channels: int = 16, layers: int = 4, width: int = 128
    ) -> None:
        super().__init__(planes=1, scale=scale, channels=channels, layers=layers, width=width)


class RgbUpscaler(Upscaler):
    """For game frames, at x2, x3 or x4: RGB in and out."""

    def __init__(
        self, *, scale: int = 2, channels: int = 32, layers: int = 4, width: int = 128
    ) -> None:
        super().__init__(planes=3, scale=scale, channels=channels, layers=layers, width=width)


def _fold(layer: nn.Module) -> nn.Conv2d:
    if isinstance(layer, nn.Conv2d):
        return layer
    assert isinstance(layer, CollapsibleConv)
    return layer.fold()
