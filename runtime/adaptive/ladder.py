"""Ladder: the ways to process a frame, from best to cheapest, measured on this machine."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction

import cv2
import numpy as np

from ..backends import Engine
from ..card import ModelCard
from ..colour import to_rgb, to_yuv
from ..frame import Array, Frame, PixelFormat, VideoInfo
from ..stages import Conform, Neural, Resize
from ..stages.base import Chain
from ..stages.geometry import Shape
from ..temporal.warp import Carried, small_luma
from ..worker import LEAVING, Worker
from .guided import guided_upsampling, scaled

PARTS = (
    (Fraction(3, 4), 1), (Fraction(1), 2), (Fraction(1, 2), 1), (Fraction(1, 2), 2),
    (Fraction(3, 8), 1), (Fraction(3, 8), 2),
)  # fmt: skip
"""Parts of each side at which styles are computed, and the number of frames of which one is."""
ORDINALS = {2: "2nd", 3: "3rd"}
SMALLEST = 64
"""Rows and columns below which a smaller picture gains nothing."""
STEP = 4
"""Inner sizes are multiples of this: those of the shipped styles."""
TRIES = 6
SECONDS = 0.25
"""Seconds for which a rung is measured, or `TRIES` frames where those take less."""
BETWEEN = 0.015
"""Seconds between two frames where models are measured in the background: about as in a live run."""
GAIN = 0.9
"""The part of the cost of the rung above which a rung's cost must not exceed to be kept."""
OFF = "off"

Opener = Callable[[str], Engine]
Smaller = Callable[[str, ModelCard], Sequence[str]]
"""Returns names of models, from the larger to the smaller, that do the same as one with that card at
less cost."""
Key = tuple[int, int, int]
"""Width, height and bits of frames, for which engines are compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to process a frame."""

    name: str
    models: tuple[str, ...] = ()
    inner: Fraction = Fraction(1)
    """The part of each side that the models see; the result is upsampled by the original's edges."""
    every: int = 1
    """Models work on one of this many frames, in the background if above 1; others get it warped."""
    cost: float = 0.0
    """Seconds that a frame waits for it, measured at the start."""
    beside: float = 0.0
    """Seconds that the models take where frames do not wait for them."""

    def __str__(self) -> str:
        return f"{self.name} ({self.cost * 1e3:.1f} ms)"


