"""Models as a filter of VapourSynth: `apply` takes a clip and gives a clip.

Public as `velatura.vapoursynth`. VapourSynth itself is not imported: a clip brings what is needed.
"""

import atexit
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .backends import Engine, Fit, Precision, open_engine
from .card import CardFlags
from .colour import guess_matrix, to_format
from .errors import EngineError, ModelError, SourceError
from .frame import Colour, Family, Frame, Matrix, PixelFormat, Siting
from .stages import Neural
from .worker import DaemonThread

# The properties hold code points of ITU-T H.273; 2 is unspecified.
_MATRICES: dict[int, Matrix] = {
    1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020",
}  # fmt: skip
_SITINGS: dict[int, Siting] = {0: "left", 1: "center", 2: "topleft"}
_FAMILIES: dict[str, Family] = {"YUV": "yuv", "GRAY": "gray", "RGB": "rgb"}

AHEAD = 8
"""Frames at most that are begun before they are asked for."""

WAITING = 64
"""Results that may wait for their frame to be asked for; VapourSynth asks for fewer at a time."""

LEAVING = 10.0
"""Seconds that a process waits at its end for frames on their way: a thread that is cut off in an
inference library, or in VapourSynth as it calls Python, crashes or blocks it."""

QUIET = 0.3
"""Seconds without a call of VapourSynth's after which none is expected at a process's end."""


def apply(
    clip: Any,
    models: str | Path | Sequence[str | Path],
    *,
    backend: str = "auto",
    precision: Precision = "auto",
    flags: CardFlags | None = None,
    fit: Fit = "tile",
) -> Any:
    """Returns a clip that shows `clip` after the models, one after the other.

    `clip` is a `vapoursynth.VideoNode` of YUV, RGB or GRAY with 8 to 16 bits in whole numbers; the
    result has its format and length, and its size times the models' scales. Matrix, range and place of
    chroma are read from each frame's properties; without them they are guessed as VapourSynth and
    players do. `models`, `backend`, `precision`, `flags` and `fit` are as in `open_engine`. As many
    frames are in flight as VapourSynth asks for in parallel.

    Raises SourceError for a clip of variable format or size, or of float samples, and what
    `open_engine` raises. A frame that cannot be processed, such as an interlaced one, is an error of
    VapourSynth's.
    """
    format = _format_of(clip)
    names = [models] if isinstance(models, str | Path) else list(models)
    if not names:
        raise ModelError("no model is named: apply(clip, 'upscale-2x')")
    with ExitStack() as stack:
        engines = [
            stack.enter_context(open_engine(name, backend, precision=precision, flags=flags, fit=fit))
            for name in names
        ]
        line = Line(engines, format)
        stack.pop_all()  # from here on the line closes them
    scale = int(np.prod([engine.card.scale for engine in engines], dtype=int))
    blank = clip.std.BlankClip(width=clip.width * scale, height=clip.height * scale, keep=True)
    needs_rgb = any(engine.card.input_colour != "luma" for engine in engines)

    def begin(n: int, f: Any) -> Any:
        line.begin(n, _frame_of(f, n, format, needs_rgb=needs_rgb))
        return f

    def finish(n: int, f: list[Any]) -> Any:
        source, empty = f[:2]
        result = line.finish(n)
        if result is None:  # its frame was asked for again, and `begin` was not
            line.begin(n, _frame_of(source, n, format, needs_rgb=needs_rgb))
            result = line.finish(n)
        assert result is not None
        return _filled(empty.copy(), result, source)

    # VapourSynth calls a filter in Python for one frame at a time. So there are two: the first hands
    # frames over and returns at once, for as many as are asked for, while the second waits. It asks for
    # the next ones, too: between a result and the next request the engine would have nothing to do.
    begun = clip.std.ModifyFrame(clip, begin)
    # What was begun for an earlier frame must not be begun again for its own.
    begun = begun.std.SetVideoCache(mode=1, fixedsize=1, maxsize=WAITING) or begun
    ahead = min(sum(engine.in_flight for engine in engines), AHEAD, clip.num_frames - 1)
    later = [begun.std.Trim(first=i) for i in range(1, ahead + 1)]
    return blank.std.ModifyFrame([begun, blank, *later], finish)


