"""TensorRT on the NVIDIA GPU of this machine."""

from .base import Engine, Model, Options
from .nvidia import cuda
from .nvidia import library as nvidia_library

NAME = "tensorrt"


def unavailable() -> str | None:
    """Why this backend cannot be used here, or None when it can."""
    return nvidia_library.problem("tensorrt") or cuda.missing_package()


def version() -> str:
    """TensorRT's version."""
    return nvidia_library.load("tensorrt").version


def device() -> str:
    """The current GPU and its driver."""
    return cuda.load().device().title


def precisions() -> tuple[str, ...]:
    """FP32 (in TF32 where the GPU has it) and FP16."""
    return ("fp32", "fp16")


def open(model: Model, *, precision: str, options: Options) -> Engine:
    """Load the model. Raises EngineError when TensorRT refuses it."""
    from .nvidia.engine import open_device  # costs a start on a CPU nothing

    library = nvidia_library.load("tensorrt")
    return open_device(model, library, cuda.load(), precision=precision, options=options)