class Fit:
    """Converts every frame to the shape that sinks expect; one that has it passes untouched."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._conform = Conform()
        self._conform.first = shape

    def __call__(self, frame: Frame, *, fast: bool = False) -> Frame:
        """Returns the frame in that shape; `fast` enlarges bilinearly, which is visible, where bicubic
        takes several times as long."""
        shape = self.shape
        if fast and (frame.width, frame.height) != (shape.width, shape.height):
            large = scaled(frame, (shape.width, shape.height))
            if large.aspect == shape.aspect:
                frame = large
        return self._conform(frame)


class Ladder:
    """Engines for some models and one size of frame, and their rungs. Used from one thread."""

    def __init__(
        self,
        models: Sequence[str],
        engines: Mapping[str, Engine],
        *,
        given: Frame,
        shape: Shape | None = None,
        format: PixelFormat | None = None,
    ) -> None:
        """`given` is a frame like all others; `shape` is that of the output, None that of the first
        rung's results, in `format`, or in the one that costs least."""
        self.models = tuple(models)
        self.rungs: tuple[Rung, ...] = ()
        self.given = key_of(given)
        self._engines = dict(engines)
        self._stages = {name: Neural(engine) for name, engine in engines.items()}
        scale = math.prod(engines[name].card.scale for name in self.models)
        self._size = (given.width * scale, given.height * scale)
        if shape is None:
            format = format or output_format([engines[name].card for name in self.models], given.format)
            shape = replace(
                Shape.of(given), width=self._size[0], height=self._size[1], format=format, alpha=False
            )
        self.fit = Fit(shape)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of results before they are brought to the shape."""
        return self._size

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """The models' cards, in order."""
        return tuple(self._engines[name].card for name in self.models)

    @property
    def shape(self) -> Shape:
        """The shape of every frame that comes out."""
        return self.fit.shape

    @property
    def notes(self) -> tuple[str, ...]:
        """The engines' notes."""
        return tuple(dict.fromkeys(n for engine in self._engines.values() for n in engine.notes))

    def make(self, rung: Rung, frame: Frame) -> Frame:
        """Returns the frame made on that rung, whether or not frames wait for that rung. Raises
        EngineError."""
        if rung.inner == 1:
            return self.fit(self._chain(rung)(frame), fast=rung.name == OFF)
        small = Resize(*inner_size(frame.width, frame.height, rung.inner))(frame)
        made = self._chain(rung)(small)
        return self.fit(replace(self._enlarged(made, small, frame), aspect=frame.aspect))

    def measure(self, rungs: Sequence[Rung], frame: Frame) -> None:
        """Keep the rungs that cost less than the one of their kind above; compiles engines."""
        kept: list[Rung] = []
        least: dict[int, float] = {}
        for rung in rungs:
            if rung.every > 1:
                timed = self._measure_beside(rung, frame)
                models, gains = timed.beside, timed.cost < GAIN * kept[0].cost
            else:
                timed = replace(rung, cost=_timed(lambda rung=rung: self.make(rung, frame)))
                models, gains = timed.cost, True
            if rung.name == OFF or (gains and models < GAIN * least.get(rung.every, math.inf)):
                kept.append(timed)
                least[rung.every] = models
        self.rungs = tuple(kept)

    def close(self) -> None:
        """Close the engines. Nothing may be at work."""
        for engine in self._engines.values():
            engine.close()

    def _chain(self, rung: Rung) -> Chain:
        """Returns the rung's models."""
        return Chain([self._stages[name] for name in rung.models])

    def _measure_beside(self, rung: Rung, frame: Frame) -> Rung:
        """Returns the rung with the cost of warping a result while the models are at work, compiled for
        that size before."""
        result = self.make(rung, frame)
        carried = Carried(result, small_luma(frame))
        times: list[float] = []
        worker = Worker("velatura-measure", leaving=LEAVING)
        models = worker.start(lambda: min(_once(lambda: self.make(rung, frame)) for _ in range(3)))
        try:
            while not (models.done and times):
                times.append(_once(lambda: carried.at(small_luma(frame))))
                time.sleep(BETWEEN)
        finally:
            # Wait however this ended: the engines are closed next.
            worker.leave(LEAVING)
        return replace(rung, cost=min(times), beside=models.value)

    def _enlarged(self, made: Frame, small: Frame, frame: Frame) -> Frame:
        format = self.shape.format
        guide, small_guide = luma_of(frame), luma_of(small)
        if guide.shape != self._size[::-1]:
            guide = np.asarray(cv2.resize(guide, self._size, interpolation=cv2.INTER_CUBIC))
        if small_guide.shape != (made.height, made.width):
            size = (made.width, made.height)
            small_guide = np.asarray(cv2.resize(small_guide, size, interpolation=cv2.INTER_CUBIC))
        format = replace(format, bits=made.format.bits)
        if format.family == "rgb":
            return guided_upsampling(to_rgb(made), small_guide, guide, format)
        whole = replace(format, subsample=(1, 1))
        return guided_upsampling(to_yuv(made, whole, self.shape.colour), small_guide, guide, format)


def open_ladder(
    models: Sequence[str],
    given: Frame,
    opener: Opener,
    *,
    shape: Shape | None = None,
    format: PixelFormat | None = None,
    smaller: Smaller | None = None,
) -> Ladder:
    """Opens the engines of all rungs, compiles them for the frame's size, and measures on it.

    Raises what the opener raises, and EngineError when a model fails.
    """
    smaller = smaller or smaller_models
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}

        def card(name: str) -> ModelCard:
            if name not in engines:
                engines[name] = stack.enter_context(opener(name))
            return engines[name].card

        chains = list(_chains(models, card, smaller))
        for name in {name for chain in chains for name in chain}:
            card(name)
        ladder = Ladder(models, engines, given=given, shape=shape, format=format)
        ladder.measure(list(_rungs(chains, card, given)), given)
        stack.pop_all()
    return ladder


def output_format(cards: Sequence[ModelCard], given: PixelFormat) -> PixelFormat:
    """Returns the layout of results: that of the frames, where a model's result can have it.

    A YUV frame stays one, so that models that are off cost nothing; a grey one gets colour from a model
    that makes colours; RGB that a luma model enlarges becomes YUV.
    """
    format = given
    for card in cards:
        if card.input_colour != "luma":
            # Later models see RGB; the frames' own family is restored at the end.
            format = given if given.family == "yuv" else PixelFormat("rgb", given.bits)
        elif format.family == "rgb":
            format = PixelFormat("yuv", given.bits, (2, 2) if card.scale > 1 else (1, 1))
    return format


