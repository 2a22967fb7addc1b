"""PostProcess: neural networks as the last pass of a game's frame."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ..adaptive.ladder import Opener
from ..adaptive.processor import Tell
from ..backends import Precision
from ..errors import EngineError
from ..stages.blend import Blending
from .conventions import (  # fmt: skip
    DepthConvention,
    Jitter,
    MotionConvention,
    depth_array,
    jitter_of,
    motion_array,
    reactive_array,
)
from .frame_pass import Painter, Plan, no_smaller, scale_of, zoo_opener
from .picture import (  # fmt: skip
    ColourEncoding,
    Order,
    Picture,
    Pictures,
    mask_of,
    out_array,
    picture_array,
    picture_type,
)
from .pipeline import Finished, Given, Maker, Pipeline, Reader, Sparing, Vectors
from .stats import Log, PostStats, Shown, Tally

PATIENCE = 2.0
"""Seconds that `close` waits for the models."""

Mode = Literal["inline", "pipelined"]


class PostProcess:
    """Restyles or upscales the picture of a game, as the last pass before its user interface is drawn.

    ```
    with PostProcess("starry-night", (640, 360)) as post:
        while playing:
            color, motion, depth = render()              # NumPy arrays, or DLPack in main memory
            show(post(color, motion, depth, reset=camera_has_cut))
            draw_interface()                             # over it: no network touches text
    ```

    Pictures are (H, W, 3 or 4), uint8 or float16 or float32 of 0..1, of any strides. `inline` returns
    this call's picture, `pipelined` that of the call before: the models then work beside the game, in
    threads of lower priority, and a call only copies its inputs and never waits for the models. Where
    they are not ready, the newest result is returned again.

    A call always returns a picture: while models are opened, fail, hang or are late, it is the given
    one (at `output_size`), or an earlier result warped by `motion` where stability is above 0.

    The returned picture stays valid as long as you reference it; its memory is reused afterwards. It is
    `color` itself where nothing was done to it (`off`, models that are not ready, the model "identity"
    without stability), in `pipelined`, unless `off`, a copy; `last.passed` says so.

    Used from one thread; `swap`, `stats` and the attributes from any.
    """

    def __init__(
        self,
        models: str | Sequence[str],
        size: tuple[int, int],
        *,
        mode: Mode = "inline",
        budget_ms: float | None = None,
        rate: float = 60.0,
        order: Order = "rgba",
        dtype: npt.DTypeLike = np.uint8,
        flipped: bool = False,
        encoding: ColourEncoding = "srgb",
        motion: MotionConvention | None = None,
        depth: DepthConvention | None = None,
        stability: float = 0.9,
        flow: bool = False,
        strength: float | None = None,
        keep_colours: bool | None = None,
        mask: Any = None,
        backend: str = "auto",
        precision: Precision = "auto",
        wait: bool = True,
        opener: Opener | None = None,
    ) -> None:
        """`size` is (width, height) of the pictures that come in, about `rate` times a second.

        `budget_ms` is held by doing less: fewer pixels, smaller models, every second frame, none; and
        no call of `inline` waits for models for longer than 1.25 times it. None always does the best;
        even then frames pass once models have taken four times as long as at the start, and 0.25 s. In
        `pipelined` the budget is the time of a frame beside the game; while models are late there, the
        newest result is returned again, until after two seconds they are given up and frames pass.

        `order` is of three or four channels; alpha passes unchanged. `flipped` says that all arrays
        begin with the picture's last row, as OpenGL's; results do, too. `dtype` is the type of the
        first pictures; another one, or another size, makes pictures pass until the models are open for
        it. `encoding` is that of float pictures, see `Pictures`. `motion` and `depth` are the engine's
        conventions.

        `stability` (0..1) blends results with the history, warped by `motion`; without motion there is
        none, unless `flow` estimates motion from the pictures, for some milliseconds a frame.

        `strength` (0..1) is the part of the models' result in the picture, `keep_colours` leaves it its
        own chroma under the result's luma; None is what the models' cards say. Where `mask` is black
        the picture is untouched, feathered, where it is white it is the models': a picture file, or an
        array (h, w), its rows in the order of all others, of unsigned integers, floats of 0..1 or
        booleans, in the shape of the pictures. "alpha" is each picture's own alpha, not feathered:
        where that is 0 the picture is untouched.

        `wait` False opens the models beside the game, while pictures pass. `opener` opens engines by
        name in place of `open_engine`; with `wait` False their scale is unknown beforehand:
        `output_size` is `size` then, and their results are resized to it.

        Raises ValueError for options out of their range, SourceError for a mask that cannot be read or
        has another shape, and the errors of opening the models: ModelError, EngineError.
        """
        names = (models,) if isinstance(models, str) else tuple(models)
        _check(size, mode=mode, budget_ms=budget_ms, rate=rate)
        self._log, self._tally = Log(), Tally()
        self._offs = 0
        """The number of calls that returned the picture itself and did nothing else."""
        self._epoch = 0
        self._before: Finished | None = None
        self._last: Shown | None = None
        """The facts about the last call's picture; None for a call while off, and before the first."""
        self._size = (int(size[0]), int(size[1]))
        self._kind: tuple[object, ...] = ()
        """Shape and type of the last picture that was processed."""
        self._jitter: Jitter | None = None
        self._called: float | None = None
        self._closed = False
        self.off = False
        """True if pictures are returned as they are, at once; may be set at any time."""
        step = Fraction(rate).limit_denominator(1000)
        blending = Blending(
            strength=strength,
            keep_colours=keep_colours,
            mask=mask_of(mask, self._size, flipped=flipped),
        )
        by_alpha = blending.mask == "alpha"
        if by_alpha and not order.endswith("a"):
            raise ValueError(f"pictures of order {order!r} have no alpha to be the mask")
        self._pictures = Pictures(order, flipped=flipped, encoding=encoding)
        theirs = Pictures(order, flipped=flipped, encoding=encoding, opacity=by_alpha)
        self._read = Reader(
            theirs, motion or MotionConvention(), depth or DepthConvention(), flipped=flipped,
            rate=step,
        )  # fmt: skip
        plan = Plan(
            rate=step,
            budget=None if budget_ms is None else budget_ms / 1e3,
            prompt=mode == "inline",
            flow=flow,
            opener=opener or zoo_opener(backend, precision),
            smaller=None if opener is None else no_smaller,
        )
        scale = None if wait else 1 if opener else math.prod(map(scale_of, names))
        for note in blending.notes:
            self._log(note)
        self._painter = Painter(names, plan, self._log, scale=scale)
        self.stability, self._painter.blending = stability, blending
        self._maker = Maker(theirs, self._read, self._painter, period=1 / rate)

        deep = picture_type(dtype) != np.uint8

        def begin() -> Sparing:
            (self._painter.open if wait else self._painter.open_beside)(self._size, deep=deep)
            return Sparing(self._maker, theirs)

        self._pipeline = Pipeline(begin, self._painter.failed) if mode == "pipelined" else None
        if mode == "inline":
            begin()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the last picture that came in."""
        return self._size

    @property
    def output_size(self) -> tuple[int, int]:
        """(width, height) of results: `size` times the scale of the first models."""
        scale = self._painter.scale
        return self._size[0] * scale, self._size[1] * scale

    @property
    def stability(self) -> float:
        """The weight of the history, 0..1; 0 turns it off. Raises ValueError when set out of range."""
        return self._painter.stability

    @stability.setter
    def stability(self, value: float) -> None:
        self._painter.stability = _part(value, "stability")

    @property
    def strength(self) -> float:
        """The part of the models' result in the picture, 0..1. Raises ValueError beyond."""
        return self._painter.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._blend(strength=_part(value, "strength"))

    @property
    def keep_colours(self) -> bool | None:
        """True if the picture keeps its own chroma, None if the models' cards decide."""
        return self._painter.blending.keep_colours

    @keep_colours.setter
    def keep_colours(self, value: bool | None) -> None:
        self._blend(keep_colours=value)

    def _blend(self, **changed: Any) -> None:
        self._painter.blending = replace(self._painter.blending, **changed)

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names, in order; those before a swap until it is done."""
        return self._painter.models

    @property
    def rung(self) -> str:
        """The present rung, in a few words."""
        return "off" if self.off else self._painter.rung

    @property
    def last(self) -> Shown:
        """The facts about the picture that the last call returned; index -1 before the first."""
        return self._last or Shown(index=self._tally.calls + self._offs - 1, passed=True)

    def swap(self, models: str | Sequence[str]) -> None:
        """Switch to other models once they are open; the present ones work until then, and for good
        where that fails. `output_size` stays: results of another scale are brought to it."""
        self._painter.swap((models,) if isinstance(models, str) else tuple(models))

    def interpret(self, motion: MotionConvention, depth: DepthConvention) -> None:
        """Set the conventions from the next call on; in `pipelined` for frames under way, too."""
        self._read.motion, self._read.depth = motion, depth

    def listen(self, tell: Tell) -> None:
        """Call `tell` with failures and changes from now on, each a line of text, from any thread; at
        once with what is to be said of the mask."""
        self._log.listen(tell)
        for note in self._painter.blending.notes:
            tell(note)

    def stats(self) -> PostStats:
        """Returns the figures so far."""
        pipeline = self._pipeline
        tally, offs = self._tally, self._offs
        latency = tally.latency
        return PostStats(
            calls=tally.calls + offs,
            fresh=tally.fresh,
            carried=tally.carried,
            passed=tally.passed + offs,
            repeated=tally.repeated,
            dropped=0 if pipeline is None else pipeline.dropped,
            finished=self._maker.finished if pipeline is None else pipeline.finished,
            call=tally.call.percentiles(),
            work=self._maker.work,
            latency=(latency[0] + offs, *latency[1:]),
            rung=self.rung,
            events=self._log.events,
        )

    def __call__(
        self,
        color: Any,
        motion: Any = None,
        depth: Any = None,
        reset: bool = False,
        *,
        reactive: Any = None,
        jitter: Jitter = (0.0, 0.0),
        out: Any = None,
    ) -> Any:
        """Returns the picture to show for `color`.

        `motion` (h, w, 2) and `depth` (h, w) are floats by the conventions, `reactive` (h, w) 0..1 the
        part of a pixel that the history must not supply (particles, glass), each of any resolution;
        `reset` states a camera cut; `jitter` is the projection's in this frame, in pixels, x right, y
        down. `out` gets the result and is returned: an array of `output_size` and of the type and
        channels of `color`, which may be `color` itself.

        Raises ValueError for arrays of a wrong shape, type or device, EngineError after `close`. All
        values are valid: pixels whose motion is not finite or leaves the picture have no history.
        """
        if self._closed:
            raise EngineError("this post-process is closed: make a new one")
        if self.off and self._jitter is not None:
            self._restart()
        if self.off and out is None and self._painter.scale == 1:
            # Run once in a frame, cold, every line counts: 10 us here, 40 with all that `_show` does.
            self._offs += 1
            self._last = self._called = None
            shape = getattr(color, "shape", ())
            if len(shape) == 3:
                self._size = (shape[1], shape[0])
            return color
        begin = time.perf_counter()
        taken = picture_array(color)
        target = None if out is None else self._target(out, taken)
        given = self._given(taken, motion, depth, reset, reactive, jitter)
        made = self._pass(color, given, target) if self.off else self._made(color, given, target)
        return self._show(made[0] if out is None else out, made[1], begin)

    def close(self) -> None:
        """Close the models. Closing twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if self._pipeline is not None:
            self._pipeline.close(PATIENCE)
        else:
            self._painter.close(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _target(self, out: Any, color: Picture) -> Picture:
        """Returns the array for the result of that picture, checked."""
        scale = self._painter.scale
        height, width, channels = color.shape
        return out_array(out, (height * scale, width * scale, channels), color.dtype)

    def _given(
        self, color: Picture, motion: Any, depth: Any, reset: bool, reactive: Any, jitter: Any
    ) -> Given:
        """Returns the inputs of a call. All are checked before anything changes, so that a refused call
        has no effect."""
        vectors = None if motion is None else motion_array(motion)
        depths = None if depth is None else depth_array(depth)
        mask = None if reactive is None else reactive_array(reactive)
        offset = jitter_of(jitter)
        kind = (color.shape, color.dtype)
        if kind != self._kind:
            self._restart()
            self._kind, self._size = kind, (color.shape[1], color.shape[0])
        before, self._jitter = self._jitter, offset
        moved = () if vectors is None else (Vectors(vectors, offset, before or offset),)
        return Given(
            index=self._tally.calls + self._offs,
            epoch=self._epoch,
            color=color,
            vectors=moved,
            depth=depths,
            reactive=mask,
            reset=reset or before is None,
        )

    def _restart(self) -> None:
        """Forget everything before the next picture."""
        self._epoch += 1
        self._jitter = None

    def _made(self, color: Any, given: Given, target: Picture | None) -> tuple[Any, Shown]:
        if self._pipeline is not None:
            return self._piped(self._pipeline, color, given, target)
        made = self._maker(given, target)
        shown = Shown(index=given.index, passed=made.passed, carried=made.carried)
        return (color if made.picture is given.color else made.picture), shown

    def _pass(self, color: Any, given: Given, target: Picture | None) -> tuple[Any, Shown]:
        made = self._pictures.enlarged(given.color, self.output_size, target)
        return (color if made is given.color else made), Shown(index=given.index, passed=True)

    def _piped(
        self, pipeline: Pipeline, color: Any, given: Given, target: Picture | None
    ) -> tuple[Any, Shown]:
        newest, before = pipeline.newest, self._before
        if not self._painter.follows(moves=bool(given.vectors)):
            given = given.bare
        pipeline.put(given.kept(self._pictures))
        if newest is None or newest.given.epoch != given.epoch:
            picture, shown = self._pass(color, given, target)
            # The game draws into the arrays that it gets, and renders into those that it gives.
            return (self._pictures.copy(given.color) if picture is color else picture), shown
        self._before = newest
        again = newest is before
        shown = Shown(
            index=newest.given.index,
            latency_frames=given.index - newest.given.index,
            passed=newest.passed,
            repeated=again,
            carried=newest.carried,
        )
        # The game may have drawn into the array that it got the last time.
        kept = newest.picture if newest.spare is None else newest.spare
        if target is not None:
            np.copyto(target, kept)
        return (self._pictures.copy(kept) if again else newest.picture), shown

    def _show(self, picture: Any, shown: Shown, begin: float) -> Any:
        """Count the picture, and return it."""
        self._last = shown
        self._tally.add(shown)
        if self._called is not None:
            self._maker.came(begin - self._called)
        self._called = begin
        self._tally.call.add(time.perf_counter() - begin)
        return picture


def _check(size: tuple[int, int], *, mode: str, budget_ms: float | None, rate: float) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"a size of {size} is none: give (width, height) in pixels")
    if mode not in ("inline", "pipelined"):
        raise ValueError(f"a mode {mode!r} is unknown: 'inline' or 'pipelined'")
    if budget_ms is not None and not 0 < budget_ms < 1e4:
        raise ValueError(f"a budget of {budget_ms} ms cannot be held: give more than 0, or None")
    if not 1 <= rate <= 1000:
        raise ValueError(f"a rate of {rate} frames per second is not within 1..1000")


def _part(value: float, what: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"a {what} of {value} is not within 0..1")
    return float(value)
