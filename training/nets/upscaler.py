"""The real-time upscalers: plain 3x3 convolutions, ReLU, a linear skip, one pixel shuffle."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CollapsibleConv


class Upscaler(nn.Module):
    """(N, planes, H, W), 0..1 -> (N, planes, scale * H, scale * W).

    The network predicts what a linear upsampling of the input lacks; that upsampling is learned, too,
    as one 3x3 convolution per plane. An image-space residual loses less in INT8 than a feature
    residual (Berger et al. 2022, "QuickSRNet").

    Fewer places with more channels (a pixel unshuffle by 2 first) run at up to twice the speed for the
    same multiply-adds, but are worth less: 23,040 of them had 36.5 dB on Set5 after 3,000 steps, where
    9,972 without it had 36.7.
    """

    def __init__(
        self, *, planes: int, scale: int, channels: int, layers: int, width: int, smooth: bool
    ) -> None:
        """`smooth` passes the prediction through `grid_filter`, for training with a feature loss."""
        super().__init__()
        self.planes = planes
        self.scale = scale
        given = planes * scale**2
        self.head: nn.Module = CollapsibleConv(planes, channels, width=width, identity=False)
        self.body: nn.Module = nn.ModuleList(
            CollapsibleConv(channels, channels, width=width) for _ in range(layers)
        )
        # Nearly nothing at first: a random picture on top of the skip is learned away by closing ReLUs,
        # for good. With it, 10 channels had 36.4 dB on Set5 after 4,000 steps, without 35.8.
        self.tail: nn.Module = CollapsibleConv(channels, given, width=width, gain=0.02, identity=False)
        # At first, the input repeated.
        self.skip = nn.Conv2d(planes, given, 3, padding=1, groups=planes, bias=False)
        nn.init.zeros_(self.skip.weight)
        nn.init.ones_(self.skip.weight[:, :, 1, 1])
        self.smooth = smooth
        kernel = grid_filter(scale).repeat(planes, 1, 1, 1) if smooth else None
        self.register_buffer("filter", kernel, persistent=False)

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels: one per 3x3 convolution."""
        return len(self.layers) + 1 + self.smooth

    @property
    def layers(self) -> list[nn.Module]:
        """The convolutions that a ReLU follows."""
        assert isinstance(self.body, nn.ModuleList)
        return [self.head, *self.body]

    @property
    def quantised_layers(self) -> list[nn.Module]:
        """The layers that an INT8 export quantises first: not what makes the picture or reads it."""
        return [*self.layers[1:], self.tail]

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 1

    @property
    def min_size(self) -> int:
        """Smallest input height and width."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            y = F.relu(layer(y))
        y = self.tail(y)
        if self.smooth:
            kernel = self.get_buffer("filter").to(y.dtype)
            y = F.conv2d(y, kernel, padding=1, groups=self.planes)
        return F.pixel_shuffle(y + self._upsampled(x), self.scale)

    def _upsampled(self, x: Tensor) -> Tensor:
        """(N, planes, H, W) -> (N, planes * scale^2, H, W), the sub-pixels of each plane."""
        if self._folded:
            return self.skip(x)
        weight = self.skip_weight()
        if not torch.is_autocast_enabled(x.device.type):
            return F.conv2d(x, weight, padding=1, groups=self.planes)
        # BF16 would round the picture to its eight bits, where a level is what the loss looks at.
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.float(), weight, padding=1, groups=self.planes)

    @property
    def _folded(self) -> bool:
        return isinstance(self.tail, nn.Conv2d)

    def skip_weight(self) -> Tensor:
        """The skip's kernels, (planes * scale^2, 1, 3, 3), float32.

        In a smooth upscaler those of one plane have one sum: else even areas would show the sub-pixels,
        and the filtered prediction could not mend it.
        """
        weight = self.skip.weight
        if not self.smooth or self._folded:
            return weight
        sums = weight.sum((1, 2, 3)).view(self.planes, -1)
        excess = (sums - sums.mean(1, keepdim=True)).flatten() / 9
        return weight - excess[:, None, None, None]

    def fold(self) -> "Upscaler":
        """A copy of plain convolutions that computes the same function."""
        plain = Upscaler(
            planes=self.planes, scale=self.scale, channels=1, layers=0, width=1, smooth=self.smooth
        )
        plain.head, *body = (_fold(layer) for layer in self.layers)
        plain.body, plain.tail = nn.ModuleList(body), _fold(self.tail)
        with torch.no_grad():
            plain.skip.weight.copy_(self.skip_weight())
        return plain.requires_grad_(False).eval()


class LumaUpscaler(Upscaler):
    """For video: luma only, chroma being resampled beside it."""

    def __init__(
        self,
        *,
        scale: int = 2,
        channels: int = 16,
        layers: int = 4,
        width: int = 128,
        smooth: bool = False,
    ) -> None:
        super().__init__(
            planes=1, scale=scale, channels=channels, layers=layers, width=width, smooth=smooth
        )


class RgbUpscaler(Upscaler):
    """For game frames, at x2, x3 or x4: RGB in and out."""

    def __init__(
        self,
        *,
        scale: int = 2,
        channels: int = 32,
        layers: int = 4,
        width: int = 128,
        smooth: bool = False,
    ) -> None:
        super().__init__(
            planes=3, scale=scale, channels=channels, layers=layers, width=width, smooth=smooth
        )


def grid_filter(scale: int) -> Tensor:
    """(scale^2, scale^2, 3, 3): a filter of the enlarged picture, as a convolution of its phases.

    The filter is a triangle of 2 * scale - 1 samples a side, which is blind to every pattern that
    repeats with the grid of the input's pixels: what a feature loss makes of a free pixel shuffle is a
    weave of that period, over all that is textured, and losses against it cost most of what the
    feature loss gains. What lies between the grid's harmonics the network can amplify.
    """
    phases = torch.arange(scale)
    blocks = torch.arange(3) - 1
    # From the sample `q` of the block `t` to the sample `p` of this one, along one side.
    distance = scale * blocks[None, None] + phases[None, :, None] - phases[:, None, None]
    side = (scale - distance.abs()).clamp_min(0).float() / scale**2
    kernel = torch.einsum("pqt,rsu->prqstu", side, side)
    return kernel.reshape(scale**2, scale**2, 3, 3)


def _fold(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, CollapsibleConv)
    return layer.fold()
