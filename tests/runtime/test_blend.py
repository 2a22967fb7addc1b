"""How much of a result is seen, where, and in whose colours: the stage, and `velatura run` with it."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from velatura.runtime import ModelCard, open_source
from velatura.runtime.colour import LUMA_WEIGHTS, rgb_from_yuv_matrix, to_rgb
from velatura.runtime.errors import ModelError, SourceError
from velatura.runtime.frame import GRAY, RGB, YUV420P, YUV444P, Colour, Frame, Matrix, PixelFormat
from velatura.runtime.stages import Blend, Blending, Mask, Resize

from . import networks, videos
from .commands import velatura
from .cutting import cut_off, run

FORMATS = [
    YUV420P, YUV444P, RGB, PixelFormat("yuv", 8, (4, 1)), PixelFormat("yuv", 10, (2, 2)),
    PixelFormat("rgb", 12), PixelFormat("rgb", 16),
]  # fmt: skip
SIZE = (95, 63)
SOURCE = SourceError.exit_code
MASKED = 12
"""Rows of `banded` that are black."""


def noise(format: PixelFormat, seed: int = 0, size: tuple[int, int] = SIZE, **facts: Any) -> Frame:
    """Any code value, those outside of R, G and B included."""
    rng = np.random.default_rng(seed)
    planes = tuple(
        rng.integers(0, format.peak + 1, shape).astype(format.dtype)
        for shape in format.plane_shapes(*size)
    )
    return Frame(planes=planes, format=format, pts=3, time_base=Fraction(1, 25), **facts)


def banded(size: tuple[int, int] = SIZE) -> Any:
    """A mask of two black bands."""
    levels = np.full((size[1], size[0]), 255, np.uint8)
    levels[:MASKED] = levels[:, -MASKED:] = 0
    return levels


def painted(frame: Frame) -> Frame:
    """What an RGB model gives: another picture in R, G, B of that depth."""
    return noise(PixelFormat("rgb", frame.format.bits), 7, (frame.width, frame.height))


@pytest.mark.parametrize("format", [*FORMATS, GRAY], ids=str)
def test_none_of_a_result_is_the_source_bit_by_bit(format: PixelFormat) -> None:
    frame = noise(format)
    given = Blending(strength=0.0, keep_colours=True, mask=Mask(banded()))(painted(frame), frame)
    assert all(np.array_equal(a, b) for a, b in zip(given.planes, frame.planes, strict=True))
    made = painted(frame)
    assert Blending(strength=1.0, keep_colours=False)(made, frame) is made


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_where_the_mask_is_black_nothing_is_touched(format: PixelFormat, keep: bool) -> None:
    frame = noise(format)
    masked = Blending(strength=0.8, keep_colours=keep, mask=Mask(banded()))(painted(frame), frame)
    whole = Blending(strength=0.8, keep_colours=keep)(painted(frame), frame)
    assert masked.format == frame.format
    for i, (one, other, all_of_it) in enumerate(
        zip(masked.planes, frame.planes, whole.planes, strict=True)
    ):
        across, down = format.subsample if i else (1, 1)
        rows, columns = -(-MASKED // down), (SIZE[0] - MASKED) // across
        assert np.array_equal(one[:rows], other[:rows])
        assert np.array_equal(one[:, columns:], other[:, columns:])
        far = (slice(-10 // down, None), slice(0, 40 // across))
        assert np.abs(one[far].astype(int) - all_of_it[far]).max() <= 1
        assert not np.array_equal(one[far], other[far])


def test_every_result_meets_the_frame_that_it_was_made_from() -> None:
    """Of several in flight, and after a run that was broken off in their midst."""
    frames = [replace(noise(RGB, seed), index=seed) for seed in range(5)]
    blend = Blend(Blending(strength=0.5))
    for number, frame in enumerate(frames):
        assert blend.keep(frame) is frame
        if number:
            before = frames[number - 1]
            if number == 2:
                continue  # its result never comes
            made = blend(replace(painted(before), index=before.index))
            wanted = (before.planes[0].astype(float) + painted(before).planes[0]) / 2
            assert np.abs(made.planes[0] - wanted).max() <= 1


def test_a_mask_is_soft_on_its_light_side_only() -> None:
    levels = np.full((720, 1280), 255, np.uint8)
    levels[:200] = 0
    levels[:, 1000:] = np.where(levels[:, 1000:] > 0, 128, 0)
    found = Mask(levels).weights((1280, 720))
    assert found[:200].max() == 0
    edge = found[199:220, 500]
    assert (np.diff(edge[:12]) > 0).all()
    assert edge[13:].min() == 1
    assert found[400, 1100] == pytest.approx(128 / 255)
    small = Mask(levels).weights((640, 360))
    assert small.shape == (360, 640)
    assert small[:100].max() == 0
    assert small[300, 200] == 1


def kept_by_hand(made: Frame, frame: Frame) -> tuple[Any, Any]:
    """R, G, B of the frame's chroma under the result's luma, and the luma, in floats."""
    red, blue = LUMA_WEIGHTS[frame.colour.matrix]
    weights = np.array([red, 1 - red - blue, blue])
    luma = to_rgb(made).planes[0].astype(float) @ weights
    if frame.format.family == "rgb":
        colours = frame.planes[0].astype(float)
    else:
        matrix = rgb_from_yuv_matrix(frame.colour, frame.format.bits)
        codes = np.stack([*frame.planes, np.ones_like(frame.planes[0])], -1).astype(float)
        colours = codes @ matrix.T
    differences = colours - (colours @ weights)[..., None]
    peak = frame.format.peak
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(differences > 0, peak - luma[..., None], luma[..., None]) / np.abs(differences)
    factor = np.clip(np.nan_to_num(room, nan=1.0).min(-1), 0, 1)
    return luma[..., None] + differences * factor[..., None], luma


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("format", [YUV444P, RGB, PixelFormat("rgb", 12)], ids=str)
def test_colours_are_kept_under_the_luma_of_the_result(format: PixelFormat, matrix: Matrix) -> None:
    """Within what R, G and B hold, by weaker chroma and not by cut-off channels."""
    frame = noise(format, colour=Colour(matrix=matrix))
    made = replace(painted(frame), colour=Colour(matrix=matrix))
    given = Blending(keep_colours=True)(made, frame)
    wanted, luma = kept_by_hand(made, frame)
    found = to_rgb(given).planes[0].astype(float)
    unit = format.peak / 255
    # Where it is nearly black or white, half a level of luma is some of a saturated blue.
    assert np.abs(found - wanted).max() <= 7 * unit
    assert np.abs(found - wanted).mean() <= 0.8 * unit
    red, blue = LUMA_WEIGHTS[matrix]
    seen = found @ np.array([red, 1 - red - blue, blue])
    assert np.abs(seen - luma).max() <= 2 * unit


@pytest.mark.parametrize("bits", [8, 10])
def test_chroma_that_has_room_is_kept_as_it_is_coded(bits: int) -> None:
    format = PixelFormat("yuv", bits, (2, 2))
    middle = 1 << (bits - 1)
    frame = noise(format)
    weak = [((p.astype(int) - middle) // 12 + middle).astype(format.dtype) for p in frame.planes[1:]]
    frame = replace(frame, planes=(frame.planes[0], *weak))
    grey = np.full((SIZE[1], SIZE[0], 3), middle, format.dtype)
    made = replace(painted(frame), planes=(grey,))
    given = Blending(keep_colours=True)(made, frame)
    assert np.array_equal(given.planes[1], weak[0])
    assert np.array_equal(given.planes[2], weak[1])
    assert np.ptp(given.planes[0]) == 0


def test_half_of_a_result_in_yuv_is_half_of_it_in_rgb() -> None:
    frame = to_gamut(noise(YUV444P))
    made = painted(frame)
    found = to_rgb(Blending(strength=0.5)(made, frame)).planes[0].astype(float)
    wanted = (to_rgb(frame).planes[0].astype(float) + made.planes[0]) / 2
    assert np.abs(found - wanted).max() <= 4


def to_gamut(frame: Frame) -> Frame:
    """The frame with chroma so weak that R, G, B hold it."""
    planes = (frame.planes[0] // 4 + 90, *(p // 16 + 120 for p in frame.planes[1:]))
    return replace(frame, planes=planes)


def test_a_larger_result_is_blended_with_the_source_resized() -> None:
    frame = noise(YUV420P)
    made = painted(Resize(190, 126)(frame))
    large = Resize(190, 126)(frame)
    assert np.array_equal(Blending(strength=0.0)(made, frame).planes[0], large.planes[0])
    half = Blending(strength=0.5)(made, frame)
    assert (half.width, half.height, half.format) == (190, 126, YUV420P)
    mask = Mask(banded()).fitted(SIZE)
    masked = Blending(mask=mask)(made, frame)
    assert np.array_equal(masked.planes[0][: 2 * MASKED - 1], large.planes[0][: 2 * MASKED - 1])


def test_grey_gets_the_colours_of_the_result() -> None:
    frame = noise(GRAY, colour=Colour(range="full"))
    half = Blending(strength=0.5)(painted(frame), frame)
    assert half.format == RGB
    wanted = (frame.planes[0][..., None].astype(float) + painted(frame).planes[0]) / 2
    assert np.abs(half.planes[0] - wanted).max() <= 1


def test_an_opacity_may_be_the_mask() -> None:
    frame = noise(RGB)
    opacity = np.zeros(SIZE[::-1], np.uint8)
    opacity[20:40] = 255
    made = painted(frame)
    found = Blending(mask="alpha")(made, frame, opacity).planes[0]
    assert np.array_equal(found[20:40], made.planes[0][20:40])
    assert np.array_equal(found[40:], frame.planes[0][40:])
    assert np.array_equal(Blending(mask="alpha")(made, frame).planes[0], made.planes[0])


def test_cards_say_what_nobody_asked_for() -> None:
    soft = ModelCard(name="soft", task="style", strength=0.6)
    kept = ModelCard(name="kept", task="style", keep_colours=True)
    found = Blending().of([soft, kept])
    assert (found.strength, found.keep_colours, found.idle) == (0.6, True, False)
    asked = Blending(strength=1.0, keep_colours=False).of([soft, kept])
    assert asked.idle
    assert Blending().of([]).idle
    assert ModelCard.from_json(soft.to_json()) == soft
    earlier = json.loads(soft.to_json())
    del earlier["strength"], earlier["keep_colours"]
    assert ModelCard.from_json(json.dumps(earlier)) == replace(soft, strength=1.0)
    with pytest.raises(ModelError, match="strength"):
        ModelCard(name="x", task="style", strength=1.5)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_beyond_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        Blending(strength=strength)


def test_masks_of_another_size_are_scaled_and_of_another_shape_refused() -> None:
    mask = Mask(np.zeros((90, 160), np.uint8))
    assert mask.fitted((160, 90)).note is None
    assert mask.fitted((1280, 720)).note == "the mask of 160x90 is scaled to 1280x720"
    with pytest.raises(SourceError, match="160x90, another shape than the picture's 640x480"):
        mask.fitted((640, 480))
    # Drawn on what a player shows: upright, and with square pixels.
    upright = Mask(np.array([[0, 255], [0, 255], [0, 255], [0, 255]], np.uint8))
    turned = upright.fitted((4, 2), rotation=90).weights((400, 200))
    assert turned[150:, 200].max() == 0 or turned[:50, 200].max() == 0
    with pytest.raises(SourceError, match="2x4, another shape"):
        upright.fitted((4, 2))
    assert Mask(np.zeros((90, 160), np.uint8)).fitted((720, 576), aspect=64 / 45).note
    with pytest.raises(ValueError, match="height, width"):
        Mask(np.zeros((4, 4, 3), np.uint8))


def test_a_mask_lies_as_the_picture_does() -> None:
    """A film that is turned for showing: what is black in the upright mask is untouched in it."""
    frame = noise(RGB, size=(96, 64), rotation=90)
    levels = np.full((96, 64), 255, np.uint8)
    levels[:30] = 0
    mask = Mask(levels).fitted((96, 64), rotation=90)
    made = Blending(mask=mask)(replace(painted(frame), rotation=90), frame)
    upright = [np.rot90(one.planes[0]) for one in (made, frame)]
    assert np.array_equal(upright[0][:30], upright[1][:30])
    assert not np.array_equal(upright[0][40:], upright[1][40:])


# The command


def negative(folder: Path, **facts: Any) -> Path:
    """A model that turns pictures to their negative."""
    nodes = [networks.helper.make_node("Sub", ["one", "image"], ["result"])]
    proto = networks.model(nodes, {"one": np.ones((1, 1, 1, 1), np.float32)}, [1, 3, "h", "w"])
    ModelCard(name="negative", task="style", halo=0, **facts).write_to(proto)
    return networks.write(proto, folder / "negative.onnx")


def planes(path: Path) -> list[tuple[Any, ...]]:
    with open_source(str(path)) as source:
        return [tuple(plane.copy() for plane in frame.planes) for frame in source]


def save(path: Path, levels: Any) -> Path:
    assert cv2.imwrite(str(path), levels)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mkv", size=(64, 48), frames=3)


def test_a_run_blends_by_its_options(clip: Path, tmp_path: Path) -> None:
    model, target = negative(tmp_path), tmp_path / "out.mkv"
    mask = save(tmp_path / "mask.png", banded((64, 48)))

    def made(*options: object) -> list[tuple[Any, ...]]:
        done = velatura(
            "run", clip, target, "-m", model, "--codec", "ffv1", "--overwrite", "--precision", "fp32",
            *options, check=True,
        )  # fmt: skip
        assert "is scaled" not in done.stderr
        return planes(target)

    given, whole = planes(clip), made()
    none = made("--strength", 0)
    half = made("--strength", 0.5)
    kept = made("--keep-colours")
    masked = made("--mask", mask)
    for k, frame in enumerate(given):
        assert all(np.array_equal(a, b) for a, b in zip(none[k], frame, strict=True))
        assert np.abs(half[k][0] - (whole[k][0].astype(float) + frame[0]) / 2).max() <= 1
        assert np.array_equal(kept[k][0], whole[k][0])
        assert np.array_equal(masked[k][0][:MASKED], frame[0][:MASKED])
        assert np.array_equal(masked[k][0][-10:, :20], whole[k][0][-10:, :20])


def test_the_models_card_decides_where_nothing_is_said(clip: Path, tmp_path: Path) -> None:
    model, target = negative(tmp_path, strength=0.0), tmp_path / "out.mkv"
    options = ("-m", model, "--codec", "ffv1", "--precision", "fp32", "--overwrite")
    velatura("run", clip, target, *options, check=True)
    assert np.array_equal(planes(target)[0][0], planes(clip)[0][0])
    velatura("run", clip, target, *options, "--strength", 1, check=True)
    assert not np.array_equal(planes(target)[0][0], planes(clip)[0][0])


def test_a_mask_of_another_size_is_said(clip: Path, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.png", banded((128, 96)))
    told = velatura(
        "run", clip, tmp_path / "out.mkv", "-m", negative(tmp_path), "--mask", mask, check=True
    ).stderr
    assert "of 128x96 is scaled to 64x48" in told


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--mask", "nowhere.png"), SOURCE, "cannot be read"),
        (("--mask", "wide.png"), SOURCE, "64x10, another shape than the picture's 64x48"),
        (("--mask", "clear.png"), SOURCE, "is transparent in parts"),
        (("--mask", "empty.png"), SOURCE, "is no picture"),
        (("--strength", "2"), 2, "--strength"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    clip: Path, tmp_path: Path, options: tuple[str, str], code: int, said: str
) -> None:
    save(tmp_path / "wide.png", np.zeros((10, 64), np.uint8))
    save(tmp_path / "clear.png", np.zeros((48, 64, 4), np.uint8))
    (tmp_path / "empty.png").write_bytes(b"")
    done = velatura("run", clip, "out.mkv", "-m", "identity", *options, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.mkv").exists()


def test_a_run_goes_on_with_the_same_blending_only(source: Path) -> None:
    target, mask = source.with_name("out.mp4"), source.with_name("mask.png")
    save(mask, banded((96, 64)))
    cut_off(source, target, "--journal", "--strength", 0.5, "--mask", mask)
    for options, said in (
        (("--strength", 0.7, "--mask", mask), "--strength has changed (was 0.5, is 0.7)"),
        (("--strength", 0.5), "--mask has changed (was a file of SHA-256 "),
        (("--strength", 0.5, "--mask", mask, "--keep-colours"), "--keep-colours has changed"),
    ):
        done = run(source, target, "--journal", *options)
        assert done.returncode
        assert said in done.stderr
    other = mask.rename(source.with_name("renamed.png"))
    done = run(source, target, "--journal", "--strength", 0.5, "--mask", other)
    assert done.returncode == 0, done.stderr
    assert "going on after 30 frames" in done.stderr


@pytest.mark.soak
def test_several_processes_blend_as_one(source: Path) -> None:
    one, several = source.with_name("one.mkv"), source.with_name("several.mkv")
    model = negative(source.parent)
    mask = save(source.with_name("mask.png"), banded((96, 64)))
    options = ("-m", model, "--strength", 0.5, "--mask", mask, "--codec", "ffv1", "--stabilize", 0.5)
    for target, workers in ((one, 1), (several, 2)):
        done = run(
            source, target, "--journal", *options, "--frames", 25, "--workers", workers, env=None
        )
        assert done.returncode == 0, done.stderr
    for a, b in zip(planes(one), planes(several), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "options",
    [("wave", "--strength", 0.1), pytest.param(("wave", "--keep-colours"), marks=pytest.mark.soak),
     pytest.param(("upscale-2x", "--strength", 0.5), marks=pytest.mark.soak)],
    ids=str,
)  # fmt: skip
def test_the_runs_own_look_at_the_picture_finds_the_source(
    options: tuple[object, ...], tmp_path: Path
) -> None:
    clip = videos.make(tmp_path / "in.mkv", size=(128, 96), frames=4)
    mask = save(tmp_path / "mask.png", banded((128, 96)))
    fixed = ("--mask", mask, "--precision", "fp32", "--backend", "openvino")
    velatura("run", clip, tmp_path / "out.mkv", "-m", *options, *fixed, check=True)