def inner_size(width: int, height: int, part: Fraction) -> tuple[int, int]:
    """Returns that part of each side, in whole steps."""
    return tuple(max(STEP * round(side * part / STEP), STEP) for side in (width, height))  # pyright: ignore[reportReturnType]


def key_of(frame: Frame) -> Key:
    """Returns the key of the engines that a frame needs."""
    return frame.width, frame.height, frame.format.bits


def luma_of(frame: Frame) -> Array:
    """Returns (H, W) brightness; of RGB in full range, which is as good a guide."""
    plane = np.ascontiguousarray(frame.planes[0])
    if frame.format.family != "rgb":
        return plane
    return np.asarray(cv2.cvtColor(plane, cv2.COLOR_RGB2GRAY))


def sample_of(info: VideoInfo) -> Frame:
    """Returns a frame with a source's stated properties, of no colour and some texture."""
    rng = np.random.default_rng(0)
    planes: list[Array] = []
    for shape in info.format.plane_shapes(info.width, info.height):
        noise = rng.integers(info.format.peak // 4, info.format.peak // 2, shape)
        planes.append(noise.astype(info.format.dtype))
    return Frame(
        planes=tuple(planes),
        format=info.format,
        pts=0,
        time_base=info.time_base,
        colour=info.colour,
        aspect=info.aspect,
        rotation=info.rotation,
    )


def smaller_models(name: str, card: ModelCard) -> tuple[str, ...]:
    """Returns the zoo's smaller upscalers of the same scale and colour, from the larger one down."""
    import onnx

    from ..backends.model import find_model
    from ..card import read_card
    from ..zoo import zoo_models

    weight = find_model(name).stat().st_size
    found: dict[str, int] = {}
    for other, files in zoo_models().items():
        size = files["fp32"].stat().st_size
        if size >= weight or other == name:
            continue
        theirs = read_card(onnx.load(str(files["fp32"]), load_external_data=False))
        if theirs is not None and (theirs.task, theirs.scale, theirs.input_colour) == (
            card.task, card.scale, card.input_colour
        ):  # fmt: skip
            found[other] = size
    return tuple(sorted(found, key=lambda other: -found[other]))


def _chains(
    models: Sequence[str], card: Callable[[str], ModelCard], smaller: Smaller
) -> Iterator[tuple[str, ...]]:
    """Yields the models; the models with smaller upscalers in turn; none."""
    chain = tuple(models)
    yield chain
    upscalers = [name for name in chain if card(name).scale > 1]
    others = {name: list(smaller(name, card(name))) for name in upscalers}
    for turn in range(max(map(len, others.values()), default=0)):
        choice = {name: those[min(turn, len(those) - 1)] for name, those in others.items() if those}
        yield tuple(choice.get(name, name) for name in chain)
    if upscalers:
        yield tuple(name for name in chain if name not in upscalers)


def _rungs(
    chains: Sequence[tuple[str, ...]], card: Callable[[str], ModelCard], given: Frame
) -> Iterator[Rung]:
    full = chains[0]
    for chain in chains:
        if chain == full and full:
            yield Rung(name="full", models=chain)
        elif full:
            parts = [name for name in chain if name not in full or len(chain) < len(full)]
            enlarges = any(card(name).scale > 1 for name in chain)
            name = " and ".join(parts) if enlarges else " and ".join([*chain, "plain resize"])
            yield Rung(name=name, models=chain)
    cheapest = chains[-1]
    styled = any(card(name).input_colour != "luma" for name in cheapest)
    least = max([SMALLEST, *(card(name).min_size for name in cheapest)])
    # Moved from one frame before, a result of full size looks nearly as if it were made for the frame;
    # strokes of half the size do not. Hence every second frame in full is above half the size.
    for part, every in PARTS if styled else ():
        if part == 1 or min(inner_size(given.width, given.height, part)) >= least:
            name = "full size" if part == 1 else f"{part} size"
            name += f", every {ORDINALS.get(every, f'{every}th')} frame" if every > 1 else ""
            yield Rung(name=name, models=cheapest, inner=part, every=every)
    yield Rung(name=OFF)


def _timed(work: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of some calls, after one that compiles."""
    work()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < TRIES and (not times or time.perf_counter() - begin < SECONDS):
        times.append(_once(work))
    # The least, not the median: other load on the machine is left to the governor.
    return min(times)


def _once(work: Callable[[], object]) -> float:
    """Returns the seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
