"""Device arrays of other libraries, taken without a copy: `__cuda_array_interface__` and DLPack."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...card import ModelCard
from ...errors import EngineError

CUDA_DEVICES = (2, 13)
"""DLPack's kDLCUDA and kDLCUDAManaged."""

_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
"""NumPy's kinds by DLPack's type codes."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """Another library's array on the device."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    """The stream in which it is written; None when it is complete already."""
    owner: Any
    """The object that keeps the memory alive."""


def is_device_array(array: object) -> bool:
    """Returns whether the array is, or may be, on a device; NumPy's arrays never are."""
    return not isinstance(array, np.ndarray) and (
        hasattr(array, "__cuda_array_interface__") or hasattr(array, "__dlpack__")
    )


def picture_size(
    array: Any, card: ModelCard, *, least: tuple[int, int], number: int
) -> tuple[int, int]:
    """Returns (height, width) of a picture for that model on the CUDA device of that number.

    Raises EngineError for one that lies elsewhere, is none, or would need padding.
    """
    if hasattr(array, "__dlpack_device__"):
        kind, where = (int(part) for part in array.__dlpack_device__())
        if kind not in CUDA_DEVICES or where != number:
            raise EngineError(
                f"the array lies on DLPack device {kind}:{where}, not on CUDA's device {number}"
            )
    if hasattr(array, "__cuda_array_interface__"):
        shape = tuple(int(side) for side in array.__cuda_array_interface__["shape"])
    elif hasattr(array, "shape"):
        shape = tuple(int(side) for side in array.shape)
    else:
        raise EngineError(f"{type(array).__name__} is no array: it has no shape")
    if len(shape) < 2 or shape[2:] != (() if card.input_channels == 1 else (3,)):
        raise EngineError(f"{card.name} takes {card.input_channels}-channel pictures, not {shape}")
    height, width = shape[:2]
    step, fixed = card.size_multiple, card.fixed_size
    misfit = height % step or width % step or height < least[0] or width < least[1]
    if (fixed != (height, width)) if fixed else misfit:
        sizes = f"{fixed}" if fixed else f"{least} and more in steps of {step}"
        raise EngineError(
            f"{card.name} takes device pictures of {sizes}, not {height}x{width}: pad them, or give "
            "them in host memory"
        )
    return height, width


def device_view(array: Any, *, stream: int) -> DeviceView:
    """Returns a view of a contiguous device array.

    `stream` is where it will be read. A DLPack producer makes that stream wait for its own, and goes
    first for that: PyTorch's `__cuda_array_interface__` is of a version that knows no streams. Raises
    EngineError for strided arrays.
    """
    if hasattr(array, "__dlpack__"):
        return _from_capsule(array.__dlpack__(stream=stream))
    return _from_interface(array)


def _from_interface(array: Any) -> DeviceView:
    facts = array.__cuda_array_interface__
    dtype = np.dtype(facts["typestr"])
    shape = tuple(int(side) for side in facts["shape"])
    strides = facts.get("strides")
    if strides is not None:
        _check_contiguous(shape, tuple(strides), dtype.itemsize)
    return DeviceView(int(facts["data"][0]), shape, dtype, facts.get("stream"), array)


def _check_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> None:
    """Raise EngineError for strided arrays. Strides are in bytes; along an axis of one entry they are
    ignored."""
    step = itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != step:
            raise EngineError(
                f"the device array of shape {shape} has strides {strides}: make it contiguous"
            )
        step *= side


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def _from_capsule(capsule: Any) -> DeviceView:
    """Returns the tensor in a DLPack capsule, which is kept unconsumed: it frees the tensor when it is
    deleted."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # DLManagedTensor begins with its DLTensor.
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.code not in _KINDS or tensor.lanes != 1:
        raise EngineError(f"DLPack type {tensor.code} with {tensor.bits} bits is no sample type")
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    if tensor.strides:
        strides = tuple(tensor.strides[axis] * dtype.itemsize for axis in range(tensor.ndim))
        _check_contiguous(shape, strides, dtype.itemsize)
    address = int(tensor.data or 0) + int(tensor.byte_offset)
    return DeviceView(address, shape, dtype, None, capsule)
