"""A shipped style as a new one's beginning: its plain convolutions, back in layers that can train."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, nn

from .nets.blocks import ScaledConv, UpsampleConv, bilinear_phases


@torch.no_grad()
def begin_with(net: nn.Module, path: Path) -> str:
    """Give a style network the weights of an exported model, and say which, for the card.

    `net` is changed in place and then computes what the model does. Raises FileNotFoundError or
    ValueError when the file is missing, no model, or one of another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path} to begin with")
    try:
        model = onnx.load(str(path))
    except DecodeError as error:
        raise ValueError(f"{path} is no ONNX model: {error}") from error
    weights = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in model.graph.initializer
    }
    modules = cast("Iterable[tuple[str, nn.Module]]", net.named_modules())
    blocks = [(name, part) for name, part in modules if isinstance(part, ScaledConv | UpsampleConv)]
    for name, block in blocks:
        # An upsampling block is folded to a pair, of which the convolution is the first.
        folded = f"{name}.0" if isinstance(block, UpsampleConv) else name
        weight, bias = weights.pop(f"{folded}.weight", None), weights.pop(f"{folded}.bias", None)
        if weight is None or bias is None or not _unfold(block, weight, bias):
            raise ValueError(f"{path} holds another network than the recipe asks for: {name} differs")
    left = sorted(name for name in weights if name.endswith(".weight"))
    if left or not blocks:
        raise ValueError(f"{path} holds another network than the recipe asks for: {', '.join(left)}")
    notes = {entry.key: entry.value for entry in model.metadata_props}
    trained = json.loads(notes.get("velatura", "{}")).get("training", "unknown training")
    return f"{path.name} ({trained})"


def _unfold(block: ScaledConv | UpsampleConv, weight: Tensor, bias: Tensor) -> bool:
    """The inverse of the block's `fold`; False for weights that no such block folds to."""
    if isinstance(block, UpsampleConv):
        channels_out, channels_in = block.kernel.shape[:2]
        if weight.shape != (4 * channels_out, channels_in, 3, 3):
            return False
        # Every phase's kernel is linear in the one kernel: nine numbers from thirty-six.
        phases = bilinear_phases()
        spread = torch.einsum("pkm,qln->pqmnkl", phases, phases).reshape(36, 9)
        parts = weight.reshape(channels_out, 4, channels_in, 9).permute(1, 3, 0, 2).reshape(36, -1)
        kernel = cast(Tensor, cast(Any, torch.linalg.lstsq(spread, parts)).solution)
        if not torch.allclose(spread @ kernel, parts, atol=1e-3 * float(parts.abs().max())):
            return False
        block.kernel.copy_(kernel.reshape(3, 3, channels_out, channels_in).permute(2, 3, 0, 1))
        block.bias.copy_(bias[::4])
        return True
    if weight.shape != block.kernel.shape:
        return False
    block.kernel.copy_(weight)
    block.gain.copy_(weight.square().sum((1, 2, 3)).sqrt())
    block.bias.copy_(bias)
    return True
