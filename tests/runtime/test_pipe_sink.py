"""YUV4MPEG2 and bare planes, to standard output and into files; pictures of all kinds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from velatura.runtime import Encoding, Pump, SinkError, open_sink, open_source
from velatura.runtime.frame import Colour, PixelFormat

from . import videos
from .commands import velatura_bytes
from .test_encoders import decoded, given, samples, write

RUN = [sys.executable, "-m", "velatura.runtime", "run"]


def run(*arguments: object, **how: Any) -> subprocess.CompletedProcess[bytes]:
    return velatura_bytes("run", *arguments, **how)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(tmp_path_factory.mktemp("clip") / "in.mkv", frames=8, tone=True)


def test_standard_output_gets_frames_and_nothing_else(clip: Path, tmp_path: Path) -> None:
    done = run(clip, "-", "-m", "identity")
    assert done.returncode == 0, done.stderr
    assert b"8 of 8 frames" in done.stderr
    assert b"the sound is left out" in done.stderr
    (tmp_path / "got.y4m").write_bytes(done.stdout)
    found, before = videos.read(tmp_path / "got.y4m"), videos.read(clip)
    assert found.seconds == pytest.approx([n / 25 for n in range(8)])
    for one, other in zip(before.luma, found.luma, strict=True):
        np.testing.assert_array_equal(one, other)
    # To the last byte.
    header = done.stdout.index(b"\n") + 1
    assert len(done.stdout) == header + 8 * (len(b"FRAME\n") + 64 * 48 * 3 // 2)


def test_json_goes_aside(clip: Path) -> None:
    done = run(clip, "-", "--json", "--frames", 3)
    assert json.loads(done.stderr)["frames_out"] == 3
    assert done.stdout.startswith(b"YUV4MPEG2 ")


def test_bare_planes(clip: Path) -> None:
    done = run(clip, "-", "--codec", "rawvideo")
    assert done.returncode == 0
    assert b"bare planes: yuv420p, 64x48 at 25 frames a second" in done.stderr
    with av.open(str(clip)) as container:
        planes = [
            videos.plane(frame, index).tobytes()
            for frame in container.decode(video=0)
            for index in range(3)
        ]
    assert done.stdout == b"".join(planes)


def test_bare_planes_in_another_order(clip: Path) -> None:
    done = run(clip, "-", "--codec", "rawvideo", "--pix-fmt", "bgra", "--frames", 1)
    pixels = np.frombuffer(done.stdout, np.uint8).reshape(48, 64, 4)
    assert (pixels[..., 3] == 255).all()
    with av.open(str(clip)) as container:
        wanted = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(pixels[..., 2::-1].astype(int) - wanted).mean() < 6


def test_a_reader_that_leaves_ends_the_run(tmp_path: Path) -> None:
    command = [*RUN, "pattern:320x240@25?frames=2000", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(9) == b"YUV4MPEG2"
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 4
    assert "whoever read standard output has gone, after " in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_terminal_is_no_place_for_video(monkeypatch: pytest.MonkeyPatch) -> None:
    number, other = os.openpty()
    with os.fdopen(other, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(SinkError, match="is a terminal"):
            open_sink("-", like=given(PixelFormat("yuv", 8, (2, 2))))
    os.close(number)


@pytest.mark.parametrize("range_", ["limited", "full"])
@pytest.mark.parametrize(
    ("format", "siting", "name"),
    [
        (PixelFormat("yuv", 8, (2, 2)), "left", b" C420mpeg2 "),
        (PixelFormat("yuv", 8, (2, 2)), "center", b" C420jpeg "),
        (PixelFormat("yuv", 8, (2, 2)), "topleft", b" C420paldv "),
        (PixelFormat("yuv", 8, (2, 1)), "left", b" C422 "),
        (PixelFormat("yuv", 8), "left", b" C444 "),
        (PixelFormat("gray", 8), "left", b" Cmono "),
        (PixelFormat("gray", 10), "left", b" Cmono10 "),
        (PixelFormat("yuv", 10, (2, 2)), "left", b" C420p10 XYSCSS=420P10 "),
        (PixelFormat("yuv", 12, (2, 1)), "left", b" C422p12 XYSCSS=422P12 "),
        (PixelFormat("yuv", 16), "left", b" C444p16 XYSCSS=444P16 "),
    ],
)  # fmt: skip
def test_what_y4m_holds(
    format: PixelFormat, siting: Any, name: bytes, range_: Any, tmp_path: Path
) -> None:
    colour = Colour(matrix="bt601", range=range_, siting=siting)
    source = given(format, colour=colour, size=(65, 47) if format.family == "yuv" else (64, 48))
    source.frames = [replace(f, aspect=Fraction(16, 15)) for f in source.frames]
    assert not write(source, tmp_path / "o.y4m", Encoding())
    header = (tmp_path / "o.y4m").read_bytes().split(b"\n", 1)[0] + b" "
    assert name in header
    assert b" F25:1 " in header
    assert b" A16:15 " in header
    assert f" XCOLORRANGE={range_.upper()} ".encode() in header
    found = decoded(tmp_path / "o.y4m")
    count = 1 if format.family == "gray" else 3
    for frame, picture in zip(source, found, strict=True):
        for index in range(count):
            np.testing.assert_array_equal(samples(picture, index), frame.planes[index])
    with open_source(tmp_path / "o.y4m") as again:
        assert again.info.aspect == Fraction(16, 15)
        assert next(iter(again)).colour.range == range_


def test_a_y4m_file_is_proven_and_overwrites_nothing(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.y4m"
    with open_source(clip) as given, open_sink(target, like=given) as sink:
        assert not target.exists()
        Pump(given, [], sink).run()
    assert [p.name for p in tmp_path.iterdir()] == ["o.y4m"]
    with open_source(clip) as given, pytest.raises(SinkError, match="exists"):
        open_sink(target, like=given)
    with open_source(target) as given, pytest.raises(SinkError, match="input itself"):
        open_sink(target, like=given, overwrite=True)


def test_a_failure_leaves_no_y4m_file(clip: Path, tmp_path: Path) -> None:
    with open_source(clip) as given:
        sink = open_sink(tmp_path / "o.y4m", like=given)
        sink.write(next(iter(given)))
        sink.abort()
    assert not list(tmp_path.iterdir())


def test_a_size_change_is_an_error(tmp_path: Path) -> None:
    first, second = given(PixelFormat("gray")), given(PixelFormat("gray"), size=(32, 32))
    with open_sink(tmp_path / "o.y4m", like=first) as sink:
        sink.write(first.frames[0])
        with pytest.raises(SinkError, match="32x32 in a stream of 64x48"):
            sink.write(second.frames[0])


def test_changing_times_are_said(tmp_path: Path) -> None:
    source = given(PixelFormat("gray"), count=4, times=[0, 40, 400, 440])
    with open_sink(tmp_path / "o.y4m", like=source) as sink:
        for frame in source:
            sink.write(frame)
        assert any("--fps makes them so" in note for note in sink.notes)
    assert len(decoded(tmp_path / "o.y4m")) == 4
    steady = given(PixelFormat("gray"), count=4, times=[7, 46, 87, 127])
    with open_sink(tmp_path / "p.y4m", like=steady) as sink:
        for frame in steady:
            sink.write(frame)
        assert not sink.notes


@pytest.mark.parametrize(
    ("uri", "encoding", "complaint"),
    [
        ("-", Encoding(codec="h264"), "- holds no h264"),
        ("-", Encoding(crf=3), "take no --crf"),
        ("-", Encoding(pix_fmt="rgb24"), "YUV4MPEG2 does not hold rgb24"),
        ("-", Encoding(codec="rawvideo", pix_fmt="pal8"), "rawvideo does not hold pal8"),
        ("o.y4m", Encoding(options=(("g", "1"),)), "no --enc"),
    ],
)
def test_what_raw_frames_have_not(uri: str, encoding: Encoding, complaint: str) -> None:
    with pytest.raises(SinkError, match=complaint):
        open_sink(uri, like=given(PixelFormat("yuv", 8, (2, 2))), encoding=encoding)


# ---------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_pictures_keep_rgb_depth_and_opacity(
    suffix: str, bits: int, alpha: bool, tmp_path: Path
) -> None:
    source = given(PixelFormat("rgb", bits), alpha=alpha)
    notes = write(source, tmp_path / f"%d{suffix}", Encoding(quality="archive"))
    shallow = suffix == ".webp" and bits == 16
    assert any("16 bit becomes 8 bit" in note for note in notes) == shallow
    for index, frame in enumerate(source):
        pixels = cv2.imread(str(tmp_path / f"{index}{suffix}"), cv2.IMREAD_UNCHANGED)
        assert pixels.dtype == (np.uint8 if shallow else frame.format.dtype)
        assert pixels.shape[2] == (4 if alpha else 3)
        if shallow:
            continue
        visible = frame.alpha > 0 if frame.alpha is not None else np.ones(pixels.shape[:2], bool)
        np.testing.assert_array_equal(pixels[visible][:, 2::-1], frame.planes[0][visible])
        if alpha:
            np.testing.assert_array_equal(pixels[..., 3], frame.alpha)


def test_grey_pictures_are_grey(tmp_path: Path) -> None:
    source = given(PixelFormat("gray", 10), colour=Colour(range="full"))
    write(source, tmp_path / "%d.png", Encoding())
    pixels = cv2.imread(str(tmp_path / "0.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (48, 64)
    wanted = source.frames[0].planes[0].astype(float) * 65535 / 1023
    assert np.abs(pixels - wanted).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_better_pictures_are_larger(suffix: str, tmp_path: Path) -> None:
    source = given(PixelFormat("rgb"))
    encodings = [Encoding(quality=quality) for quality in ("draft", "good", "archive")]
    encodings += [Encoding(crf=crf) for crf in (40, 20, 0)]
    sizes: list[int] = []
    for encoding in encodings:
        write(source, tmp_path / f"%d{suffix}", encoding)
        sizes.append((tmp_path / f"0{suffix}").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3] < sizes[4] < sizes[5]


def test_jpeg_leaves_opacity_out_and_says_so(tmp_path: Path) -> None:
    source = given(PixelFormat("rgb"), alpha=True)
    assert any("opacity" in note for note in write(source, tmp_path / "%d.jpg", Encoding()))
    assert cv2.imread(str(tmp_path / "0.jpg"), cv2.IMREAD_UNCHANGED).shape[2] == 3


@pytest.mark.parametrize(
    ("name", "encoding", "complaint"),
    [
        ("%d.png", Encoding(codec="h264"), "leave --codec out"),
        ("%d.png", Encoding(crf=20), "lossless and take no --crf"),
        ("%d.jpg", Encoding(crf=99), "take 0"),
        ("%d.jpg", Encoding(preset="slow"), "take no --preset"),
        ("%d.png", Encoding(pix_fmt="rgb24"), "--pix-fmt"),
    ],
)
def test_what_pictures_have_not(name: str, encoding: Encoding, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=complaint):
        open_sink(tmp_path / name, like=given(PixelFormat("rgb")), encoding=encoding)
