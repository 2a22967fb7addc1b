"""Painter: the processing of a game's frames: models on a ladder, then their history."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import inf

from ..adaptive.background_open import Opening
from ..adaptive.executor import STUCK, Patience
from ..adaptive.ladder import Key, Ladder, Opener, Smaller, key_of, open_ladder, sample_of
from ..adaptive.ladder_processor import LadderProcessor
from ..adaptive.processor import Tell
from ..backends import Precision, open_engine
from ..backends.identity import NAME as IDENTITY
from ..card import CardFlags, ModelCard
from ..frame import RGB, Frame, PixelFormat, VideoInfo
from ..stages.blend import Blending
from ..stages.geometry import Shape
from ..worker import Channel
from .picture import DEEP, FULL

STAND_IN = 0.25
"""Seconds, or three budgets, after the models' first late frame in which the last result, warped, is
shown instead, if somebody waits for frames."""
FROZEN = STUCK
"""Seconds at least that models beside the game may take for a frame: a picture that stands still for so
long is noticed, but less than one that changes between styled and plain on a busy machine."""
SLACK = 1.25
"""Factor of the budget that a frame waits for the models before it is shown without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The fixed settings of a painter."""

    rate: Fraction
    """Approximate frames per second, until they are measured."""
    budget: float | None = None
    """Seconds that the governor holds; None for always the best rung, however long it takes."""
    prompt: bool = True
    """True if somebody waits for each frame, which the budget then limits."""
    flow: bool = False
    """True if motion is estimated from the pictures where a frame brings none."""
    opener: Opener
    smaller: Smaller | None = None


@dataclass(frozen=True, slots=True)
class Painted:
    """The result for a frame."""

    frame: Frame | None
    """RGB of the frame's depth at the output's size; None where the frame passes."""
    carried: bool = False
    """True if it is an earlier result, warped."""
    late: bool = False
    """True if it passes since the models are not done yet, and nobody waits for it: the last result may
    be shown again until they are."""


class Painter:
    """Makes every frame into one that is shown, or lets it pass. Used from one thread, except for its
    settings.

    Results have the size of frames times `scale`, whatever models follow the first ones. Frames of
    another size or depth pass until the models are open for them, in the background.
    """

    def __init__(self, models: Sequence[str], plan: Plan, tell: Tell, *, scale: int | None) -> None:
        """`scale` None is that of the models, known once they are open."""
        self.stability = 0.9
        """The weight of the history, 0..1; any thread may set it."""
        self.blending = Blending()
        """How results and frames become one picture; any thread may set it."""
        self._plan, self._tell, self._scale = plan, tell, scale
        self._models = tuple(models)
        self._processor: LadderProcessor | None = None
        self._opening = Opening[LadderProcessor]()
        self._asked = Channel[tuple[str, ...]]("oldest")
        """The models of a swap that came while none were open."""
        self._key: Key | None = None
        self._closed = False
        self._said = ""

    @property
    def scale(self) -> int:
        """The results' size over the frames'; 1 until it is known."""
        return self._scale or 1

    @property
    def strength(self) -> float:
        """The part of the result in the picture, 0..1; that of the models' cards where nothing else was
        asked for, 1 until they are known."""
        asked, processor = self.blending.strength, self._processor
        if asked is not None:
            return asked
        return 1.0 if processor is None else processor.strength

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names, in order; those before a swap until it is done."""
        processor = self._processor
        return self._models if processor is None else processor.models

    @property
    def rung(self) -> str:
        """The present rung."""
        processor = self._processor
        if self._closed:
            return "closed"
        return "off: the models are being opened" if processor is None else processor.rung

    def open(self, size: tuple[int, int], *, deep: bool) -> None:
        """Open the models for frames of that (width, height), 16 bits deep or 8, and wait for it.

        Raises what opening them does.
        """
        sample = self._sample(size, DEEP if deep else RGB)
        self._take(self._opened(sample, self._models), key_of(sample))

    def open_beside(self, size: tuple[int, int], *, deep: bool) -> None:
        """Open the models in the background, and retry where it fails."""
        self._follow(self._sample(size, DEEP if deep else RGB))

    def swap(self, models: Sequence[str]) -> None:
        """Switch to other models as soon as they are open; from any thread."""
        processor = self._processor
        if processor is not None:
            processor.swap(models)
        else:
            self._asked.put(tuple(models))  # the next frame opens these

    def history(self, *, moves: bool) -> bool:
        """Returns whether frames are stabilised; `moves` says whether they bring motion."""
        return self.stability > 0 and (moves or self._plan.flow)

    def follows(self, *, moves: bool) -> bool:
        """Returns whether motion and depth are used at all: by the history, or by a rung that warps
        results."""
        return self.history(moves=moves) or self._carries

    @property
    def _carries(self) -> bool:
        """True if there may be a rung on which results are warped."""
        processor = self._processor
        governed = self._plan.budget is not None
        return governed and (processor is None or processor.carries)

    def plain(self, *, moves: bool) -> bool:
        """Returns whether a frame needs no processing: it is its own result, or the models are off."""
        processor = self._processor
        if processor is None or self.scale != 1:
            return False
        processor.take_opened()
        same = all(name == IDENTITY for name in processor.models)
        return (same and not self.history(moves=moves)) or self.strength <= 0

    def __call__(self, frame: Frame) -> Painted:
        """Returns the result for a frame. It never raises for one: a frame that cannot be processed
        passes."""
        self._exchange()
        if key_of(frame) != self._key:
            self._follow(frame)
        processor = self._processor
        if processor is not None:
            processor.blending = self.blending
        if processor is None or self.strength <= 0:
            self.forget()
            return Painted(None)
        history = self.history(moves=frame.motion is not None)
        processor.steady.strength = self.stability if history else 0.0
        made = processor.process(frame)
        if made.passed:
            return Painted(None, late=made.late and not self._plan.prompt)
        return Painted(made.frame, carried=made.repeated)

    def failed(self, error: Exception) -> None:
        """Report once the unexpected error for which a frame passes, and start again."""
        text = f"a frame passed: {type(error).__name__}: {error}"
        if text != self._said:
            self._said = text
            self._tell(text)
        self.forget()

    def observe(self, seconds: float, *, period: float) -> None:
        """Record the seconds that the last frame took, and those between two frames."""
        if self._processor is not None:
            self._processor.observe(seconds, period=period)

    def forget(self) -> None:
        """Forget everything before the next frame."""
        if self._processor is not None:
            self._processor.steady.forget()

    def close(self, patience: float = 2.0) -> None:
        """Close the engines for good, waiting for at most `patience` seconds."""
        self._closed = True
        self._leave(patience)

    def _leave(self, patience: float) -> None:
        self._opening.close()
        processor, self._processor = self._processor, None
        if processor is not None:
            processor.close(patience)

    def _exchange(self) -> None:
        asked = self._asked.take(0.0) if len(self._asked) else None
        if asked is not None:
            if self._processor is not None:
                self._processor.swap(asked)
            else:
                self._models, self._key = asked, None
                self._opening.close()
        opened = self._opening.take()
        if opened is not None and self._key is not None:
            self._take(opened, self._key)
            self._tell(f"{' and '.join(self.models) or 'no model'} at work")

    def _take(self, opened: LadderProcessor, key: Key) -> None:
        self._leave(0.0)
        self._processor, self._key = opened, key
        self._scale = self._scale or opened.shape.width // key[0]
        opened.listen(self._tell)

    def _follow(self, frame: Frame) -> None:
        """Open the models for frames like that one; frames pass until then."""
        if self._processor is not None:
            self._tell(f"frames are {frame.width}x{frame.height} in {frame.format.bits} bits now")
        self._models, self._key = self.models, key_of(frame)
        self._leave(0.0)
        self.forget()
        models, sample = self._models, self._sample((frame.width, frame.height), frame.format)

        def failed(error: Exception, again: float | None) -> None:
            self._tell(f"{' and '.join(models)} cannot be opened: {error}; again in {again or 0:g} s")

        self._opening.begin(lambda: self._opened(sample, models), failed, retry=True)

    def _opened(self, sample: Frame, models: tuple[str, ...]) -> LadderProcessor:
        plan = self._plan
        shape: Shape | None = None
        if self._scale is not None:
            width, height = sample.width * self._scale, sample.height * self._scale
            shape = replace(Shape.of(sample), width=width, height=height)

        def open(names: Sequence[str], given: Frame, wanted: Shape | None) -> Ladder:
            return open_ladder(
                names,
                given,
                plan.opener,
                shape=wanted or shape,
                format=given.format,
                smaller=plan.smaller,
            )

        late = None if plan.budget is None or not plan.prompt else SLACK * plan.budget
        stand_in = max(STAND_IN, 3 * (plan.budget or 0.0)) if plan.prompt else inf
        least = 0.0 if plan.prompt else FROZEN
        patience = Patience(seconds=late, least=least, stand_in=stand_in, once=True)
        return LadderProcessor(
            models,
            sample,
            open,
            period=float(1 / plan.rate),
            deadline=plan.budget,
            governed=plan.budget is not None,
            patience=patience,
        )

    def _sample(self, size: tuple[int, int], format: PixelFormat) -> Frame:
        width, height = size
        rate = self._plan.rate
        return sample_of(
            VideoInfo(
                width=width, height=height, format=format, rate=rate, time_base=1 / rate, colour=FULL
            )
        )


def zoo_opener(backend: str, precision: Precision) -> Opener:
    """Returns an opener of engines by name, as `open_engine` does, for the shortest latency."""
    return partial(open_engine, backend=backend, precision=precision, hint="latency")


def no_smaller(name: str, card: ModelCard) -> tuple[str, ...]:
    """Returns no models: what a custom opener opens besides is unknown."""
    del name, card
    return ()


def scale_of(model: str) -> int:
    """Returns a model's scale by its card, without an engine. Raises ModelError if unknown."""
    if model == IDENTITY:
        return 1
    from ..backends.model import find_model, load_model
    from ..backends.open import trial_runner

    path = find_model(model)
    if path.suffix == ".engine":
        from ..backends.nvidia.engine_file import load

        return load(path)[1].card.scale
    return load_model(path, flags=CardFlags(), trial=trial_runner()).card.scale
