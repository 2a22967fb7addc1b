"""TensorRT, and TensorRT-RTX, on this machine's NVIDIA GPU."""

from dataclasses import dataclass

from ..machine import nvidia_problem
from .base import Backend, Engine, Model, Options
from .nvidia import cuda
from .nvidia import library as nvidia_library


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtBackend(Backend):
    """One of the two libraries."""

    name: nvidia_library.Name

    def unavailable(self) -> str | None:
        return nvidia_library.problem(self.name) or cuda.missing_package()

    def expected(self) -> bool:
        return nvidia_problem() is None

    def version(self) -> str:
        return nvidia_library.load(self.name).version

    def device(self) -> str:
        return cuda.load().device().title

    def precisions(self) -> tuple[str, ...]:
        """Returns FP32 (in TF32 where the GPU has it) and FP16."""
        return ("fp32", "fp16")

    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        from .nvidia.engine import open_device  # costs a start on a CPU nothing

        library = nvidia_library.load(self.name)
        return open_device(model, library, cuda.load(), precision=precision, options=options)


BACKENDS = (
    TensorRtBackend(
        name="tensorrt",
        package=nvidia_library.MODULES["tensorrt"][0],
        advice=nvidia_library.ADVICE["tensorrt"],
        distributions=("tensorrt", "cuda-python"),
    ),
    TensorRtBackend(
        name="rtx",
        package=nvidia_library.MODULES["rtx"][0],
        advice=nvidia_library.ADVICE["rtx"],
        distributions=("tensorrt-rtx-cu13-bindings", "cuda-python"),
    ),
)
