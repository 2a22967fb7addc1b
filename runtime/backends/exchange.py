"""Device arrays of other libraries, taken without a copy: `__cuda_array_interface__` and DLPack."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EngineError

CUDA_DEVICES = (2, 13)
"""DLPack's kDLCUDA and kDLCUDAManaged."""

_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
"""DLPack's type codes, as NumPy's kinds."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """Somebody else's array on the device."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    """The stream in whose turn it is written; None when it is written already."""
    owner: Any
    """Keeps it alive."""


def is_device_array(array: object) -> bool:
    """Whether it lies, or may lie, on a device; NumPy's arrays never do."""
    return not isinstance(array, np.ndarray) and (
        hasattr(array, "__cuda_array_interface__") or hasattr(array, "__dlpack__")
    )


def device_view(array: Any, *, stream: int, devices: tuple[int, ...] = CUDA_DEVICES) -> DeviceView:
    """A view of a contiguous device array.

    `stream` is where it will be read: a DLPack producer makes that stream wait for its own. Raises
    EngineError for strided arrays and for those of another device.
    """
    if hasattr(array, "__cuda_array_interface__"):
        return _from_interface(array)
    device, number = array.__dlpack_device__()
    if device not in devices:
        raise EngineError(f"the array lies on DLPack device {device}:{number}, not on a CUDA device")
    return _from_capsule(array.__dlpack__(stream=stream))


def _from_interface(array: Any) -> DeviceView:
    facts = array.__cuda_array_interface__
    dtype = np.dtype(facts["typestr"])
    shape = tuple(int(side) for side in facts["shape"])
    strides = facts.get("strides")
    if strides is not None and tuple(strides) != _contiguous(shape, dtype.itemsize):
        raise EngineError(f"the device array of shape {shape} is not contiguous")
    return DeviceView(int(facts["data"][0]), shape, dtype, facts.get("stream"), array)


def _contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides: list[int] = []
    step = itemsize
    for side in reversed(shape):
        strides.append(step)
        step *= side
    return tuple(reversed(strides))


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
    """The tensor in a DLPack capsule. The capsule is kept, unconsumed: it frees the tensor when it goes."""
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
        if strides != _contiguous(shape, dtype.itemsize):
            raise EngineError(f"the device array of shape {shape} is not contiguous")
    address = int(tensor.data or 0) + int(tensor.byte_offset)
    return DeviceView(address, shape, dtype, None, capsule)
