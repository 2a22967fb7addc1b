"""Which rungs there are, in which order, and what they are measured to cost."""

import threading
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import inf

import onnx
import pytest
from velatura.runtime.adaptive import ladder as ladder_module
from velatura.runtime.adaptive.ladder import (
    GAIN,
    Ladder,
    inner_size,
    key_of,
    open_ladder,
    output_format,
    sample_of,
    smaller_models,
)
from velatura.runtime.backends.model import find_model
from velatura.runtime.card import ModelCard, read_card
from velatura.runtime.errors import EngineError
from velatura.runtime.frame import GRAY, RGB, YUV420P, Array, PixelFormat

from ..ctrl_c import press_later
from .engines import LUMA, STYLE, Negative, Shelf, frame, info_of


def ladder(
    models: list[str], size: tuple[int, int] = (256, 192), smaller: tuple[str, ...] = ()
) -> Ladder:
    """With engines slow enough for the machine's other work not to show."""
    shelf = Shelf(
        sharp=ModelCard(
            name="sharp", task="upscale", input_colour="luma", output_colour="luma", dtype="uint8",
            scale=2,
        ),
    )  # fmt: skip
    speeds = {"negative": 0.02, "sharp": 0.04, "double": 0.01}

    def opener(name: str) -> Negative:
        shelf.seconds = speeds[name]
        return shelf(name)

    return open_ladder(models, frame(0, size), opener, smaller=lambda *_: smaller)


def names(found: Ladder) -> list[str]:
    return [rung.name for rung in found.rungs]


def test_a_style_is_computed_at_smaller_sizes() -> None:
    found = ladder(["negative"])
    assert names(found)[:4] == ["full", "3/4 size", "full size, every 2nd frame", "1/2 size"]
    assert names(found)[-1] == "off"
    assert any(rung.every == 2 for rung in found.rungs)
    for rung in found.rungs:
        assert (rung.beside > 0) == (rung.every > 1)
    engine = found._engines["negative"]  # pyright: ignore[reportPrivateUsage]
    found.make(found.rungs[3], frame(0, (256, 192)))
    assert engine.calls[-1] == (96, 128, 3)  # type: ignore[attr-defined]


def test_every_rung_costs_less_than_the_one_above() -> None:
    costs = [rung.cost for rung in ladder(["negative"]).rungs if rung.every == 1]
    assert all(after < GAIN * before for before, after in pairwise(costs))


def test_an_upscaler_gives_way_to_a_smaller_one_and_to_a_plain_resize() -> None:
    found = ladder(["sharp"], smaller=("double",))
    assert names(found)[:3] == ["full", "double", "plain resize"]
    assert names(found)[-1] == "off"
    assert found.size == (512, 384)
    for rung in found.rungs:
        made = found.make(rung, frame(0, (256, 192)))
        assert (made.width, made.height) == (512, 384)


def test_a_rung_is_added_by_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    added = ((Fraction(1, 2), 2), (Fraction(1, 2), 3), (Fraction(1, 2), 4))
    monkeypatch.setattr(ladder_module, "PARTS", added)
    monkeypatch.setattr(ladder_module, "GAIN", inf)  # however fast this machine is
    assert names(ladder(["negative"]))[1:-1] == [
        f"1/2 size, every {which} frame" for which in ("2nd", "3rd", "4th")
    ]


def test_of_a_chain_the_upscaler_goes_first() -> None:
    found = ladder(["negative", "sharp"], smaller=("double",))
    assert names(found)[0] == "full"
    assert "negative and plain resize" in names(found)
    assert names(found).index("negative and plain resize") < names(found).index("1/2 size")
    half = found.rungs[names(found).index("1/2 size")]
    assert half.models == ("negative",)
    made = found.make(half, frame(0, (256, 192)))
    assert (made.width, made.height) == (512, 384)