def _format_of(clip: Any) -> PixelFormat:
    """Returns the clip's pixel format. Raises SourceError for one that models do not take."""
    format = clip.format
    if format is None or not clip.width or not clip.height or format.color_family.name == "UNDEFINED":
        raise SourceError(
            "the clip's format or size varies from frame to frame: make it one first, as by "
            "clip.resize.Bicubic(width=1280, height=720, format=vs.YUV420P8)"
        )
    family, bits = _FAMILIES.get(format.color_family.name), int(format.bits_per_sample)
    if family is None or format.sample_type.name != "INTEGER" or not 8 <= bits <= 16:
        raise SourceError(
            f"the clip is {format.name}: models take YUV, RGB and GRAY of 8 to 16 bits in whole "
            "numbers; convert it first, as by clip.resize.Bicubic(format=vs.RGB48)"
        )
    return PixelFormat(family, bits, (1 << int(format.subsampling_w), 1 << int(format.subsampling_h)))


def _frame_of(source: Any, n: int, format: PixelFormat, *, needs_rgb: bool) -> Frame:
    """Returns a view of VapourSynth's frame, with its colours. Raises SourceError."""
    props = source.props
    if int(props.get("_FieldBased", 0)):
        raise SourceError(
            f"frame {n} is interlaced: deinterlace it before, or say that it is not: "
            "clip.std.SetFieldBased(0)"
        )
    planes = [np.asarray(source[i]) for i in range(source.format.num_planes)]
    if format.family == "rgb":
        return Frame(
            planes=(np.dstack(planes),), format=format, pts=n, time_base=Fraction(1), index=n,
            colour=Colour(matrix=guess_matrix(source.height)),
        )  # fmt: skip
    matrix = int(props.get("_Matrix", 2))
    if matrix not in (2, *_MATRICES) and needs_rgb:
        raise SourceError(
            f"frame {n} has the matrix {matrix} (_Matrix), none of BT.601, BT.709 and BT.2020: "
            "convert it before, as by clip.resize.Bicubic(matrix=1)"
        )
    siting = int(props.get("_ChromaLocation", 0))
    if siting not in _SITINGS:
        raise SourceError(
            f"frame {n} has its chroma at place {siting} (_ChromaLocation), not at the left, centre or "
            "top left: convert it before, as by clip.resize.Bicubic(chromaloc=0)"
        )
    # `_Range` is the newer property, with 1 for full as in H.273; in `_ColorRange` 0 is full.
    full = int(props["_Range"]) == 1 if "_Range" in props else int(props.get("_ColorRange", 1)) == 0
    colour = Colour(
        matrix=_MATRICES.get(matrix, guess_matrix(source.height)),
        range="full" if full else "limited",
        siting=_SITINGS[siting],
    )
    return Frame(
        planes=tuple(planes), format=format, pts=n, time_base=Fraction(1), index=n, colour=colour
    )


def _filled(target: Any, result: Frame, source: Any) -> Any:
    """Returns `target` with the result's samples and the source's properties."""
    packed = result.planes[0] if result.format.family == "rgb" else None
    for i in range(target.format.num_planes):
        plane = result.planes[i] if packed is None else packed[:, :, i]
        np.copyto(np.asarray(target[i]), plane)
    for key, value in source.props.items():
        target.props[key] = value
    return target


class _Item(NamedTuple):
    """A frame on its way, and where its end is waited for."""

    frame: Frame
    format: PixelFormat
    colour: Colour
    done: "Future[Frame]"


_Inbox = queue.SimpleQueue[_Item | None]


