"""What comes out of the live processor, whatever happens to the models."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from velatura.runtime.adaptive import executor as running_module
from velatura.runtime.adaptive.ladder import open_ladder
from velatura.runtime.adaptive.ladder_processor import LadderProcessor, open_processor
from velatura.runtime.adaptive.processor import Processed
from velatura.runtime.card import ModelCard
from velatura.runtime.errors import EngineError
from velatura.runtime.frame import GRAY, RGB, YUV420P, YUV444P, Frame, PixelFormat
from velatura.runtime.stages import Blending, Mask

from .engines import STYLE, Shelf, frame, info_of, wait_until

FORMATS = [YUV420P, YUV444P, GRAY, RGB, PixelFormat("yuv", 10, (2, 2)), PixelFormat("rgb", 10)]


class Bench:
    """A processor, its engines, and what it told."""

    def __init__(
        self,
        models: list[str],
        given: Frame | None = None,
        *,
        seconds: float = 0.0,
        soft: ModelCard = STYLE,
        **options: object,
    ) -> None:
        self.shelf = Shelf(soft=soft)
        self.shelf.seconds = seconds
        self.told: list[str] = []
        options.setdefault("period", 1 / 30)
        self.processor = LadderProcessor(
            models, given or frame(),
            lambda names, one, shape: open_ladder(
                names, one, self.shelf, shape=shape, smaller=lambda *_: ()
            ),
            **options,  # type: ignore[arg-type]
        )  # fmt: skip
        self.processor.listen(self.told.append)

    def until(self, said: str, given: Frame | None = None, seconds: float = 30.0) -> list[Processed]:
        """Frames go on until something is told."""
        made: list[Processed] = []
        end = time.monotonic() + seconds
        while not any(said in line for line in self.told):
            assert time.monotonic() < end, f"{said!r} was not told, but {self.told}"
            made.append(self.processor.process(given or frame(len(made))))
            time.sleep(0.01)
        return made


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(["negative"])
    yield made
    made.processor.close()


def is_negative(made: Processed, given: Frame, tolerance: int = 3) -> bool:
    wanted = given.format.peak - given.planes[0].astype(int)
    return bool(np.abs(made.frame.planes[0].astype(int) - wanted).mean() <= tolerance)


def shape(one: Frame) -> tuple[object, ...]:
    return one.width, one.height, one.format, one.colour, one.alpha


def test_frames_are_processed_and_keep_their_times(bench: Bench) -> None:
    given = frame(7)
    made = bench.processor.process(given)
    assert is_negative(made, given)
    assert not made.passed
    assert (made.frame.pts, made.frame.index, made.frame.captured) == (7, 7, given.captured)
    assert made.frame.format == YUV420P
    assert bench.processor.rung == "full"


def test_off_costs_nothing_and_touches_nothing(bench: Bench) -> None:
    bench.processor.off = True
    given = frame()
    assert bench.processor.process(given).frame is given
    calls = len(bench.shelf.opened[0].calls)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(400):
        made = bench.processor.process(given)
        assert made.passed
        assert made.frame is given
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < given.planes[0].nbytes, "nothing is copied"
    assert len(bench.shelf.opened[0].calls) == calls
    bench.processor.off = False
    assert is_negative(bench.processor.process(given), given)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("models", [["negative"], ["double"], ["negative", "double"], []], ids=str)
def test_whatever_goes_in_one_shape_comes_out(format: PixelFormat, models: list[str]) -> None:
    """On, off, failed, on every rung: an encoder would not notice."""
    given = frame(1, (192, 144), format)
    bench = Bench(models, given, governed=False)
    processor = bench.processor
    scale = 2 if "double" in models else 1
    shapes = {shape(processor.process(given).frame)}
    for rung in range(len(processor.rungs)):
        processor._governor.rung = rung  # pyright: ignore[reportPrivateUsage]
        shapes |= {shape(processor.process(frame(k, (192, 144), format)).frame) for k in range(3)}
    processor.off = True
    shapes.add(shape(processor.process(given).frame))
    processor.off = False
    processor.strength = 0.5
    processor.split = 0.3
    shapes.add(shape(processor.process(given).frame))
    if bench.shelf.opened:
        for engine in bench.shelf.opened:
            engine.fail = "broken"
        processor._governor.rung = 0  # pyright: ignore[reportPrivateUsage]
        made = processor.process(given)
        assert made.passed
        shapes.add(shape(made.frame))
    assert len(shapes) == 1
    found = shapes.pop()
    assert found[:2] == (192 * scale, 144 * scale)
    if format.family == "yuv" or (not models):
        assert found[2] == format
    processor.close()


def test_a_failing_model_lets_frames_pass_and_comes_back(bench: Bench) -> None:
    (engine,) = bench.shelf.opened
    engine.fail = "the device is gone"
    given = frame(1)
    made = bench.processor.process(given)
    assert made.passed
    assert made.frame is given
    assert "the device is gone" in bench.told[-1]
    assert "0.5 s" in bench.told[-1]
    begin = time.monotonic()
    bench.until("negative at work")
    assert time.monotonic() - begin > 0.4, "it is not tried again before the pause is over"
    assert is_negative(bench.processor.process(given), given)
    assert engine.closed


def test_a_bug_in_a_model_is_no_black_picture_either(bench: Bench) -> None:
    bench.shelf.opened[0].calls = None  # type: ignore[assignment]
    assert bench.processor.process(frame()).passed
    assert "AttributeError" in bench.told[-1]


def test_reopening_is_tried_again_with_growing_pauses(bench: Bench) -> None:
    bench.shelf.opened[0].fail = "gone"
    bench.shelf.refuse = "still gone"
    bench.processor.process(frame())
    passed = bench.until("again in 2 s")
    assert all(made.passed for made in passed)
    pauses = [line.rsplit("again in ", 1)[1] for line in bench.told if "again in" in line]
    assert pauses == ["0.5 s", "1 s", "2 s"]
    bench.shelf.refuse = None
    bench.until("negative at work")


def test_a_model_that_fails_again_at_once_waits_longer(bench: Bench) -> None:
    bench.shelf.opened[0].fail = "gone"
    bench.until("at work")
    bench.shelf.opened[-1].fail = "gone again"
    bench.processor.process(frame())
    assert "again in 1 s" in bench.told[-1]


def test_a_model_that_never_returns_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_module, "STUCK", 0.6)
    monkeypatch.setattr(running_module, "GRACE", 0.05)
    engine, release = bench.shelf.opened[0], threading.Event()
    engine.hang = release
    begin = time.monotonic()
    made = bench.processor.process(frame())
    assert made.passed
    assert not release.is_set(), "it came back though the model did not"
    passed = bench.until("have not answered")
    assert all(one.passed for one in passed)
    assert time.monotonic() - begin > 0.5
    bench.until("at work")
    given = frame(3)
    assert is_negative(bench.processor.process(given), given)
    assert not engine.closed  # it is in use, if anybody can call it that
    release.set()


def test_a_slow_frame_lets_others_pass_and_its_result_is_thrown_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "GRACE", 0.05)
    engine, release = bench.shelf.opened[0], threading.Event()
    engine.hang = release
    assert bench.processor.process(frame(0)).passed
    assert bench.processor.process(frame(1)).passed
    engine.hang = None
    release.set()
    time.sleep(0.05)
    given = frame(2)
    made = bench.processor.process(given)
    assert made.frame.index == 2
    assert is_negative(made, given)
    assert not [line for line in bench.told if "pass" in line]


def test_a_frozen_picture_starts_the_models_anew(bench: Bench) -> None:
    bench.processor.revive("the picture has frozen")
    assert bench.processor.process(frame()).passed
    assert "the picture has frozen" in bench.told[-1]
    assert wait_until(lambda: len(bench.shelf.opened) == 2)
    assert wait_until(lambda: not bench.processor.process(frame()).passed)


def test_a_swap_neither_stalls_nor_blanks(bench: Bench) -> None:
    bench.shelf.cards["other"] = ModelCard(name="other", task="style", dtype="uint8", layout="nhwc")
    bench.shelf.slow = threading.Event()
    bench.processor.swap(["other"])
    for index in range(10):
        given = frame(index)
        made = bench.processor.process(given)
        assert not made.passed
        assert is_negative(made, given)
    assert bench.processor.models == ("negative",)
    bench.shelf.slow.set()
    during = bench.until("other at work")
    assert not any(made.passed for made in during)
    assert bench.processor.models == ("other",)
    assert wait_until(lambda: bench.shelf.opened[0].closed)


def test_a_swap_that_fails_keeps_what_there_is(bench: Bench) -> None:
    bench.processor.swap(["nonsense"])
    bench.until("nonsense fails: no model is called nonsense")
    given = frame(5)
    assert is_negative(bench.processor.process(given), given)
    assert bench.processor.models == ("negative",)


def test_a_swap_to_another_scale_keeps_the_size(bench: Bench) -> None:
    bench.processor.swap(["double"])
    bench.until("brought to 128x96")
    made = bench.processor.process(frame())
    assert (made.frame.width, made.frame.height) == (128, 96)
    assert made.frame.format == YUV420P


def test_the_last_of_several_swaps_counts(bench: Bench) -> None:
    bench.shelf.slow = threading.Event()
    bench.processor.swap(["double"])
    bench.processor.swap(["negative", "double"])
    bench.shelf.slow.set()
    bench.until("negative and double at work")
    assert not [line for line in bench.told if line == "double at work"]
    used = {id(s.engine) for s in bench.processor._running.ladder._stages.values()}  # type: ignore[union-attr]
    assert wait_until(
        lambda: all(engine.closed for engine in bench.shelf.opened if id(engine) not in used)
    )


def test_a_failed_swap_while_frames_pass_brings_the_old_models_back(bench: Bench) -> None:
    bench.shelf.opened[0].fail = "gone"
    bench.processor.process(frame())
    bench.processor.swap(["nonsense"])
    bench.until("negative at work")


def test_a_swap_outlives_a_failure_of_what_it_replaces(bench: Bench) -> None:
    bench.shelf.slow = threading.Event()
    bench.processor.swap(["double"])
    bench.shelf.opened[0].fail = "gone"
    assert bench.processor.process(frame()).passed
    bench.shelf.slow.set()
    bench.until("double at work")


def test_a_failed_swap_does_not_keep_models_from_a_new_size(bench: Bench) -> None:
    bench.processor.process(frame())
    bench.shelf.slow = threading.Event()
    bench.processor.swap(["nonsense"])
    assert bench.processor.process(frame(1, (64, 96))).passed
    bench.shelf.slow.set()
    assert wait_until(lambda: not bench.processor.process(frame(2, (64, 96))).passed)
    assert bench.processor.models == ("negative",)


@pytest.mark.parametrize("size", [(64, 96), (256, 192), (130, 98)])
def test_a_frame_of_another_size_comes_out_in_the_old_one(bench: Bench, size: tuple[int, int]) -> None:
    bench.processor.process(frame())
    made = bench.processor.process(frame(1, size))
    assert made.passed
    assert shape(made.frame)[:2] == (128, 96)
    assert f"{size[0]}x{size[1]}" in bench.told[-1]
    assert wait_until(lambda: not bench.processor.process(frame(2, size)).passed)
    made = bench.processor.process(frame(3, size))
    assert shape(made.frame)[:2] == (128, 96)
    assert bench.shelf.opened[-1].calls[-1][:2] == size[::-1]


def test_another_format_in_mid_stream_is_converted(bench: Bench) -> None:
    first = shape(bench.processor.process(frame()).frame)
    for format in FORMATS:
        made = bench.processor.process(frame(1, format=format))
        assert shape(made.frame) == first


def test_a_frame_that_nothing_can_be_made_of_shows_the_one_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = frame(4)
    before = bench.processor.process(given).frame

    def broken(*_: object, **__: object) -> Frame:
        raise ValueError("no memory")

    monkeypatch.setattr(bench.processor, "_fit", broken)
    bench.processor.off = True
    made = bench.processor.process(frame(5))
    assert made.repeated
    assert made.frame.planes is before.planes
    assert made.frame.index == 5
    assert "no memory" in bench.told[-1]


def test_strength_blends(bench: Bench) -> None:
    given = frame(3)
    bench.processor.strength = 0.0
    assert np.array_equal(bench.processor.process(given).frame.planes[0], given.planes[0])
    bench.processor.strength = 0.5
    middle = bench.processor.process(given).frame.planes[0].astype(int)
    assert np.abs(middle - 127).max() <= 4  # a negative and its picture are grey
    bench.processor.strength = 1.0
    assert is_negative(bench.processor.process(given), given)
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"within 0\.\.1"):
            bench.processor.strength = wrong


def test_colours_are_kept_and_a_mask_leaves_the_source(bench: Bench) -> None:
    given = frame(3)
    levels = np.zeros((96, 128), np.uint8)
    levels[48:] = 255
    bench.processor.blending = Blending(keep_colours=True, mask=Mask(levels))
    made = bench.processor.process(given).frame
    for one, before in zip(made.planes, given.planes, strict=True):
        middle = one.shape[0] // 2
        assert np.array_equal(one[:middle], before[:middle])
    assert np.abs(made.planes[0][60:].astype(int) - (255 - given.planes[0][60:])).max() <= 2
    assert np.array_equal(made.planes[1], given.planes[1])
    bench.processor.strength = 0.5  # of what stays as it is
    assert bench.processor.blending.keep_colours
    bench.processor.blending = Blending()
    assert is_negative(bench.processor.process(given), given)


def test_the_models_card_says_how_strong_it_is_until_somebody_does() -> None:
    given = frame(3)
    soft = Bench(["soft"], soft=replace(STYLE, strength=0.0))
    assert soft.processor.strength == 0.0
    assert np.array_equal(soft.processor.process(given).frame.planes[0], given.planes[0])
    soft.processor.swap(["negative"])
    soft.until("negative at work", given)
    assert soft.processor.strength == 1.0
    assert is_negative(soft.processor.process(given), given)
    soft.processor.strength = 0.5
    soft.processor.swap(["soft"])
    soft.until("soft at work", given)
    assert soft.processor.strength == 0.5


def test_the_split_shows_both_and_a_line(bench: Bench) -> None:
    given = frame(3)
    bench.processor.split = 0.5
    made = bench.processor.process(given).frame.planes[0].astype(int)
    original = given.planes[0].astype(int)
    assert np.array_equal(made[:, :60], original[:, :60])
    assert np.abs(made[:, 70:] - (255 - original[:, 70:])).mean() < 3
    assert (made[:, 63:65] == 255).all()
    for at in (0.0, 1.0):
        bench.processor.split = at
        bench.processor.process(given)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        bench.processor.split = 2.0
    bench.processor.split = None
    assert is_negative(bench.processor.process(given), given)


def test_a_pinned_rung_stays_and_a_wrong_one_is_refused() -> None:
    bench = Bench(["negative"], frame(0, (256, 192)), pinned="off")
    for _ in range(60):
        bench.processor.process(frame(1, (256, 192)))
        bench.processor.observe(1.0, period=1 / 30)
    assert bench.processor.rung == "off"
    bench.processor.close()
    with pytest.raises(EngineError, match=r"no rung 'best'; there are: full, "):
        Bench(["negative"], pinned="best")


def test_without_a_governor_it_stays_at_the_best() -> None:
    bench = Bench(["negative"], governed=False)
    for _ in range(60):
        bench.processor.process(frame())
        bench.processor.observe(1.0, period=1 / 30)
    assert bench.processor.rung == "full"
    bench.processor.close()


def test_late_frames_lead_down_and_quick_ones_up_again() -> None:
    # Models that cost nothing make a ladder of the machine's noise.
    bench = Bench(["negative"], frame(0, (256, 192)), seconds=0.002)
    engine = bench.shelf.opened[0]
    processor = bench.processor
    assert len(processor.rungs) > 1

    def run(seconds: float, until: str) -> None:
        begin = time.monotonic()
        while time.monotonic() - begin < seconds and processor.rung != until:
            start = time.monotonic()
            processor.process(frame(0, (256, 192)))
            processor.observe(time.monotonic() - start, period=1 / 30)
            time.sleep(max(1 / 30 - (time.monotonic() - start), 0))

    engine.seconds = 0.3  # 1.2 s for a whole frame of that size
    run(60, "off")
    assert processor.rung == "off"
    assert any("frames took more than 33.3 ms" in line for line in bench.told)
    engine.seconds = 0.0
    run(60, "full")
    assert processor.rung == "full"
    assert any("there is time for it" in line for line in bench.told)
    processor.close()


def test_models_beside_frames_give_every_frame_a_picture_of_its_own() -> None:
    """On that rung the picture moves with the frames, though models see every second one only."""
    size = (256, 192)
    bench = Bench(["negative"], frame(0, size), governed=False, seconds=0.005)
    processor = bench.processor
    index = next(i for i, rung in enumerate(processor.rungs) if rung.every == 2)
    processor.process(frame(0, size))
    processor._governor.rung = index  # pyright: ignore[reportPrivateUsage]
    before = len(bench.shelf.opened[0].calls)
    errors, repeated, pictures = [], 0, []
    for k in range(1, 21):
        given = frame(k, size)
        made = processor.process(given)
        time.sleep(0.02)
        assert not made.passed
        assert made.frame.index == k
        wanted = 255 - given.planes[0].astype(int)
        errors.append(np.abs(made.frame.planes[0].astype(int) - wanted)[8:-8, 8:-8].mean())
        repeated += made.repeated
        pictures.append(made.frame.planes[0].tobytes())
    assert len(set(pictures)) == 20
    assert 8 <= len(bench.shelf.opened[0].calls) - before <= 11
    assert 8 <= repeated <= 12
    stale = np.abs(frame(2, size).planes[0].astype(int) - frame(0, size).planes[0].astype(int)).mean()
    assert np.median(errors) < stale / 2, (np.median(errors), stale)
    processor.close()


def test_wrong_models_are_refused_at_the_start() -> None:
    with pytest.raises(EngineError, match="no model is called"):
        Bench(["nonsense"])


def test_an_engine_that_fails_while_it_is_measured_is_closed() -> None:
    shelf = Shelf()
    real = shelf.__call__

    def failing(name: str) -> object:
        engine = real(name)
        engine.fail = "too large"
        return engine

    with pytest.raises(EngineError, match="too large"):
        open_ladder(["negative"], frame(), failing)  # type: ignore[arg-type]
    assert all(engine.closed for engine in shelf.opened)


def test_the_real_thing() -> None:
    """A shipped style and upscaler, by name, on a small frame."""
    given = frame(0, (160, 128))
    processor = open_processor(["starry-night", "upscale-2x"], info=info_of(given), precision="fp32")
    assert processor.rungs[0].name == "full"
    assert processor.rungs[-1].name == "off"
    costs = [rung.cost for rung in processor.rungs if rung.every == 1]
    assert costs == sorted(costs, reverse=True)
    made = processor.process(given)
    assert not made.passed
    assert (made.frame.width, made.frame.height) == (320, 256)
    assert made.frame.format == YUV420P
    processor.close()


def test_nothing_is_opened_after_the_end(bench: Bench) -> None:
    """Nobody would take it, and its engines would be open for good."""
    closed = threading.Event()

    def tell(line: str) -> None:
        if "fails" in line:
            # The run ends in this moment.
            bench.processor.close()
            closed.set()

    bench.processor.listen(tell)
    bench.shelf.refuse = "no memory"
    bench.processor.swap(["double"])
    assert closed.wait(5)
    bench.shelf.refuse = None
    opening = bench.processor._opening  # pyright: ignore[reportPrivateUsage]
    assert wait_until(lambda: opening._thread is None)  # pyright: ignore[reportPrivateUsage]
    bench.processor.swap(["double"])
    assert not opening.busy
    assert len(bench.shelf.opened) == 1
    assert bench.shelf.opened[0].closed
