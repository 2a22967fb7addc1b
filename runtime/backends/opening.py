"""open_engine: the best backend there is, with the reason why each better one was refused."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..card import CardFlags
from ..errors import BackendUnavailableError, EngineError, ModelError
from ..frame import Array
from .base import Backend, Engine, Hint, Precision
from .identity import NAME as IDENTITY
from .identity import IdentityEngine

if TYPE_CHECKING:
    from .model import Trial

BACKENDS = ("openvino", "ort")
"""In the order in which `auto` tries them."""


def open_engine(
    model: str | Path,
    backend: str = "auto",
    *,
    precision: Precision = "auto",
    hint: Hint = "throughput",
    flags: CardFlags | None = None,
) -> Engine:
    """Load a zoo model by name, or any ONNX file by path, on the best backend.

    `engine.notes` says what was assumed about a foreign model and why backends were refused. Raises
    ModelError for the model's faults, BackendUnavailableError when no backend can be used, EngineError
    when those that can refuse the model or the precision.
    """
    if backend not in ("auto", IDENTITY, *BACKENDS):
        raise EngineError(
            f"unknown backend {backend!r}; there are: auto, {', '.join(BACKENDS)}, identity"
        )
    if str(model) == IDENTITY:
        return IdentityEngine()
    if backend == IDENTITY:
        raise EngineError(f"the identity backend runs no network: use -m identity instead of {model}")
    from .model import find_model

    find_model(model)  # an unknown name is reported before a missing library
    refused: list[str] = []
    failures: list[EngineError] = []
    for name in BACKENDS if backend == "auto" else (backend,):
        module = _backend(name)
        reason = module.unavailable()
        if reason is None:
            try:
                engine = _open(module, model, precision, hint, flags or CardFlags())
            except EngineError as error:
                failures.append(error)
                reason = str(error)
            else:
                engine.notes = (*(f"not {line}" for line in refused), *engine.notes)
                return engine
        refused.append(f"{name}: {reason}")
    kind = EngineError if failures else BackendUnavailableError
    raise kind(f"no backend runs {model}: " + "; ".join(refused))


def refusals() -> dict[str, str | None]:
    """Backend name -> why it cannot be used here, None for those that can, in order of preference."""
    return {name: _backend(name).unavailable() for name in BACKENDS}


def backend_precisions(name: str) -> tuple[str, ...]:
    """The precisions that an available backend offers on this machine."""
    return _backend(name).precisions()


def _open(
    backend: Backend, model: str | Path, precision: Precision, hint: Hint, flags: CardFlags
) -> Engine:
    from .model import find_model, has_int8, load_model

    offered = backend.precisions()
    chosen: str = precision
    if precision == "auto":
        # INT8 is the fastest by measurement wherever the zoo has it. BF16 is never taken unasked:
        # what it costs a foreign model is not known.
        chosen = "int8" if has_int8(model) and "int8" in offered else "fp32"
    if chosen not in offered:
        raise EngineError(f"{backend.NAME} has no {chosen} here; it has {', '.join(offered)}")
    path = find_model(model, precision=chosen)
    loaded = load_model(path, flags=flags, trial=cast("Trial", backend.trial))
    if chosen == "int8" and loaded.card.precision != "int8":
        raise ModelError(f"{path} is not quantised: it cannot run in INT8")
    return backend.open(loaded, precision=chosen, hint=hint)


def _backend(name: str) -> Backend:
    return cast(Backend, import_module(f".{name}", __package__))


def trial_runner(backends: Sequence[str] = BACKENDS) -> "Trial":
    """What runs a foreign graph for inspection: the first backend that can be used.

    Raises BackendUnavailableError when there is none.
    """
    for name in backends:
        module = _backend(name)
        if module.unavailable() is None:

            def run(model: bytes, image: Array, module: Backend = module) -> Array:
                return module.trial(model, image)

            return run
    raise BackendUnavailableError("no inference library is installed: pip install openvino")
