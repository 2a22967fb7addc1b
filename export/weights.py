"""Weights of others: read without running any code in them, built into their network by spandrel, and
exported."""

import re
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..runtime.backends import open_engine
from ..runtime.card import ModelCard
from ..runtime.errors import BackendUnavailableError, ModelError
from ..training.data import Image
from .to_onnx import graph_of, save
from .verify import network_parity_db

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
"""Files of weights, the safest first: safetensors cannot hold code, the others are never run."""

FIXED_SIDE = 256
"""Height and width, at least, of the graph of a network that PyTorch exports for one size only."""

BACKENDS = ("ort", "openvino")
"""What a graph is compared with PyTorch on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of a file, by name."""

    tensors: dict[str, Any]
    stated: dict[str, str] = field(default_factory=dict[str, str])
    """What the file says of itself in words; empty but for safetensors."""


class Network(torch.nn.Module):
    """A network of spandrel's with its weights: (1, C, H, W) float32 in 0..1 to (1, C, sH, sW)."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.architecture = str(descriptor.architecture.name)
        self.tags = tuple(str(tag) for tag in descriptor.tags)
        self.scale = int(descriptor.scale)
        self.channels = int(descriptor.input_channels)
        needs = descriptor.size_requirements
        self.minimum, self.multiple = int(needs.minimum), int(needs.multiple_of)
        self.square = bool(needs.square)
        self.model = descriptor.model
        # The descriptor's own call pads and clips in Python, which no graph can hold.
        self.call: Any = getattr(descriptor, "_call_fn")  # noqa: B009
        self.float().eval().requires_grad_(False)
        for module in self.modules():
            # SPAN folds its convolutions into one at every call, which writes weights: once will do.
            fold = getattr(module, "update_params", None)
            if callable(fold):
                fold()
                setattr(module, "update_params", _nothing)  # noqa: B010

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The picture that the network makes of a picture."""
        return self.call(self.model, image)

    def side(self, least: int) -> int:
        """The smallest side of at least so many pixels that the network takes."""
        least = max(least, self.minimum)
        return least + -least % self.multiple


def _nothing() -> None:
    return None


def read_weights(path: Path) -> Weights:
    """Read a file of weights. No code in it is run: there is none in safetensors, and PyTorch's own
    reader builds nothing but tensors and plain values of the others.

    Raises ModelError for a file that is damaged, no such file, or holds anything else.
    """
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused below in our own words
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, EOFError, KeyError, ...: whatever the bytes bring up
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = code[1] if code else "TorchScript" if "TorchScript" in str(error) else None
        if what is not None:
            raise ModelError(
                f"{path} holds more than weights: {what}, which is code. Nothing of it was run. Ask "
                "its maker for a .safetensors file"
            ) from error
        raise ModelError(f"{path} is no file of weights, or a damaged one: {_line(error)}") from error
    if not issubclass(type(found), Mapping):
        raise ModelError(f"{path} holds a {type(found).__name__}, no weights by name")
    tensors: dict[str, Any] = {str(key): value for key, value in found.items()}
    if "recipe" in tensors:
        raise ModelError(f"{path} is a checkpoint of `velatura train`: `velatura export` takes it")
    return Weights(tensors=tensors)


def _read_safetensors(path: Path) -> Weights:
    safetensors = _package("safetensors")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            stated: dict[str, str] = dict(file.metadata() or ())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no safetensors file, or a damaged one: {_line(error)}") from error
    return Weights(tensors=tensors, stated=stated)


def network_of(weights: Weights, path: Path) -> Network:
    """The network that the weights fit, found by their names and shapes.

    Raises ModelError for an architecture that spandrel does not know, weights that do not fit it, and
    networks that do not turn a picture into a picture.
    """
    library = spandrel()
    known = len(library.MAIN_REGISTRY)
    try:
        found = library.ModelLoader(device="cpu").load_from_state_dict(weights.tensors)
    except library.UnsupportedModelError as error:
        names = ", ".join(list(weights.tensors)[:3]) or "none at all"
        raise ModelError(
            f"{path} is of none of the {known} architectures that spandrel {library.__version__} knows "
            f"(its weights are named {names}, ...): export it to ONNX where it was trained"
        ) from error
    except Exception as error:  # a detector or a constructor may stumble over anything
        raise ModelError(
            f"{path} does not fit the architecture that it names: {_line(error)}"
        ) from error
    if not isinstance(found, library.ImageModelDescriptor):
        raise ModelError(f"{path} is {found.architecture.name}, which wants a mask beside the picture")
    if found.purpose == "FaceSR":
        raise ModelError(f"{path} is {found.architecture.name}, for cut-out faces and not for frames")
    given, made = found.input_channels, found.output_channels
    if given != made or given not in (1, 3):
        raise ModelError(
            f"{path} turns {given} channels into {made}; a frame model keeps 1 (luma) or 3 (RGB)"
        )
    return Network(found)


