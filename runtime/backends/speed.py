"""The speed of a model on this machine: read from what was measured before, or measured once and
kept."""

from dataclasses import dataclass
from pathlib import Path

from ..cache import EngineCache
from ..card import CardFlags, ModelCard
from ..machine import cpu_and_cores
from .model import find_model, load_model
from .open import cpu_backends, find_backend, open_engine, trial_runner
from .precision_choice import SIZE, Measured, choose, from_json, measure, to_json

KEPT = ("speed", "choice")
"""Kinds of figures in the cache: those that were asked for, and those by which `auto` has chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a model's fastest precision that agrees has reached, on frames of
    `precision_choice.SIZE`."""

    backend: str
    precision: str
    rate: float
    """Frames per second."""


def named_card(path: Path) -> ModelCard:
    """Returns the card of a model in the zoo's or the user's own folder. Raises ModelError."""
    return load_model(path, flags=CardFlags(), trial=trial_runner()).card


def known_speed(card: ModelCard, cache: EngineCache) -> Speed | None:
    """Returns what the cache has of a model on this machine, by its card in FP32; None for nothing.

    No library is asked for it: the figures of a GPU are taken for those of this machine's.
    """
    for key, data in cache.figures(card.name, KEPT):
        backend = str(key.get("backend"))
        here = backend not in cpu_backends() or key.get("device") == cpu_and_cores()
        if here and key.get("card") == card.to_json() and key.get("hint") == "throughput":
            return _fastest(backend, from_json(data))
    return None


def measure_speed(name: str, cache: EngineCache) -> Speed:
    """Returns the speed of the engine that `auto` opens, and keeps it. Raises VelaturaError."""
    card = named_card(find_model(name))
    with open_engine(name, cache=cache) as engine:
        # Where there is a choice, opening has just measured it.
        known = known_speed(card, cache)
        if known is not None and known.backend == engine.backend:
            return known
        found = measure({engine.precision: engine}, card.fixed_size or SIZE)
        key = {
            "name": card.name,
            "backend": engine.backend,
            "precision": KEPT[0],
            "card": card.to_json(),
            "hint": "throughput",
            "device": find_backend(engine.backend).device(),
        }
        cache.put(key, to_json(found))
        return _fastest(engine.backend, found)


def _fastest(backend: str, measured: dict[str, Measured]) -> Speed:
    chosen = choose(measured, checked=frozenset({"int8"} & measured.keys()))
    rate = 1e3 / measured[chosen].milliseconds
    return Speed(backend=backend, precision=chosen, rate=rate)
