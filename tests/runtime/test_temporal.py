"""Results that stay with the surfaces: what is kept, what is let go, and what they look like then."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import Pump, open_engine, open_source
from velatura.runtime.frame import GRAY, RGB, YUV420P, YUV444P, Frame, PixelFormat
from velatura.runtime.stages import Neural, Stabiliser, Stabilize

from .moving import View, street, texture

metrics = pytest.importorskip("velatura.training.metrics.stability", reason="training needs PyTorch")
dis_flows, gradient_energy, warp_error = metrics.dis_flows, metrics.gradient_energy, metrics.warp_error

SIZE = (320, 180)
COUNT = 20
CLIP = Path(__file__).parents[2] / "samples" / "clip.mp4"
FORMATS = (
    RGB, GRAY, YUV420P, YUV444P, PixelFormat("yuv", 8, (2, 1)), PixelFormat("yuv", 10, (2, 2)),
    PixelFormat("rgb", 16), PixelFormat("gray", 12), PixelFormat("yuv", 16, (1, 1)),
)  # fmt: skip
Image = npt.NDArray[np.uint8]


def picture(pixels: Any, number: int = 0, format: PixelFormat = RGB, **more: Any) -> Frame:
    """A frame without motion; grey is given as one plane."""
    planes = pixels if isinstance(pixels, tuple) else (pixels,)
    return Frame(
        planes=planes, format=format, pts=number, time_base=Fraction(1, 30), index=number, **more
    )


def painted(image: Image, seed: int, grain: float = 18.0) -> Image:
    """What a net that flickers makes of a picture: its edges overdone, strokes that jump about."""
    own = image.astype(np.float32)
    own += 0.15 * (own - cv2.GaussianBlur(own, (0, 0), 2.0)) + (30, -10, -20)
    noise = np.random.default_rng(seed).normal(0, 1, image.shape[:2]).astype(np.float32)
    strokes = cv2.GaussianBlur(noise, (0, 0), 1.6)
    return np.clip(own + (strokes * grain / strokes.std())[..., None], 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def views() -> list[View]:
    """A walk along the street."""
    world = street(SIZE, turn=0.001)
    return [world.view(time) for time in range(COUNT)]


@pytest.fixture(scope="module")
def made(views: list[View]) -> list[Image]:
    """What the net makes of it."""
    return [painted(view.picture, number) for number, view in enumerate(views)]


def flows(views: Sequence[View]) -> Any:
    return [(a.onward, b.motion) for a, b in pairwise(views)]


def shown(
    views: Sequence[View], made: Sequence[Image], strength: float = 0.9, *, blind: bool = False
) -> list[Image]:
    """The pictures after the stage, `blind` to motion and depth."""
    stage = Stabiliser(strength)
    frames = [view.frame(number) for number, view in enumerate(views)]
    if blind:
        frames = [replace(frame, motion=None, depth=None) for frame in frames]
    results = [stage(frame, picture(one)) for frame, one in zip(frames, made, strict=True)]
    return [np.asarray(result.planes[0], np.uint8) for result in results]


def sharpness(frames: Sequence[Image]) -> float:
    return float(np.mean([gradient_energy(frame) for frame in frames]))


def test_strokes_stay_with_the_surfaces_and_stay_sharp(views: list[View], made: list[Image]) -> None:
    known = flows(views)
    stable = shown(views, made)
    error = warp_error(stable, known)
    assert error < warp_error(made, known) / 3
    assert error < 1.5 * warp_error([view.picture for view in views], known)
    assert sharpness(stable) == pytest.approx(sharpness(made), rel=0.1)


def test_without_vectors_motion_is_found(views: list[View], made: list[Image]) -> None:
    known = flows(views)
    assert warp_error(shown(views, made, blind=True), known) < warp_error(made, known) / 3


def test_more_strength_is_less_flicker_and_none_is_nothing(
    views: list[View], made: list[Image]
) -> None:
    known = flows(views)
    errors = [warp_error(shown(views, made, s), known) for s in (0.0, 0.25, 0.5, 0.75, 0.9)]
    assert errors == sorted(errors, reverse=True)
    frame, result = views[0].frame(0), picture(made[0])
    stage = Stabiliser(0.0)
    assert stage(frame, result) is result
    stage.strength = 0.9
    stage(frame, result)
    stage.strength = 0.0
    assert stage(views[1].frame(1), result) is result


def test_frames_are_left_as_they_are(views: list[View], made: list[Image]) -> None:
    before = [np.array(a) for v in views[:3] for a in (v.picture, v.depth, v.motion)]
    results = [one.copy() for one in made[:3]]
    shown(views[:3], results)
    after = [a for v in views[:3] for a in (v.picture, v.depth, v.motion)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(results, made[:3], strict=True))


def scene(at: int, *, lit: bool = False) -> tuple[Frame, Frame, npt.NDArray[np.bool_]]:
    """A square before a wall, at column `at`: source, result, and where the square is.

    Both have the same colour in the source unless `lit`; in the result it is red, and the wall blue.
    """
    height, width = 120, 200
    square = np.zeros((height, width), np.bool_)
    square[40:80, at : at + 40] = True
    rng = np.random.default_rng(3)
    source = np.repeat(rng.integers(110, 130, (height, width, 1)), 3, 2).astype(np.uint8)
    if lit:
        source[square] = 220
    result = np.where(square[..., None], (200, 30, 30), (30, 30, 200)).astype(np.uint8)
    motion = np.zeros((height, width, 2), np.float32)
    motion[square] = (-6, 0)
    depth = np.where(square, np.float32(2), np.float32(9))
    return picture(source, motion=motion, depth=depth), picture(result), square


@pytest.mark.parametrize("known", [True, False], ids=["by depth", "by colour"])
def test_nothing_is_left_behind_by_what_moves(known: bool) -> None:
    stage = Stabiliser(1.0)
    before = np.zeros(0)
    for step in range(12):
        source, result, square = scene(20 + 6 * step, lit=not known)
        if not known:
            source = replace(source, depth=None)
        after = stage(source, result).planes[0].astype(int)
        wrong = np.abs(after - result.planes[0]).max(2)
        if step:
            # Colours alone are compared over six pixels: the rim of what is in front shines through.
            assert wrong[before & ~square].max() <= (2 if known else 100)
            assert wrong[:, : 20 + 6 * step - 3].max() <= (2 if known else 8)
        before = square


def test_a_light_that_goes_on_is_seen_at_once() -> None:
    stage = Stabiliser(1.0)
    wall = texture(7, (200, 120), 8)
    source = picture(wall, motion=np.zeros((120, 200, 2), np.float32))
    for _ in range(10):
        stage(source, picture(painted(wall, 1, 0.0)))
    bright = wall.copy()
    cv2.circle(bright, (100, 60), 25, (255, 240, 200), -1)
    lamp = cv2.circle(np.zeros((120, 200), np.uint8), (100, 60), 20, 1, -1).astype(np.bool_)
    result = painted(bright, 1, 0.0)
    after = stage(replace(source, planes=(bright,)), picture(result)).planes[0].astype(int)
    assert np.abs(after - result)[lamp].mean() < 3
    rest = ~cv2.dilate(lamp.view(np.uint8), np.ones((25, 25))).astype(np.bool_)
    assert np.abs(after - result)[rest].mean() < 3


def test_a_cut_is_a_cut(views: list[View], made: list[Image]) -> None:
    stage = Stabiliser()
    for number in range(4):
        stage(views[number].frame(number), picture(made[number]))
    after = stage(views[4].frame(4, cut=True), picture(made[4]))
    assert np.array_equal(after.planes[0], made[4])
    other = picture(texture(40, SIZE, 20), motion=np.zeros((*SIZE[::-1], 2), np.float32))
    result = picture(texture(41, SIZE, 20))
    assert np.array_equal(stage(other, result).planes[0], result.planes[0]), "nobody said so"


def test_a_cut_in_a_video_is_seen(made: list[Image]) -> None:
    stage = Stabiliser()
    for number in range(3):
        stage(picture(texture(20, SIZE, 20)), picture(made[number]))
    after = stage(picture(texture(23, SIZE, 20)), picture(made[4]))
    assert np.array_equal(after.planes[0], made[4])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 5000.0, -5000.0])
def test_motion_that_is_none_brings_nothing(value: float, views: list[View], made: list[Image]) -> None:
    stage = Stabiliser(1.0)
    for number in range(4):
        stage(views[number].frame(number), picture(made[number]))
    motion = views[4].motion.copy()
    motion[60:120, 100:200] = value
    motion[10:20, 10:20, 1] = value
    frame = replace(views[4].frame(4), motion=motion, depth=None)
    after = stage(frame, picture(made[4])).planes[0].astype(int)
    apart = np.abs(after - made[4])
    assert apart[60:120, 100:200].max() <= 1
    assert apart[10:20, 10:20].max() <= 1
    assert apart[130:].mean() > 5, "the rest is stabilised"
    everywhere = replace(views[5].frame(5), motion=np.full_like(motion, value))
    assert np.abs(stage(everywhere, picture(made[5])).planes[0].astype(int) - made[5]).max() <= 1


def test_another_size_or_format_begins_anew(views: list[View], made: list[Image]) -> None:
    stage = Stabiliser()
    for number in range(3):
        stage(views[number].frame(number), picture(made[number]))
    small = street((160, 90)).view(3)
    result = picture(painted(small.picture, 9))
    assert np.array_equal(stage(small.frame(3), result).planes[0], result.planes[0])
    again = stage(small.frame(4), picture(painted(small.picture, 10)))
    assert again.width == 160
    grey = picture(np.zeros((90, 160), np.uint8), 5, GRAY)
    assert np.array_equal(stage(small.frame(5), grey).planes[0], grey.planes[0])
    large = picture(np.zeros((180, 320), np.uint8), 6, GRAY)
    assert np.array_equal(stage(small.frame(6), large).planes[0], large.planes[0])


def test_extras_of_another_size_are_refused(views: list[View], made: list[Image]) -> None:
    frame = views[0].frame(0)
    for extra in ("motion", "depth"):
        wrong = replace(frame, **{extra: getattr(frame, extra)[:-1]})
        with pytest.raises(ValueError, match=f"{extra} is"):
            Stabiliser()(wrong, picture(made[0]))
    with pytest.raises(ValueError, match="reactivity is"):
        Stabiliser()(replace(frame, reactive=np.zeros((3, 3), np.float32)), picture(made[0]))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_beyond_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"not within 0\.\.1"):
        Stabiliser(strength)
    with pytest.raises(ValueError, match=r"not within 0\.\.1"):
        Stabilize([], strength)
    stage = Stabiliser()
    with pytest.raises(ValueError, match=r"not within 0\.\.1"):
        stage.strength = strength
    assert stage.strength == 0.9


def test_what_is_reactive_is_new(views: list[View], made: list[Image]) -> None:
    stage = Stabiliser()
    for number in range(4):
        stage(views[number].frame(number), picture(made[number]))
    reactive = np.zeros(SIZE[::-1], np.float32)
    reactive[:, 160:] = 1.0
    reactive[80:, 160:] = np.nan
    after = stage(views[4].frame(4, reactive=reactive), picture(made[4])).planes[0].astype(int)
    apart = np.abs(after - made[4])
    assert apart[:, 160:].max() <= 1
    assert apart[:, :150].mean() > 5


def test_slow_changes_arrive() -> None:
    """Eight bits of history would keep them up for ever."""
    stage = Stabiliser(1.0)
    still = picture(np.full((96, 96), 90, np.uint8), format=GRAY)
    level = 60
    for step in range(40):
        level = 60 + step // 4
        stage(still, picture(np.full((96, 96), level, np.uint8), format=GRAY))
    for _ in range(160):
        after = stage(still, picture(np.full((96, 96), level, np.uint8), format=GRAY))
    assert np.abs(after.planes[0].astype(int) - level).max() <= 1


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("pace", [3.0, 0.5])
def test_a_fade_is_followed(pace: float) -> None:
    """By its light, though pixels hardly change from one frame to the next."""
    stage = Stabiliser(0.9)
    wall = texture(7, SIZE, 8)
    for step in range(round(90 / pace)):
        dim = np.clip(wall.astype(np.float32) - step * pace, 0, 255).astype(np.uint8)
        result = np.clip(painted(dim, step, 6.0), 40, 255)
        after = stage(picture(dim), picture(result))
    assert abs(after.planes[0].mean() - result.mean()) < 3


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("velocity", [(0.0, 0.0), (0.08, 0.08), (0.5, 0.3), (0.93, 0.1)])
def test_a_long_way_neither_blurs_nor_swells(velocity: tuple[float, float]) -> None:
    """The same part of a pixel, again and again: whatever is gained or lost at a step adds up."""
    stage, (width, height) = Stabiliser(1.0), (160, 96)
    wall = texture(11, (400, 240), 10)
    motion = np.zeros((height, width, 2), np.float32) + np.array(velocity, np.float32)
    for step in range(150):
        place = np.array([[1.0, 0, velocity[0] * step + 2], [0, 1.0, velocity[1] * step + 2]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        view = np.asarray(cv2.warpAffine(wall, place, (width, height), flags=flags), np.uint8)
        result = painted(view, step)
        after = np.asarray(stage(picture(view, motion=motion), picture(result)).planes[0])
    # Of strokes that have nothing in common half is the least that is left at half a pixel a frame.
    assert 0.5 < gradient_energy(after) / gradient_energy(result) < 1.15
    assert abs(after.mean() - result.mean()) < 2


def coded(image: Image, format: PixelFormat, number: int, **more: Any) -> Frame:
    """A picture in that format; where it came from does not matter."""
    shift = format.bits - 8
    wide = image.astype(format.dtype) << shift
    if format.family == "rgb":
        return picture(wide, number, format, **more)
    if format.family == "gray":
        return picture(np.ascontiguousarray(wide[..., 1]), number, format, **more)
    size = format.chroma_size(image.shape[1], image.shape[0])
    chroma = [cv2.resize(wide[..., c], size, interpolation=cv2.INTER_AREA) for c in (0, 2)]
    return picture((np.ascontiguousarray(wide[..., 1]), *chroma), number, format, **more)


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_format(format: PixelFormat, views: list[View], made: list[Image]) -> None:
    stage = Stabiliser()
    results: list[Frame] = []
    alpha = np.full(SIZE[::-1], 7, format.dtype)
    for number, view in enumerate(views[:10]):
        source = coded(view.picture, format, number, motion=view.motion, depth=view.depth)
        result = coded(made[number], format, number, alpha=alpha)
        results.append(stage(source, result))
    assert all(result.format == format for result in results)
    assert all(result.alpha is alpha for result in results)
    known = flows(views[:10])
    for plane in range(len(results[0].planes)):
        first = results[0].planes[plane].shape[:2]
        if first != SIZE[::-1]:
            continue
        eight = [np.asarray(r.planes[plane] >> (format.bits - 8), np.uint8) for r in results]
        raw = [
            np.asarray(coded(one, format, 0).planes[plane] >> (format.bits - 8), np.uint8)
            for one in made[:10]
        ]
        assert warp_error(eight, known) < warp_error(raw, known) / 3
    if format.family == "yuv":
        u = [result.planes[1].astype(int) for result in results]
        changes = [coded(one, format, 0).planes[1].astype(int) for one in made[:10]]
        flickers = [np.abs(np.diff(np.array(one), axis=0)).mean() for one in (u, changes)]
        assert flickers[0] < 0.7 * flickers[1], "chroma, too, though it moves"


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_what_does_not_change_is_left_to_the_last_bit(format: PixelFormat) -> None:
    wall = coded(texture(8, (130, 98), 10), format, 0)
    stage = Stabiliser()
    for _ in range(8):
        after = stage(wall, wall)
    for plane, wanted in zip(after.planes, wall.planes, strict=True):
        assert np.abs(plane.astype(int) - wanted.astype(int)).max() <= (1 << (format.bits - 8)) // 16


def test_results_may_be_larger(views: list[View]) -> None:
    """Vectors grow with the picture, and the rim of what moves stays sharp."""
    double = (2 * SIZE[0], 2 * SIZE[1])
    world = street(double, turn=0.001)
    large = [world.view(time) for time in range(6)]
    results = [painted(view.picture, number) for number, view in enumerate(large)]
    known = flows(large)
    stable = shown(views[:6], results)
    assert stable[0].shape[:2] == double[::-1]
    assert warp_error(stable, known) < warp_error(results, known) / 3
    assert sharpness(stable) == pytest.approx(sharpness(results), rel=0.15)


def test_noise_of_a_still_picture_does_not_blur_it() -> None:
    wall = texture(9, SIZE, 20)
    rng = np.random.default_rng(5)
    stage = Stabiliser()
    clean = painted(wall, 0, 0.0)
    for number in range(24):
        noisy = np.clip(wall + rng.normal(0, 6, wall.shape), 0, 255).astype(np.uint8)
        result = painted(wall, number, 12.0)
        after = np.asarray(stage(picture(noisy, number), picture(result, number)).planes[0])
    assert (
        np.square(after.astype(float) - clean).mean() < np.square(result.astype(float) - clean).mean()
    )
    detail = [a.astype(float) - cv2.GaussianBlur(a.astype(float), (0, 0), 1.5) for a in (after, clean)]
    kept = float((detail[0] * detail[1]).sum() / np.square(detail[1]).sum())
    assert kept > 0.9


def test_models_on_every_second_frame(views: list[View], made: list[Image]) -> None:
    """Between them the history is shown, moved; where there is none, the picture in its colours."""
    known = flows(views)
    stage = Stabiliser()
    results: list[Image] = []
    for number, (view, one) in enumerate(zip(views, made, strict=True)):
        fresh = number % 2 == 0
        given = one if fresh else view.picture
        results.append(np.asarray(stage(view.frame(number), picture(given), fresh=fresh).planes[0]))
    assert warp_error(results, known) < warp_error(made, known) / 3
    tint = np.subtract(*(np.mean([one.mean((0, 1)) for one in x], 0) for x in (made, results)))
    assert np.abs(tint).max() < 3
    last = results[-1].astype(int)
    assert np.abs(cv2.blur(last.astype(np.float32), (31, 31)) - cv2.blur(
        made[-1].astype(np.float32), (31, 31)
    )).max() < 30, "no hole shows the plain picture, which is far bluer"  # fmt: skip


def test_without_a_history_a_stand_in_is_shown(views: list[View], made: list[Image]) -> None:
    stage = Stabiliser()
    plain = picture(views[0].picture)
    assert stage(views[0].frame(0), plain, fresh=False) is plain
    assert stage(views[1].frame(1), plain, fresh=False) is plain, "and is no history itself"
    result = picture(made[2])
    assert stage(views[2].frame(2), result) is result
    stage.forget()
    assert stage(views[3].frame(3), plain, fresh=False) is plain


class Flickering:
    """A stage as `painted`, several frames at once."""

    in_flight = 3

    def __init__(self) -> None:
        self.begun: list[int] = []

    def __call__(self, frame: Frame) -> Frame:
        return self.submit(frame)()

    def submit(self, frame: Frame) -> Any:
        self.begun.append(frame.index)
        image = np.asarray(frame.planes[0], np.uint8)
        return lambda: frame.with_planes((painted(image, frame.index),), RGB)


class Kept:
    """A sink that keeps pixels."""

    uri, frames, notes = "kept:", 0, ()

    def __init__(self) -> None:
        self.pictures: list[Image] = []

    def write(self, frame: Frame) -> None:
        self.pictures.append(np.array(frame.planes[0], np.uint8))


class Given:
    """A source of frames that are there."""

    uri, notes, damage = "given:", (), None

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames

    def __iter__(self) -> Any:
        return iter(self.frames)


def test_stages_inside_keep_their_pipeline(views: list[View]) -> None:
    frames = [view.frame(number) for number, view in enumerate(views)]
    inner = Flickering()
    stage = Stabilize([inner, lambda frame: frame], 0.9)
    assert stage.in_flight == 3
    sink: Any = Kept()
    source: Any = Given(frames)
    Pump(source, [stage], sink).run()
    wanted = shown(views, [painted(view.picture, n) for n, view in enumerate(views)])
    assert all(np.array_equal(a, b) for a, b in zip(sink.pictures, wanted, strict=True))
    pending = [stage.submit(frame) for frame in frames[:2]]
    assert inner.begun[-2:] == [0, 1], "begun, before the first result is asked for"
    del pending


@pytest.mark.parametrize("first", [0, 1])
def test_a_spell_is_the_same_whoever_begins_there(first: int, views: list[View]) -> None:
    """As segments of a film are that was cut off, or that several processes make."""
    frames = [replace(v.frame(n + first), motion=None) for n, v in enumerate(views)]
    whole = Stabilize([Flickering()], 0.3, spell=8)
    assert 0 < whole.overlap < 8
    wanted = [whole(frame).planes[0] for frame in frames]
    part = Stabilize([Flickering()], 0.3, spell=8)
    part(frames[0])
    found = [part(frame).planes[0] for frame in frames[8 - part.overlap :]][part.overlap :]
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted[8:], strict=True))
    unlike = Stabilize([Flickering()], 0.3, spell=8)
    late = [unlike(frame).planes[0] for frame in frames[8:]]
    assert not np.array_equal(late[0], wanted[8]), "else there would be nothing to prove"


specials = st.sampled_from([0.0, 1.5, -3.0, 40.0, 1e9, float("nan"), float("inf"), float("-inf")])


@settings(max_examples=40, deadline=None)
@given(
    strength=st.floats(0, 1),
    motion=st.tuples(specials, specials),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    scale=st.integers(1, 3),
    format=st.sampled_from(FORMATS),
    seed=st.integers(0, 99),
    fresh=st.lists(st.booleans(), min_size=3, max_size=3),
    deep=st.booleans(),
)
def test_whatever_comes_in_a_picture_comes_out(
    strength: float, motion: tuple[float, float], size: tuple[int, int], scale: int,
    format: PixelFormat, seed: int, fresh: list[bool], deep: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    width, height = size
    stage = Stabiliser(strength)
    for number in range(3):
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        result = rng.integers(0, 256, (height * scale, width * scale, 3)).astype(np.uint8)
        vectors = np.zeros((height, width, 2), np.float32) + np.array(motion, np.float32)
        vectors[rng.random((height, width)) < 0.3] = 0
        depth = rng.choice([0.1, 5, np.inf, np.nan], (height, width)).astype(np.float32)
        source = coded(
            image, format, number, motion=vectors if seed % 3 else None, depth=depth if deep else None
        )
        given = coded(result, format, number)
        after = stage(source, given, fresh=fresh[number])
        assert [p.shape for p in after.planes] == [p.shape for p in given.planes]
        assert all(plane.max() <= format.peak for plane in after.planes)


def test_a_real_model_on_a_real_clip() -> None:
    with open_source(str(CLIP)) as source, open_engine("starry-night", "openvino") as engine:
        frames = [frame for _, frame in zip(range(10), source, strict=False)]
        neural = Neural(engine)
        results = [neural(frame) for frame in frames]
    stage = Stabiliser()
    stable = [stage(f, r) for f, r in zip(frames, results, strict=True)]
    seen = [cv2.cvtColor(f.planes[0], cv2.COLOR_GRAY2RGB) for f in frames]
    raw, kept = ([np.asarray(r.planes[0], np.uint8) for r in x] for x in (results, stable))
    known = dis_flows([np.asarray(one, np.uint8) for one in seen])
    assert warp_error(kept, known) < warp_error(raw, known) / 2
    assert sharpness(kept) == pytest.approx(sharpness(raw), rel=0.15)


def moment(kind: str, number: int, size: tuple[int, int]) -> Image:
    """A clean picture of a film that stands, pans, drifts by parts of a pixel, or has sprites."""
    width, height = size
    wall = texture(5, (width + 60, height + 40), 12)
    if kind == "drifting":
        move = np.array([[1, 0, -0.3 * number], [0, 1, -0.1 * number]], np.float32)
        return np.asarray(cv2.warpAffine(wall, move, size, flags=cv2.INTER_CUBIC), np.uint8)
    left = 2 * number if kind == "panning" else 0
    view = wall[:height, left : left + width].copy()
    if kind == "sprites":
        cv2.circle(view, (30 + 4 * number, 60), 14, (250, 60, 40), -1)
        cv2.rectangle(view, (130 - 3 * number, 10), (145 - 3 * number, 30), (20, 200, 240), -1)
    return view


def grain(number: int, size: tuple[int, int], deviation: float, coarse: int) -> Any:
    """Noise of that standard deviation, in spots of `coarse` pixels."""
    shape = (size[1] // coarse + 1, size[0] // coarse + 1, 3)
    noise = np.random.default_rng(900 + number).normal(0, 1, shape).astype(np.float32)
    noise = cv2.resize(noise, size, interpolation=cv2.INTER_LINEAR)
    return noise / noise.std() * deviation


def changes(frames: Sequence[Image]) -> float:
    """The mean absolute difference from frame to frame, in levels."""
    pairs = [np.abs(a.astype(int) - b) for a, b in pairwise(frames)]
    return float(np.mean(pairs))


def stabilised(sources: Sequence[Image], results: Sequence[Image]) -> list[Image]:
    stage = Stabiliser(0.9)
    pairs = zip(sources, results, strict=True)
    shown = [stage(picture(a, number), picture(b, number)) for number, (a, b) in enumerate(pairs)]
    return [np.asarray(frame.planes[0], np.uint8) for frame in shown]


@pytest.mark.parametrize("kind", ["standing", "panning", "drifting", "sprites"])
@pytest.mark.parametrize(("deviation", "coarse"), [(6, 1), (25, 1), (15, 3), (25, 3)])
def test_no_film_changes_more_than_without(kind: str, deviation: float, coarse: int) -> None:
    """Motion that is estimated follows grain: what a model makes of it must not."""
    size = (176, 112)
    clean = [moment(kind, number, size) for number in range(12)]
    noisy = [
        np.clip(one + grain(number, size, deviation, coarse), 0, 255).astype(np.uint8)
        for number, one in enumerate(clean)
    ]
    for results in (clean, noisy, [np.asarray(cv2.GaussianBlur(one, (0, 0), 2)) for one in noisy]):
        assert changes(stabilised(noisy, results)) <= 1.02 * changes(results)


@pytest.mark.parametrize("deviation", [0, 12])
def test_no_real_film_changes_more_than_without(deviation: float) -> None:
    with open_source(str(CLIP)) as source:
        own = [frame.planes[0] for frame, _ in zip(source, range(12), strict=False)]
    clean = [np.repeat(plane[:240:2, :400:2, None], 3, 2).astype(np.uint8) for plane in own]
    noisy = [
        np.clip(one + deviation * grain(number, (200, 120), 1, 2), 0, 255).astype(np.uint8)
        for number, one in enumerate(clean)
    ]
    for results in (clean, noisy):
        assert changes(stabilised(noisy, results)) <= 1.02 * changes(results)
