"""The backend of TensorRT on this machine's NVIDIA GPU."""

from .base import Engine, Model, Options
from .nvidia import cuda
from .nvidia import library as nvidia_library

NAME = "tensorrt"


def unavailable() -> str | None:
    """Returns the reason why this backend cannot be used here, or None when it can."""
    return nvidia_library.problem("tensorrt") or cuda.missing_package()


def version() -> str:
    """Returns TensorRT's version."""
    return nvidia_library.load("tensorrt").version


def device() -> str:
    """Returns the current GPU and its driver."""
    return cuda.load().device().title


def precisions() -> tuple[str, ...]:
    """Returns FP32 (in TF32 where the GPU has it) and FP16."""
    return ("fp32", "fp16")


def open(model: Model, *, precision: str, options: Options) -> Engine:
    """Opens an engine for the model. Raises EngineError when TensorRT refuses it."""
    from .nvidia.engine import open_device  # costs a start on a CPU nothing

    library = nvidia_library.load("tensorrt")
    return open_device(model, library, cuda.load(), precision=precision, options=options)
