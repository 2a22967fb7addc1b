"""Conform and Upright: one shape for a whole film, and pixels that lie as they are shown."""

import subprocess
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import SourceError, open_source
from velatura.runtime.colour import to_rgb, to_yuv
from velatura.runtime.frame import GRAY, RGB, YUV420P, YUV444P, Colour, Frame, PixelFormat
from velatura.runtime.jobs.job import Job, stages_of
from velatura.runtime.jobs.run import run_job
from velatura.runtime.stages import Blending, Conform, Resize, Upright

from . import videos

RNG = np.random.default_rng(5)
FORMATS = [
    YUV420P,
    PixelFormat("yuv", 10, (2, 2)),
    PixelFormat("yuv", 8, (2, 1)),
    PixelFormat("yuv", 12, (4, 1)),
    PixelFormat("yuv", 8, (1, 2)),
    YUV444P,
    GRAY,
    PixelFormat("gray", 16),
    RGB,
]


def noise(format: PixelFormat = YUV420P, width: int = 32, height: int = 18, **fields: Any) -> Frame:
    planes = tuple(
        RNG.integers(0, format.peak + 1, shape).astype(format.dtype)
        for shape in format.plane_shapes(width, height)
    )
    return Frame(planes=planes, format=format, pts=3, time_base=Fraction(1, 25), **fields)


