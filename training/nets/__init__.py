"""The networks, and the one list that a recipe's `net.kind` is looked up in."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn

from .johnson import JohnsonStyle, JohnsonUpscaler, Srcnn
from .style import FastStyle
from .upscaler import LumaUpscaler, RgbUpscaler

__all__ = [
    "FastStyle",
    "JohnsonStyle",
    "JohnsonUpscaler",
    "LumaUpscaler",
    "Net",
    "RgbUpscaler",
    "Srcnn",
    "build_net",
]


class Net(Protocol):
    """What a network gives besides `torch.nn.Module`'s own methods."""

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels."""
        ...

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        ...

    @property
    def min_size(self) -> int:
        """Smallest input height and width."""
        ...

    def fold(self) -> nn.Module:
        """A plain copy for inference that computes what `eval()` computes."""
        ...

    def __call__(self, x: Tensor) -> Tensor: ...


NETS: dict[str, type[nn.Module]] = {
    "fast-style": FastStyle,
    "johnson-style": JohnsonStyle,
    "johnson-upscaler": JohnsonUpscaler,
    "luma-upscaler": LumaUpscaler,
    "rgb-upscaler": RgbUpscaler,
    "srcnn": Srcnn,
}


def build_net(kind: str, options: Mapping[str, Any]) -> nn.Module:
    """The network of a recipe, freshly initialised.

    Raises ValueError when the kind is unknown or does not take one of the options.
    """
    if kind not in NETS:
        raise ValueError(f"unknown network {kind!r}; there are: {', '.join(sorted(NETS))}")
    try:
        return cast(Any, NETS[kind])(**options)
    except TypeError as error:
        raise ValueError(f"network {kind!r}: {error}") from error