def spandrel() -> Any:
    """The package of that name, which knows architectures by their weights.

    It imports torchvision for two functions on pictures. A torchvision that was built for another
    PyTorch, such as PyPI's for CUDA beside a PyTorch for CPUs, cannot load its operators, and fails as
    it describes two of them. No network here has any of them: so they get their names, and the import
    goes on.
    """
    try:
        return _package("spandrel")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    found = _package("spandrel")
    found.velatura_operators = operators  # they live as long as the package that was imported by them
    return found


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"`velatura import` needs {error.name}: pip install 'velatura[import]'"
        ) from error


def export_network(
    net: Network, card: ModelCard, target: Path
) -> tuple["ModelProto", ModelCard, dict[str, float]]:
    """Returns (graph, card, parity in dB by backend), of any size where PyTorch exports one that runs.

    Else of one size, to which frames are tiled. The trials are files beside `target`. Raises ModelError
    where PyTorch cannot export the network at all.
    """
    base = net.side(32)
    reason = ""
    for free in (True, False):
        if free and net.square:
            continue
        fixed = net.side(FIXED_SIDE)
        height, width = (2 * base, 3 * base) if free else (fixed, fixed)
        made = replace(
            card,
            size_multiple=net.multiple if free else 1,
            min_size=max(net.minimum, 1),
            fixed_size=None if free else (fixed, fixed),
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on how the network's code is written
                # A copy: networks that set attributes as they run would keep tensors without data.
                graph = graph_of(deepcopy(net), torch.rand(1, net.channels, height, width), free=free)
        except Exception as error:  # the exporter raises whatever the network's code meets
            reason = _line(error)
            continue
        sizes = (
            [(fixed, fixed)] if not free else [(2 * base, 3 * base), (base + 3 * net.multiple, base)]
        )
        try:
            return graph, made, parity(net, graph, made, target, sizes)
        except ModelError as error:
            reason = str(error)
    raise ModelError(f"PyTorch exports no graph of {net.architecture} that runs: {reason}")


def parity(
    net: Network, graph: "ModelProto", card: ModelCard, target: Path, sizes: list[tuple[int, int]]
) -> dict[str, float]:
    """PSNR in dB of each backend's 8-bit output against PyTorch's, on pictures of those sizes.

    Raises ModelError where a backend refuses the graph.
    """
    trial = target.with_name(f".{target.name}")
    images = [texture(card, size, seed) for seed, size in enumerate(sizes)]
    found: dict[str, float] = {}
    try:
        save(graph, card, trial)
        for backend in BACKENDS:
            try:
                with open_engine(trial, backend, precision="fp32") as engine:
                    found[backend] = network_parity_db(net, engine, images)
            except ModelError:
                raise
            except Exception as error:  # EngineError, or NumPy's where the sizes disagree
                raise ModelError(f"{backend}: {_line(error)}") from error
    finally:
        trial.unlink(missing_ok=True)
    return found


def texture(card: ModelCard, size: tuple[int, int], seed: int) -> Image:
    """A picture of smooth colours, edges and grain, (H, W, 3) or for luma (H, W)."""
    import cv2

    random = np.random.default_rng(seed)
    height, width = size
    noise = random.integers(0, 256, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    smooth = (smooth - smooth.min()) * (255 / max(float(np.ptp(smooth)), 1.0))
    picture = np.clip(smooth + (noise - 128) * 0.1, 0, 255).astype(np.uint8)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 90)
    return picture[:, :, 0].copy() if card.input_colour == "luma" else picture


def _line(error: BaseException) -> str:
    """The first line of an error that says what was wrong, without PyTorch's advice to trust it."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