def scene(width: int = 48, height: int = 32, **fields: Any) -> Frame:
    """A smooth RGB picture that is the same in no two corners."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    red, green = 40 + 160 * x / width, 40 + 160 * y / height
    blue = 120 + 60 * np.sin(x / 7) * np.cos(y / 9)
    pixels = np.stack([red, green, blue], -1).astype(np.uint8)
    return Frame(planes=(pixels,), format=RGB, pts=0, time_base=Fraction(1, 25), **fields)


def opacity(frame: Frame) -> np.ndarray:
    alpha = RNG.integers(0, frame.format.peak + 1, (frame.height, frame.width))
    return alpha.astype(frame.format.dtype)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_frames_that_fit_pass_as_the_same_object(format: PixelFormat) -> None:
    conform = Conform()
    for index in range(3):
        frame = noise(format, aspect=Fraction(4, 3), rotation=90, index=index)
        assert conform(frame) is frame
    assert conform.notes == ()


@pytest.mark.parametrize("first", FORMATS, ids=str)
@pytest.mark.parametrize("later", FORMATS, ids=str)
def test_formats_become_the_first_ones(first: PixelFormat, later: PixelFormat) -> None:
    conform = Conform()
    conform(noise(first))
    grey = Frame(
        planes=tuple(
            np.full(shape, 1 << (later.bits - 1), later.dtype) for shape in later.plane_shapes(32, 18)
        ),
        format=later,
        pts=9,
        time_base=Fraction(1, 25),
    )
    result = conform(grey)
    assert (result.format, result.pts) == (first, 9)
    found = to_rgb(result).planes[0].astype(float) / first.peak
    wanted = to_rgb(grey).planes[0].astype(float) / later.peak
    assert np.abs(found - wanted).max() < 2 / 255
    assert bool(conform.notes) == (first != later)


def test_colours_stay_while_matrix_and_range_change() -> None:
    conform = Conform()
    first = to_yuv(scene(), YUV444P, Colour(matrix="bt601", range="limited"))
    later = to_yuv(scene(), YUV444P, Colour(matrix="bt709", range="full"))
    conform(first)
    result = conform(later)
    assert result.colour == first.colour
    for found, wanted in zip(result.planes, first.planes, strict=True):
        assert np.abs(found.astype(int) - wanted).max() <= 2
    (note,) = conform.notes
    assert "matrix bt709 becomes bt601" in note
    assert "range full becomes limited" in note


def test_light_is_not_converted_and_that_is_said() -> None:
    conform = Conform()
    conform(noise(colour=Colour(primaries=1, transfer=1)))
    hdr = noise(colour=Colour(primaries=9, transfer=16), index=70)
    result = conform(hdr)
    assert (result.colour.primaries, result.colour.transfer) == (1, 1)
    np.testing.assert_array_equal(result.planes[0], hdr.planes[0])
    assert "frame 70" in conform.notes[0]
    assert "(9, 16) are passed off as (1, 1), unconverted" in conform.notes[0]


def test_the_same_shape_on_the_screen_is_resized() -> None:
    conform = Conform()
    conform(noise(width=64, height=48))
    small = noise(width=32, height=24)
    result = conform(small)
    wanted = Resize(64, 48)(small)
    for found, plane in zip(result.planes, wanted.planes, strict=True):
        np.testing.assert_array_equal(found, plane)
    wide = noise(width=48, height=48, aspect=Fraction(4, 3))
    result = conform(wide)
    assert (result.width, result.height, result.aspect) == (64, 48, 1)
    assert result.planes[0][:, 0].std() > 0, "no bars"


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("range_", ["limited", "full"])
def test_another_shape_of_pixels_is_framed_in_black(format: PixelFormat, range_: Any) -> None:
    colour = Colour(range=range_)
    conform = Conform()
    conform(noise(format, 64, 64, colour=colour))
    bright = Frame(
        planes=tuple(
            np.full(shape, format.peak * 3 // 4, format.dtype) for shape in format.plane_shapes(64, 64)
        ),
        format=format,
        pts=0,
        time_base=Fraction(1),
        colour=colour,
        aspect=Fraction(2),
    )
    result = conform(bright)
    assert (result.width, result.height, result.aspect) == (64, 64, 1)
    rgb = to_rgb(result).planes[0]
    assert (rgb[:12] == 0).all()
    assert (rgb[-12:] == 0).all()
    inside = to_rgb(bright).planes[0][0, 0]
    np.testing.assert_array_equal(rgb[20:44], np.broadcast_to(inside, (24, 64, 3)))
    dark = 16 << (format.bits - 8) if range_ == "limited" and format.family != "rgb" else 0
    assert (result.planes[0][0] == dark).all()
    tall = conform(replace(bright, aspect=Fraction(1, 4)))
    rgb = to_rgb(tall).planes[0]
    assert (rgb[:, :16] == 0).all()
    assert (rgb[:, -16:] == 0).all()
    assert (rgb[10:54, 30:32] == inside).all()


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    later=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    aspects=st.tuples(*[st.fractions(Fraction(1, 4), 4, max_denominator=9)] * 2),
    format=st.sampled_from(FORMATS),
    other=st.sampled_from(FORMATS),
    rotation=st.sampled_from([0, 90, 180, 270]),
    alpha=st.tuples(st.booleans(), st.booleans()),
)
def test_whatever_comes_has_the_first_ones_shape(
    size: tuple[int, int],
    later: tuple[int, int],
    aspects: tuple[Fraction, Fraction],
    format: PixelFormat,
    other: PixelFormat,
    rotation: int,
    alpha: tuple[bool, bool],
) -> None:
    conform = Conform()
    first = noise(format, *size, aspect=aspects[0])
    second = noise(other, *later, aspect=aspects[1], rotation=rotation)
    first, second = (
        replace(frame, alpha=opacity(frame)) if wanted else frame
        for frame, wanted in zip((first, second), alpha, strict=True)
    )
    conform(first)
    result = conform(second)
    assert (result.width, result.height, result.format) == (*size, format)
    assert (result.aspect, result.rotation, result.colour) == (aspects[0], 0, first.colour)
    assert (result.alpha is not None) == alpha[0]
    assert max(int(plane.max()) for plane in result.planes) <= format.peak


def test_another_size_fills_the_first_ones() -> None:
    conform = Conform()
    conform(noise(width=64, height=48))
    tall = noise(width=48, height=64)
    result = conform(tall)
    wanted = Resize(64, 48)(tall)
    assert result.aspect == 1
    for found, plane in zip(result.planes, wanted.planes, strict=True):
        np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize(("name", "codec", "options"), [
    ("o.webm", "libvpx", {}), ("o.mp4", "libx265", {"x265-params": "repeat-headers=1:log-level=none"}),
])  # fmt: skip
def test_a_header_of_another_size_is_told(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    """The header of a file of 64x48 over the pictures of one of 96x80."""
    paths = [tmp_path / f"{size[0]}-{name}" for size in ((64, 48), (96, 80))]
    for path, size in zip(paths, ((64, 48), (96, 80)), strict=True):
        videos.make(path, codec=codec, size=size, frames=4, options=options)
    mixed = tmp_path / name
    with (
        av.open(str(paths[0])) as head,
        av.open(str(paths[1])) as body,
        av.open(str(mixed), "w") as out,
    ):
        stream = out.add_stream_from_template(head.streams.video[0])
        for packet in body.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    with open_source(paths[1]) as source:
        assert not [note for note in source.info.notes if "the file states" in note]
    with open_source(mixed) as source:
        assert (source.info.width, source.info.height) == (96, 80)
        told = "the file states 64x48, and its first picture is 96x80: all become that size"
        assert told in source.info.notes


def test_opacity_is_scaled_framed_and_made_up() -> None:
    conform = Conform()
    first = noise(PixelFormat("yuv", 10, (2, 2)), 64, 64)
    conform(replace(first, alpha=opacity(first)))
    bare = conform(noise(width=64, height=64))
    assert bare.alpha is not None
    assert (bare.alpha == 1023).all()
    wide = noise(width=64, height=64, aspect=Fraction(2))
    framed = conform(replace(wide, alpha=np.full((64, 64), 51, np.uint8)))
    assert framed.alpha is not None
    assert (framed.alpha[:16] == 1023).all()
    assert (framed.alpha[16:48] == round(51 / 255 * 1023)).all()


def test_a_film_that_turns_is_turned_back() -> None:
    conform = Conform()
    conform(scene(32, 48))
    lying = scene(48, 32, rotation=90)
    result = conform(lying)
    np.testing.assert_array_equal(result.planes[0], np.rot90(lying.planes[0]))
    assert result.rotation == 0
    turned = Conform()
    turned(scene(48, 32, rotation=90))
    result = turned(scene(32, 48, rotation=0))
    assert (result.width, result.height, result.rotation) == (48, 32, 90)
    upright = np.rot90(result.planes[0], result.rotation // 90)
    np.testing.assert_array_equal(upright, scene(32, 48).planes[0])


def test_notes_tell_each_change_once_and_not_without_end() -> None:
    conform = Conform()
    conform(noise(width=64, height=48))
    for index in range(1, 6):
        conform(noise(width=32, height=24, index=index))
    assert conform.notes == ("from frame 1 on the picture is another one: size 32x24 becomes 64x48",)
    for width in range(30, 60):
        conform(noise(width=width, height=24))
    assert len(conform.notes) == 9
    assert "more often" in conform.notes[-1]


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("size", [(32, 18), (31, 17)])
def test_turning_moves_luma_and_changes_none(
    format: PixelFormat, rotation: int, size: tuple[int, int]
) -> None:
    frame = noise(format, *size, rotation=rotation)
    frame = replace(
        frame,
        alpha=opacity(frame),
        depth=np.zeros(size[::-1], np.float32),
        motion=np.zeros((*size[::-1], 2), np.float32),
    )
    result = Upright()(frame)
    assert (result.rotation, result.format, result.pts) == (0, format, 3)
    assert (result.depth, result.motion) == (None, None)
    np.testing.assert_array_equal(result.planes[0], np.rot90(frame.planes[0], rotation // 90))
    assert frame.alpha is not None
    assert result.alpha is not None
    np.testing.assert_array_equal(result.alpha, np.rot90(frame.alpha, rotation // 90))
    if format == YUV444P:
        for plane, before in zip(result.planes, frame.planes, strict=True):
            np.testing.assert_array_equal(plane, np.rot90(before, rotation // 90))
    assert max(int(plane.max()) for plane in result.planes) <= format.peak


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
@pytest.mark.parametrize("subsample", [(2, 2), (2, 1), (4, 1), (1, 2)])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_chroma_stays_on_its_luma(siting: Any, subsample: tuple[int, int], quarters: int) -> None:
    """Ramps in both directions, sampled where the siting says: any shift is a constant offset."""
    width, height = 64, 48
    format = PixelFormat("yuv", 16, subsample)
    offsets = [
        0.0 if siting == "topleft" or (siting == "left" and axis == 0) else (subsample[axis] - 1) / 2
        for axis in range(2)
    ]

    def values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What the chroma is at places of the picture as it is coded."""
        return 9000 + 300 * x + 170 * y

    columns, rows = format.chroma_size(width, height)
    x, y = np.arange(columns) * subsample[0] + offsets[0], np.arange(rows) * subsample[1] + offsets[1]
    plane = np.rint(values(x[None], y[:, None])).astype(np.uint16)
    frame = Frame(
        planes=(np.zeros((height, width), np.uint16), plane, plane),
        format=format, pts=0, time_base=Fraction(1), rotation=quarters * 90,
        colour=Colour(siting=siting),
    )  # fmt: skip
    found = Upright()(frame).planes[1].astype(float)
    size = (height, width) if quarters % 2 else (width, height)
    columns, rows = format.chroma_size(*size)
    assert found.shape == (rows, columns)
    x = np.arange(columns)[None] * subsample[0] + offsets[0] + np.zeros((rows, 1))
    y = np.arange(rows)[:, None] * subsample[1] + offsets[1] + np.zeros((1, columns))
    before = {
        1: (width - 1 - y, x),
        2: (width - 1 - x, height - 1 - y),
        3: (y, height - 1 - x),
    }[quarters]
    edge = 12 if rows > 40 else 4
    inner = (slice(edge, -edge), slice(4, -4))
    assert np.abs(found - values(*before))[inner].max() <= 2