def test_a_rung_that_saves_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all take as long as the first, all that they do is lose quality."""

    def once(work: Callable[[], object]) -> float:
        work()
        return 1.0

    monkeypatch.setattr(ladder_module, "_once", once)
    found = open_ladder(["negative"], frame(), Shelf(), smaller=lambda *_: ())
    assert names(found) == ["full", "off"]


def test_small_frames_are_not_made_smaller() -> None:
    found = ladder(["negative"], (64, 64))
    assert not [rung for rung in found.rungs if rung.inner < 1]


def test_no_model_is_a_ladder_of_one_rung() -> None:
    found = open_ladder([], frame(), Shelf())
    assert names(found) == ["off"]
    given = frame()
    assert found.make(found.rungs[0], given) is given


@pytest.mark.parametrize(
    ("cards", "given", "wanted"),
    [
        ([STYLE], YUV420P, YUV420P),
        ([STYLE], RGB, RGB),
        ([STYLE], GRAY, RGB),
        ([LUMA], YUV420P, YUV420P),
        ([LUMA], RGB, YUV420P),
        ([LUMA], GRAY, GRAY),
        ([STYLE, LUMA], YUV420P, YUV420P),
        ([STYLE, LUMA], RGB, YUV420P),
        ([LUMA, STYLE], RGB, RGB),
        ([STYLE], PixelFormat("yuv", 10, (2, 1)), PixelFormat("yuv", 10, (2, 1))),
        ([], GRAY, GRAY),
    ],
)
def test_results_are_laid_out_as_the_frames_where_they_can_be(
    cards: list[ModelCard], given: PixelFormat, wanted: PixelFormat
) -> None:
    assert output_format(cards, given) == wanted


def test_inner_sizes_are_what_the_styles_take() -> None:
    assert inner_size(640, 360, Fraction(3, 8)) == (240, 136)
    assert inner_size(1920, 1080, Fraction(1, 2)) == (960, 540)
    assert inner_size(3, 3, Fraction(1, 2)) == (4, 4)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("upscale-2x-sharp", ("upscale-2x",)),
        ("upscale-4x-sharp", ("upscale-4x",)),
        ("upscale-2x", ()),
        ("wave", ()),
    ],
)
def test_the_zoo_has_smaller_upscalers(name: str, wanted: tuple[str, ...]) -> None:
    card = read_card(onnx.load(str(find_model(name))))
    assert card is not None
    if card.task == "style":
        assert card.scale == 1  # only upscalers are asked for
        return
    assert smaller_models(name, card) == wanted


@pytest.mark.parametrize("format", [YUV420P, RGB, GRAY, PixelFormat("yuv", 10, (2, 2))], ids=str)
def test_a_sample_is_as_the_source_says(format: PixelFormat) -> None:
    given = frame(0, (98, 66), format)
    made = sample_of(info_of(given))
    assert key_of(made) == key_of(given)
    assert made.format == format
    assert made.planes[0].std() > 1


class Beside(Negative):
    """Does something else where it is called beside frames."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(seconds=0.001)
        self.act = act
        self.at_work = self.closed_at_work = False

    def submit(self, image: Array, bits: int = 8) -> Callable[[], Array]:
        if threading.current_thread() is not threading.main_thread():
            self.at_work = True
            self.act()
            self.at_work = False
        return super().submit(image, bits)

    def close(self) -> None:
        self.closed_at_work = self.at_work
        super().close()


def test_a_model_that_fails_beside_frames_is_an_error_with_its_own_words() -> None:
    def fail() -> None:
        raise EngineError("no memory for two")

    engine = Beside(fail)
    with pytest.raises(EngineError, match="no memory for two"):
        open_ladder(["negative"], frame(0, (256, 192)), lambda _: engine)
    assert engine.closed


def test_ctrl_c_while_rungs_are_measured_closes_no_engine_at_work() -> None:
    go = threading.Event()
    engine = Beside(lambda: go.wait(20))
    with (
        press_later(lambda: engine.at_work, then=go.set, busy=True),
        pytest.raises(KeyboardInterrupt),
    ):
        open_ladder(["negative"], frame(0, (256, 192)), lambda _: engine)
    assert engine.closed
    assert not engine.closed_at_work
