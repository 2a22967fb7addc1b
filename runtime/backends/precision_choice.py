"""The choice of the fastest precision that agrees with FP32, measured once on this machine and
stored."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from ..card import ModelCard
from ..frame import Array
from .base import Engine, sample_dtype

SIZE = (360, 640)
"""Height and width for measurements: large enough that a frame's fixed costs do not decide."""

MIN_PARITY_DB = 45.0
"""PSNR in dB against FP32 that a precision needs where it was not checked at export."""

SLACK_DB = 2.0
"""Decibels by which INT8 with the rest in BF16 may agree less than INT8 itself: BF16 adds about half as
much error to a picture as INT8 has made."""

MARGIN = 0.9
"""The largest part of the time that a less exact precision may take."""

LEAST_GAIN_MS = 1.0
"""Milliseconds per frame that a less exact precision must save: smaller gains are not worth it, and
cannot be measured on a busy machine."""

ROUNDS = 3
ROUND_SECONDS = 0.05
PATIENCE = 4.0
"""Seconds after which measuring ends with the rounds done; each precision has run at least once."""


MOST_LEVELS = 32
"""The largest difference that a sample may have, of 255. The shipped models' differ by 2 where FP16
suits them. A tensor that overflows at a few pixels leaves the PSNR of the picture high, and black or
white spots in it."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of a model in FP16 with itself in FP32, on the worst of several pictures."""

    db: float
    """PSNR of the 8-bit output."""
    levels: int
    """The largest difference of a sample."""

    @property
    def passes(self) -> bool:
        """True if FP16 may replace FP32."""
        return self.db >= MIN_PARITY_DB and self.levels <= MOST_LEVELS

    def words(self) -> str:
        """Returns the figures in words."""
        return f"{self.db:.1f} dB, {self.levels} levels at most"


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one precision."""

    milliseconds: float
    """Per frame with the engine's requests in flight; the fastest of several rounds."""
    parity_db: float
    """PSNR in dB of its 8-bit output against FP32's; 99 when they are equal."""


def measure(engines: Mapping[str, Engine], size: tuple[int, int]) -> dict[str, Measured]:
    """Times each engine on one picture and compares its result with that of `fp32`, or of the first.

    Rounds are interleaved, so that a slow moment of the machine hits all alike.
    """
    first = next(iter(engines.values()))
    picture = sample_picture(*size, first.card.input_channels)
    results = {name: engine.run(picture).astype(np.float64) for name, engine in engines.items()}
    reference = results.get("fp32", next(iter(results.values())))
    best = dict.fromkeys(engines, float("inf"))
    begin = time.perf_counter()
    for turn in range(ROUNDS):
        for name, engine in engines.items():
            best[name] = min(best[name], _seconds(engine, picture))
        if turn and time.perf_counter() - begin > PATIENCE:
            break
    return {
        name: Measured(round(best[name] * 1e3, 3), round(psnr(reference, results[name]), 2))
        for name in engines
    }


def choose(measured: Mapping[str, Measured], *, checked: frozenset[str]) -> str:
    """Returns the fastest precision that agrees well enough; the more exact one where the gain is
    small.

    `checked` names precisions whose graph passed parity at export, so that their agreement is known to
    be sufficient.
    """
    known = max((measured[name].parity_db for name in checked if name in measured), default=None)
    bound = MIN_PARITY_DB if known is None else min(MIN_PARITY_DB, known - SLACK_DB)

    def passes(name: str) -> bool:
        if name in checked or name == "fp32":
            return True
        # INT8 with the rest in BF16 is compared with the bound for INT8 itself.
        least = bound if name.startswith("int8") else MIN_PARITY_DB
        return measured[name].parity_db >= least

    names = sorted(filter(passes, measured), key=lambda name: -measured[name].parity_db)
    best = names[0]
    for name in names[1:]:
        now = measured[best].milliseconds
        if measured[name].milliseconds < min(MARGIN * now, now - LEAST_GAIN_MS):
            best = name
    return best


def to_json(measured: Mapping[str, Measured]) -> bytes:
    """Returns the measurements as JSON for the cache."""
    return json.dumps({name: asdict(found) for name, found in measured.items()}).encode()


def from_json(data: bytes) -> dict[str, Measured]:
    """Returns the measurements from the cache's JSON."""
    found = cast(dict[str, dict[str, Any]], json.loads(data))
    return {name: Measured(**values) for name, values in found.items()}


def psnr(reference: Array, other: Array, peak: float = 255.0) -> float:
    """Returns the PSNR in dB of `other` against `reference`, at most 99, which stands for equality.

    Training has its own: neither package imports the other.
    """
    error = float(np.square(reference.astype(np.float64) - other.astype(np.float64)).mean())
    return 99.0 if error == 0 else min(99.0, 10.0 * float(np.log10(peak**2 / error)))


def agree(full: Engine, low: Engine) -> Agreement:
    """Returns the agreement of two engines on `pictures`. Raises EngineError where one fails."""
    found: list[Agreement] = []
    for picture in pictures(full.card):
        wanted, other = (np.array(engine.run(picture), np.int32) for engine in (full, low))
        levels = int(np.abs(wanted - other).max())
        found.append(Agreement(psnr(wanted, other), levels))
    return Agreement(min(one.db for one in found), max(one.levels for one in found))


def pictures(card: ModelCard) -> list[Array]:
    """Returns the pictures for checking FP16: a photograph's spectrum, black, white, squares, noise."""
    height, width = card.fixed_size or (192, 256)
    channels = card.input_channels
    rows, columns = np.indices((height, width))
    squares = ((rows // 8 + columns // 8) % 2 * 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, (height, width), np.uint8) * np.uint8(255)
    planes = [np.zeros_like(squares), np.full_like(squares, 255), squares, noise]
    flat = planes if channels == 1 else [np.repeat(p[..., None], channels, 2) for p in planes]
    return [sample_picture(height, width, channels), *flat]


def sample_picture(height: int, width: int, channels: int, bits: int = 8) -> Array:
    """Returns a picture with a photograph's spectrum: noise in octaves whose amplitude falls as 1/f,
    and edges.

    (H, W) or (H, W, 3), the same at every call.
    """
    rng = np.random.default_rng(2016)
    picture = np.zeros((height, width, channels))
    octave = 4
    while octave < max(height, width):
        rows, columns = max(2, height * octave // width), octave
        coarse = rng.normal(size=(rows, columns, channels))
        row = np.linspace(0, rows - 1, height).astype(int)
        column = np.linspace(0, columns - 1, width).astype(int)
        picture += coarse[row][:, column] / octave**0.5
        octave *= 2
    picture -= picture.min()
    peak = (1 << bits) - 1
    return (picture / picture.max() * peak).round().astype(sample_dtype(bits)).squeeze()


def _seconds(engine: Engine, picture: Array) -> float:
    """Returns the seconds per frame, with the engine's requests in flight."""
    start = time.perf_counter()
    running = [engine.submit(picture) for _ in range(engine.in_flight)]
    done = 0
    while running:
        running.pop(0)()
        done += 1
        if time.perf_counter() - start < ROUND_SECONDS:
            running.append(engine.submit(picture))
    return (time.perf_counter() - start) / done