@pytest.mark.parametrize(
    ("aspect", "rotation", "size"),
    [
        (Fraction(2, 3), 0, (64, 72)),
        (Fraction(4, 3), 0, (86, 48)),
        (Fraction(2, 3), 90, (72, 64)),
        (Fraction(1), 0, (64, 48)),
        (Fraction(1001, 1000), 0, (64, 48)),
    ],
)
def test_pixels_become_square_and_none_is_lost(
    aspect: Fraction, rotation: int, size: tuple[int, int]
) -> None:
    frame = noise(width=64, height=48, aspect=aspect, rotation=rotation)
    result = Upright()(frame)
    assert (result.width, result.height) == size
    assert (result.aspect, result.rotation) == (1, 0)
    assert result is frame or (aspect, rotation) != (1, 0)


def test_an_aspect_that_is_none_is_refused() -> None:
    with pytest.raises(SourceError, match="leave --bake out"):
        Upright()(noise(width=64, height=48, aspect=Fraction(1, 4000)))


def test_a_baked_picture_is_what_a_size_means() -> None:
    job = Job(source="a", sink="b", bake=True, size=(90, 160))
    frame = noise(width=64, height=36, rotation=270)
    for stage in stages_of(job, [], Blending()):
        frame = stage(frame)
    assert (frame.width, frame.height, frame.rotation, frame.aspect) == (90, 160, 0, 1)
    assert isinstance(stages_of(job, [], Blending())[-1], Conform)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_turned_file_is_baked_as_its_player_shows_it(rotation: int, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(rotation)
        for index in range(5):
            picture = av.VideoFrame.from_ndarray(videos.drawing((64, 48), index), format="rgb24")
            out.mux(stream.encode(picture.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_job(Job(source=str(source), sink=str(target), bake=True, crf=0), quiet=True) == 0
    before, after = videos.read(source), videos.read(target)
    assert (before.rotation % 360, after.rotation) == (rotation % 360, 0)
    assert len(after.luma) == 5
    for one, two in zip(before.luma, after.luma, strict=True):
        np.testing.assert_array_equal(np.rot90(one, rotation // 90), two)


def test_wide_pixels_of_a_clip_are_baked(own_clips: Path, tmp_path: Path) -> None:
    source, target = own_clips / "wide_pixels.mp4", tmp_path / "out.mp4"
    job = Job(source=str(source), sink=str(target), bake=True, frames=4, audio=False)
    assert run_job(job, quiet=True) == 0
    before, after = videos.read(source), videos.read(target)
    assert (before.width, before.height, before.aspect) == (320, 180, Fraction(2, 3))
    assert (after.width, after.height, after.aspect) == (320, 270, 1)
    wanted = cv2.resize(before.luma[0], (320, 270), interpolation=cv2.INTER_CUBIC)
    assert np.abs(after.luma[0].astype(int) - wanted).mean() < 2


def test_a_film_that_changes_in_its_middle_keeps_one_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MPEG-TS pieces of three sizes and two formats, put together as recorders do."""
    pieces: list[bytes] = []
    for number, (size, pix_fmt) in enumerate(
        [((64, 48), "yuv420p"), ((48, 64), "yuv420p"), ((128, 96), "yuv444p")]
    ):
        path = tmp_path / f"{number}.ts"
        videos.make(path, size=size, pix_fmt=pix_fmt, codec="libx264", frames=8, options={"bf": "0"})
        pieces.append(path.read_bytes())
    source, target = tmp_path / "in.ts", tmp_path / "out.mkv"
    source.write_bytes(b"".join(pieces))
    assert run_job(Job(source=str(source), sink=str(target), crf=4)) == 0
    found = videos.read(target)
    assert (len(found.luma), found.width, found.height) == (24, 64, 48)
    assert found.seconds == sorted(found.seconds)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-fps_mode", "passthrough",
               "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"]  # fmt: skip
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    by_ffmpeg = np.frombuffer(raw, np.uint8).reshape(24, 72, 64)[:, :48].astype(int)
    for luma, wanted in zip(found.luma, by_ffmpeg, strict=True):
        # Its bicubic filter is a sharper one, and the pictures are hard bands.
        assert np.abs(luma - wanted).mean() < 6
        assert luma[:, :4].mean() > 40, "no bars"
    notes = [line for line in capsys.readouterr().err.splitlines() if "another one" in line]
    assert len(notes) == 2
    assert "from frame 8 on" in notes[0]
    assert "size 48x64 becomes 64x48" in notes[0]
    assert "format yuv 4:4:4 8 bit becomes yuv 4:2:0 8 bit" in notes[1]