class Line:
    """Engines in a row, each in a thread of its own with several frames in flight.

    It ends with the last reference to it, as when VapourSynth frees the filters, or with the process:
    the threads finish what they have and close the engines.
    """

    def __init__(self, engines: Sequence[Engine], format: PixelFormat) -> None:
        self._format = format
        self._results: dict[int, Future[Frame]] = {}
        self._lock = threading.Lock()
        self._calls, self._called = 0, time.monotonic()
        inboxes: list[_Inbox] = [queue.SimpleQueue() for _ in engines]
        self._inbox = inboxes[0]
        threads: list[DaemonThread] = []
        for i, engine in enumerate(engines):
            forward = inboxes[i + 1].put if i + 1 < len(inboxes) else None
            # The thread knows nothing of the line, which would live as long as it otherwise.
            work = partial(_serve, Neural(engine), inboxes[i], forward)
            threads.append(DaemonThread(work, f"velatura-vs-{i}"))
            threads[-1].start()
        self._end = weakref.finalize(self, _end, self._inbox, threads)
        self._end.atexit = False
        atexit.register(_leave, weakref.ref(self))

    def begin(self, n: int, frame: Frame) -> None:
        """Start on frame `n`; one that is on its way is not started again."""
        with self._calling():
            done: Future[Frame] = Future()
            with self._lock:
                if n in self._results:
                    return
                self._results[n] = done
                while len(self._results) > WAITING:
                    self._results.pop(next(iter(self._results)))
            self._inbox.put(_Item(frame, self._format, frame.colour, done))

    def finish(self, n: int) -> Frame | None:
        """Waits for frame `n` and returns it once; None where it was not begun. Raises the error that
        met it."""
        with self._calling():
            with self._lock:
                done = self._results.pop(n, None)
            return None if done is None else done.result()

    def leave(self) -> None:
        """End at the process's end, when VapourSynth has got the frames that it still waits for."""
        until = time.monotonic() + LEAVING
        while time.monotonic() < until:
            with self._lock:
                if not self._calls and time.monotonic() - self._called > QUIET:
                    break
            time.sleep(QUIET / 10)
        self._end()

    @contextmanager
    def _calling(self) -> Generator[None]:
        with self._lock:
            if not self._end.alive:
                raise EngineError("the process ends: no further frame is made")
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls, self._called = self._calls - 1, time.monotonic()


def _leave(line: "weakref.ref[Line]") -> None:
    alive = line()
    if alive is not None:
        alive.leave()


def _end(inbox: _Inbox, threads: Sequence[DaemonThread]) -> None:
    """Let the threads finish and end, and wait for it; but not in one of them, which has just dropped
    the last reference."""
    inbox.put(None)
    if threading.current_thread() not in threads:
        for thread in threads:
            thread.outwait(LEAVING)


def _serve(stage: Neural, inbox: _Inbox, forward: "Callable[[_Item | None], None] | None") -> None:
    """The work of a thread: frames through one engine, until None comes."""
    running: deque[tuple[_Item, Callable[[], Frame]]] = deque()

    def finish() -> None:
        item, pending = running.popleft()
        try:
            frame = pending()
            if forward is not None:
                forward(item._replace(frame=frame))
                return
            item.done.set_result(to_format(frame, item.format, item.colour))
        except Exception as error:  # for whoever waits for the frame
            item.done.set_exception(error)

    ended = False
    while running or not ended:
        try:
            # With frames on their way, nobody may be waiting for another: the next is taken if it is
            # there.
            item = inbox.get(block=not running) if not ended else None
        except queue.Empty:
            finish()
            continue
        if item is None:
            ended = True
            if running:
                finish()
            continue
        try:
            running.append((item, stage.submit(item.frame)))
        except Exception as error:
            item.done.set_exception(error)
            continue
        if len(running) >= stage.in_flight:
            finish()
    if forward is not None:
        forward(None)
    stage.engine.close()
