"""Arrays of other libraries, taken without a copy."""

from typing import Any

import numpy as np
import numpy.typing as npt

CPU = (1, 3, 11)
"""DLPack's kDLCPU, and what the CPU may read besides: page-locked memory of CUDA and of ROCm."""
DEVICES = {2: "a CUDA device", 4: "an OpenCL device", 7: "a Vulkan device", 8: "a Metal device",
           10: "a ROCm device", 13: "CUDA managed memory", 14: "a oneAPI device"}  # fmt: skip
"""What DLPack calls devices that a picture may come from by mistake."""


def as_array(given: Any, what: str) -> npt.NDArray[Any]:
    """NumPy's view of an array in the CPU's memory: one of NumPy's own, or anything with DLPack.

    Raises ValueError, naming `what`, for what is no array and for one on a device.
    """
    if isinstance(given, np.ndarray):
        return given  # pyright: ignore[reportUnknownVariableType] - of any type, by the signature
    where = getattr(given, "__dlpack_device__", None)
    if where is None:
        raise ValueError(
            f"{what} is a {type(given).__name__}: give a NumPy array, or one with DLPack, in the "
            "computer's memory"
        )
    kind, number = (int(part) for part in where())
    if kind not in CPU:
        name = DEVICES.get(kind, f"a device of DLPack's kind {kind}")
        raise ValueError(
            f"{what} lies on {name} (number {number}): copy it to the computer's memory first "
            "(PyTorch: .cpu(), CuPy: .get())"
        )
    try:
        return np.from_dlpack(given)
    except (BufferError, RuntimeError, TypeError) as error:
        raise ValueError(f"{what}, a {type(given).__name__}, cannot be read: {error}") from error
