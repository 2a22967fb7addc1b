"""open_engine: opens the best backend available, and notes the reason why each better one was
refused."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..cache import EngineCache, digest_of
from ..card import CardFlags, ModelCard
from ..errors import BackendUnavailableError, EngineError, ModelError
from .base import Backend, Engine, Fit, Hint, Options, Precision, Progress
from .identity import NAME as IDENTITY
from .identity import IdentityEngine

if TYPE_CHECKING:
    from .model import Model, Trial
    from .precision_choice import Agreement

BACKENDS = {
    "tensorrt": ".tensorrt",
    "rtx": ".tensorrt",
    "ort-tensorrt": ".ort",
    "ort-rtx": ".ort",
    "ort-cuda": ".ort",
    "ort-directml": ".ort",
    "ort-coreml": ".ort",
    "openvino": ".openvino",
    "ort": ".ort",
}
"""The module that has each backend, in the order in which `auto` tries them. The last one on a CPU is
the reference to which others are held."""

LEAST_WORK = 200_000_000
"""Pixels of source, some nine seconds of 720p, below which precisions are not measured: opening each
and running it some ten times in 640x360 takes longer than what a faster one would save."""

Building = Literal["wait", "fallback", "pass"]
"""The behaviour of frames while an engine is built: wait, run on a CPU backend, or pass through
unchanged."""


def open_engine(
    model: str | Path,
    backend: str = "auto",
    *,
    precision: Precision = "auto",
    hint: Hint = "throughput",
    flags: CardFlags | None = None,
    fit: Fit = "tile",
    building: Building = "wait",
    cache: EngineCache | None = None,
    cuda_graphs: bool = False,
    pixels: int | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Opens a zoo model by name, any ONNX file, or a built engine by path, on the best backend.

    `precision` auto takes FP16 on a GPU if it agrees with FP32 there, which is checked once for each
    model and device; on a CPU it measures, as often, which of those that agree with FP32 is fastest.
    `fit` says what a model of one size does with frames of another. `building` other than `wait`
    returns at once and builds in the background. `cache` None takes the user's own. `cuda_graphs`
    records a frame's steps on an NVIDIA GPU. `pixels` says how many, of all frames together, it is
    opened for: where they are few, a CPU takes FP32 if nothing was measured before. `progress` is
    called while something is built.

    `engine.notes` says what was assumed about a foreign model and why backends were refused. Raises
    ModelError for the model's faults, BackendUnavailableError when no backend can be used, EngineError
    when the usable ones refuse the model or the precision.
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

    path = find_model(model)  # an unknown name is reported before a missing library
    cache = cache if cache is not None else EngineCache()
    options = Options(hint=hint, fit=fit, cache=cache, cuda_graphs=cuda_graphs, pixels=pixels)
    if progress is not None:
        options = replace(options, progress=progress)
    if path.suffix == ".engine":
        from .nvidia.engine_file import library_of, open_built

        if backend not in ("auto", library_of(path)):
            raise EngineError(f"{path} is an engine of {library_of(path)}, not of {backend}")
        return open_built(path, options)
    opener = _Opener(model, precision, options, flags or CardFlags())
    names = tuple(BACKENDS) if backend == "auto" else (backend,)
    if building == "wait":
        return opener.first(names)
    from .background_build import RisingEngine

    if building == "pass":
        return RisingEngine(opener.card(), lambda: opener.first(names))
    if not any(_usable(name) for name in names if name not in cpu_backends()):
        # Nothing better can be built: the fallback would only replace itself.
        return opener.first(names)
    stand_in = opener.stand_in()
    return RisingEngine(stand_in.card, lambda: opener.first(names), stand_in)


def refusals() -> dict[str, str | None]:
    """Returns the reason why each backend cannot be used here, None for those that can, in order of
    preference."""
    return {name: find_backend(name).unavailable() for name in BACKENDS}


def backend_precisions(name: str) -> tuple[str, ...]:
    """Returns the precisions that an available backend offers on this machine."""
    return find_backend(name).precisions()


def find_backend(name: str) -> Backend:
    """Returns the backend of that name."""
    offered: tuple[Backend, ...] = import_module(BACKENDS[name], __package__).BACKENDS
    return next(backend for backend in offered if backend.name == name)


def distributions() -> tuple[str, ...]:
    """Returns the names at the package index of what all backends depend on."""
    return tuple(dict.fromkeys(d for name in BACKENDS for d in find_backend(name).distributions))


def cpu_backends() -> tuple[str, ...]:
    """Returns the backends on a CPU, in order of preference: the fallback while a better engine is
    built."""
    return tuple(name for name in BACKENDS if find_backend(name).on_cpu)


def trial_runner() -> "Trial":
    """Returns the function that runs a foreign graph for inspection, of the first backend that can be
    used.

    Raises BackendUnavailableError when there is none.
    """
    return cpu_backend().trial


def cpu_backend(*, exact: bool = False) -> Backend:
    """Returns the first backend on a CPU that can be used, or with `exact` the last, the reference.

    Raises BackendUnavailableError when there is none.
    """
    names = cpu_backends()
    for name in reversed(names) if exact else names:
        backend = find_backend(name)
        if backend.unavailable() is None:
            return backend
    raise BackendUnavailableError("no inference library is installed: pip install openvino")


def _usable(name: str) -> bool:
    return find_backend(name).unavailable() is None


class _Opener:
    """The opening of one model, with the caller's options."""

    def __init__(
        self, model: str | Path, precision: Precision, options: Options, flags: CardFlags
    ) -> None:
        self.model = model
        self.precision = precision
        self.options = options
        self.flags = flags

    def first(self, names: Sequence[str]) -> Engine:
        """Returns an engine of the first of these backends that takes the model."""
        refused: list[str] = []
        failures: list[EngineError] = []
        for name in names:
            backend = find_backend(name)
            reason = backend.unavailable()
            if reason is None:
                try:
                    engine = self._open(backend)
                except EngineError as error:
                    failures.append(error)
                    reason = str(error)
                else:
                    told = [line for line in refused if find_backend(line.partition(":")[0]).expected()]
                    engine.notes = (*(f"not {line}" for line in told), *engine.notes)
                    return engine
            refused.append(f"{name}: {reason}")
        kind = EngineError if failures else BackendUnavailableError
        raise kind(f"no backend runs {self.model}: " + "; ".join(refused))

    def stand_in(self) -> Engine:
        """Returns an engine on a CPU; in FP32 where no CPU backend has the requested precision."""
        names = cpu_backends()
        known = {p for name in names if _usable(name) for p in backend_precisions(name)}
        if self.precision in ("auto", *known):
            return self.first(names)
        return _Opener(self.model, "fp32", self.options, self.flags).first(names)

    def card(self) -> ModelCard:
        """Returns the model's card, without an engine."""
        return self._load(self.model).card

    def _load(self, model: str | Path, precision: str = "fp32") -> "Model":
        from .model import find_model, load_model

        graph = "int8" if precision.startswith("int8") else "fp32"
        path = find_model(model, precision=graph)
        return load_model(path, flags=self.flags, trial=trial_runner())

    def _open(self, backend: Backend) -> Engine:
        offered = backend.precisions()
        if self.precision == "auto":
            return self._open_fastest(backend, offered)
        chosen = str(self.precision)
        if chosen not in offered:
            raise EngineError(f"{backend.name} has no {chosen} here; it has {', '.join(offered)}")
        loaded = self._load(self.model, chosen)
        if chosen.startswith("int8") and loaded.card.precision != "int8":
            raise ModelError(f"{loaded.path} is not quantised: it cannot run in INT8")
        return backend.open(loaded, precision=chosen, options=self.options)

    def _open_fastest(self, backend: Backend, offered: Sequence[str]) -> Engine:
        models = self._variants(offered)
        if "fp16" in models:
            return self._open_half(backend, models["fp16"])
        if len(models) == 1:
            ((name, only),) = models.items()
            return backend.open(only, precision=name, options=self.options)
        key = {
            **self._figures_key(backend, models, "choice"),
            "offered": list(models),
            "hint": self.options.hint,
        }
        from .precision_choice import choose, from_json

        remembered = self.options.cache.get(key)
        if remembered is None:
            if self.options.pixels is not None and self.options.pixels < LEAST_WORK:
                name, model = next(iter(models.items()))
                return backend.open(model, precision=name, options=self.options)
            return self._measure(backend, models, key)
        checked = frozenset(name for name in models if name == "int8")
        chosen = choose(from_json(remembered), checked=checked)
        return backend.open(models[chosen], precision=chosen, options=self.options)

    def _open_half(self, backend: Backend, model: "Model") -> Engine:
        """Opens the model in FP16, if its results on the device agree with FP32; else in FP32, with a
        note."""
        card = model.card
        if card.dtype == "float16":  # there is no FP32 to be held to
            return backend.open(model, precision="fp16", options=self.options)
        try:
            found, now = self._agreement(backend, model)
        except (EngineError, ModelError) as error:
            # The backend may refuse half precision, or the pictures' size; frames may have another
            # size.
            why = f"fp16 could not be checked ({error})"
        else:
            if found.passes:
                engine = backend.open(model, precision="fp16", options=self.options)
                if now:
                    line = f"{card.name} runs in fp16, which agrees with fp32 ({found.words()})"
                    engine.notes = (*engine.notes, line)
                return engine
            why = f"fp16 on this device does not agree with it ({found.words()})"
        engine = backend.open(model, precision="fp32", options=self.options)
        engine.notes = (*engine.notes, f"{card.name} runs in fp32: {why}")
        return engine

    def _agreement(self, backend: Backend, model: "Model") -> "tuple[Agreement, bool]":
        """Returns (the agreement of FP16 with FP32 on the device, whether it was measured now);
        measured once for each model and device."""
        from .precision_choice import Agreement, agree

        key = self._figures_key(backend, {"fp16": model}, "parity")
        remembered = self.options.cache.get(key)
        if remembered is not None:
            return Agreement(**json.loads(remembered)), False
        self.options.progress(f"checking {self.model} in fp16", 0.0)
        options = replace(self.options, hint="latency", cuda_graphs=False)
        with (
            cpu_backend().open(
                model, precision="fp32", options=replace(options, cache=EngineCache.of_nothing())
            ) as full,
            backend.open(model, precision="fp16", options=options) as half,
        ):
            found = agree(full, half)
        self.options.cache.put(key, json.dumps(asdict(found)).encode())
        self.options.progress(f"checked {self.model} in fp16: {found.words()}", 1.0)
        return found, True

    def _variants(self, offered: Sequence[str]) -> "dict[str, Model]":
        """Returns the graphs to choose from, by precision."""
        from .model import has_int8

        plain = self._load(self.model)
        if plain.card.precision == "int8":
            found = {name: plain for name in offered if name.startswith("int8")}
            if not found:
                raise EngineError(f"{plain.card.name} is quantised; no INT8 here: give its FP32 model")
            return found
        found = {name: plain for name in offered if not name.startswith("int8")}
        wanted = [name for name in offered if name.startswith("int8") and has_int8(self.model)]
        if wanted:
            low = self._load(self.model, "int8")
            found |= dict.fromkeys(wanted, low)
        return found

    def _measure(
        self, backend: Backend, models: "Mapping[str, Model]", key: Mapping[str, object]
    ) -> Engine:
        """Opens all graphs, keeps the fastest that agrees with FP32, and stores the figures."""
        from .precision_choice import SIZE, choose, measure, to_json

        self.options.progress(f"measuring {self.model} in {', '.join(models)}", 0.0)
        engines: dict[str, Engine] = {}
        try:
            for name, model in models.items():
                engines[name] = backend.open(model, precision=name, options=self.options)
            card = next(iter(engines.values())).card
            measured = measure(engines, card.fixed_size or SIZE)
        except EngineError as error:
            # A model that does not take the sizes that its card states may still fit the frames that
            # come.
            _close(engines)
            name, model = next(iter(models.items()))
            engine = backend.open(model, precision=name, options=self.options)
            engine.notes = (*engine.notes, f"runs in {name}: it could not be measured ({error})")
            return engine
        chosen = choose(measured, checked=frozenset(n for n in models if n == "int8"))
        self.options.cache.put(key, to_json(measured))
        engine = engines.pop(chosen)
        _close(engines)
        figures = ", ".join(
            f"{n} {m.milliseconds:.1f} ms {m.parity_db:.0f} dB" for n, m in measured.items()
        )
        engine.notes = (*engine.notes, f"{card.name} runs in {chosen}, by measurement ({figures})")
        self.options.progress(f"measured {self.model}: {chosen}", 1.0)
        return engine

    def _figures_key(
        self, backend: Backend, models: "Mapping[str, Model]", what: str
    ) -> dict[str, object]:
        """Returns the cache key for measurements of these graphs."""
        graphs = {id(m): digest_of(m.proto.SerializeToString()) for m in models.values()}
        card = next(iter(models.values())).card
        return {
            "name": card.name,
            "backend": backend.name,
            "precision": what,
            "graph": sorted(set(graphs.values())),
            "card": card.to_json(),
            "library": backend.version(),
            "device": backend.device(),
        }


def _close(engines: Mapping[str, Engine]) -> None:
    for engine in engines.values():
        engine.close()
