"""Where a run is carried out: device, processes, memory order and precision."""

import ctypes
import os
import platform
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .data import Sample
from .recipe import Recipe


@contextmanager
def processes(device: str) -> Generator[tuple[torch.device, int, int]]:
    """The device of this process, its rank and how many there are; joins `torchrun`'s group."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(found if device == "auto" else device)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world == 1:
        yield chosen, 0, 1
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen, rank, world
    finally:
        dist.destroy_process_group()


def mean_of_processes(value: Tensor) -> Tensor:
    """The mean over the processes of a value without gradient: what each divides its own loss by.

    With the divisor of its own share of a batch alone, several processes would not take the step that
    one takes with the whole.
    """
    if not dist.is_initialized():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees, for the next one: for the whole process, and for good.

    Activations of tens of megabytes are otherwise mapped, cleared and unmapped anew at each step: a
    tenth of a style's step, two thirds of the time of a float32 addition. Elsewhere it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 1 << 28)):
        mallopt(option, value)


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def channels_last(module: nn.Module) -> None:
    """Keep the module's kernels in the order in which CPU and tensor-core convolutions read them."""
    cast(Any, module).to(memory_format=torch.channels_last)


def to_device(sample: Sample, device: torch.device) -> Sample:
    """The batch on the device, channels last."""

    def moved(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if tensor.ndim == 4:
            return tensor.to(device, memory_format=torch.channels_last)
        return tensor.to(device)

    photos = moved(sample.photos)
    assert photos is not None
    return Sample(photos, moved(sample.low), moved(sample.frames))


def bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether to compute in BF16: where the recipe asks for it and the device has it.

    A CPU without BF16 instructions computes it by conversions: VGG-16 took 3.7 times as long as in
    float32 on one core with AVX-512 alone.
    """
    if recipe.precision != "bf16" or device.type != "cpu":
        return recipe.precision == "bf16"
    # Where an older PyTorch cannot tell, float32 is never wrong.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)
    has: dict[str, object] = capabilities()
    return any(bool(has.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """BF16 autocast where the recipe asks for it."""
    if bf16(recipe, device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def machine_words(device: torch.device, world: int) -> str:
    """What the run is carried out on, for the model's card."""
    if device.type == "cuda":
        return f"{world} {torch.cuda.get_device_name(device)}"
    cores = torch.get_num_threads() * world
    return f"{cores} {platform.machine()} CPU core{'s' if cores > 1 else ''}"
