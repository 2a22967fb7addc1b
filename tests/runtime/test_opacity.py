"""Opacity into what holds none: the picture is laid over the background, not cut out of its opacity."""

import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import typer
from velatura.runtime import Encoding, Pump, open_sink, open_source
from velatura.runtime.colour import over
from velatura.runtime.frame import Colour, Frame, PixelFormat
from velatura.runtime.jobs.options import red_green_blue

GREEN = (0, 200, 40)
SIZE = (64, 48)


def film(path: Path, codec: str, pix_fmt: str) -> Path:
    """Red and opaque at the left, white and half transparent, white and wholly transparent."""
    picture = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
    picture[:, :24] = (255, 0, 0, 255)
    picture[:, 24:40] = (255, 255, 255, 128)
    picture[:, 40:] = (255, 255, 255, 0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def pictures(path: Path, *, matrix: str | None) -> np.ndarray:
    if "%" in path.name:
        found = cv2.imread(str(path).replace("%d", "0"), cv2.IMREAD_COLOR)
        assert found is not None
        return found[..., ::-1]
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()


@pytest.mark.parametrize("background", [(0, 0, 0), GREEN])
@pytest.mark.parametrize("name", ["o.mp4", "o.y4m", "o.gif", "%d.jpg"])
@pytest.mark.parametrize(
    ("source", "codec", "pix_fmt"),
    [
        ("in.mov", "prores_ks", "yuva444p10le"),
        ("in.apng", "apng", "rgba"),
        ("in.mkv", "ffv1", "yuva420p"),
    ],
)
def test_it_is_laid_over_the_background(
    source: str, codec: str, pix_fmt: str, name: str, background: tuple[int, int, int], tmp_path: Path
) -> None:
    given = film(tmp_path / source, codec, pix_fmt)
    encoding = Encoding(quality="archive" if name != "o.y4m" else "good", background=background)
    with (
        open_source(given) as opened,
        open_sink(tmp_path / name, like=opened, encoding=encoding) as sink,
    ):
        assert opened.info.alpha
        Pump(opened, [], sink).run()
        assert any("laid over black, or over --background" in note for note in sink.notes)
    # YUV4MPEG2 cannot say that RGB has become BT.709.
    matrix = "ITU709" if (name, codec) == ("o.y4m", "apng") else None
    found = pictures(tmp_path / name, matrix=matrix)[24].astype(int)
    middle = np.array(background) + (255 - np.array(background)) * 128 / 255
    for column, wanted in ((10, np.array((255, 0, 0))), (32, middle), (56, np.array(background))):
        assert np.abs(found[column] - wanted).max() < 14, (column, found[column])


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("family", ["rgb", "gray", "yuv"])
def test_every_format_and_depth(family: str, bits: int) -> None:
    bits = 16 if family == "rgb" and bits == 10 else bits
    format = PixelFormat(family, bits, (2, 2) if family == "yuv" else (1, 1))  # type: ignore[arg-type]
    planes = tuple(
        np.full(shape, format.peak // 2, format.dtype) for shape in format.plane_shapes(6, 4)
    )
    frame = Frame(
        planes=planes, format=format, pts=0, time_base=Fraction(1), colour=Colour(range="full")
    )
    alpha = np.zeros((4, 6), format.dtype)
    alpha[:, :2] = format.peak
    found = over(replace(frame, alpha=alpha), (255, 255, 255))
    assert found.alpha is None
    assert over(frame, (255, 255, 255)) is frame
    luma = found.planes[0].reshape(4, 6, -1)
    assert (luma[:, :2] == format.peak // 2).all()
    assert (luma[:, 2:] >= format.peak - (1 << (bits - 8))).all()


@pytest.mark.parametrize("text", ["", "12345", "#12345g", "purplish"])
def test_what_is_no_colour(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no colour such as"):
        red_green_blue("--background", text)
    assert red_green_blue("--background", "#0A0b0c") == (10, 11, 12)
    assert red_green_blue("--background", "white") == (255, 255, 255)


@pytest.mark.parametrize("background", [(0, 0, 0), GREEN])
@pytest.mark.parametrize("name", ["o.mp4", "%d.jpg"])
def test_a_gifs_holes_show_the_background(
    name: str, background: tuple[int, int, int], tmp_path: Path
) -> None:
    """Made by FFmpeg's own palette, whose transparent entry is one of 256; half of it is opaque."""
    given = film(tmp_path / "in.apng", "apng", "rgba")
    gif = tmp_path / "in.gif"
    graph = "split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", given, "-vf", graph, gif]
    subprocess.run(command, check=True)
    encoding = Encoding(quality="archive", background=background)
    with (
        open_source(gif) as opened,
        open_sink(tmp_path / name, like=opened, encoding=encoding) as sink,
    ):
        assert opened.info.alpha
        Pump(opened, [], sink).run()
    found = pictures(tmp_path / name, matrix=None)[24].astype(int)
    assert np.abs(found[10] - (255, 0, 0)).max() < 14
    assert np.abs(found[56] - background).max() < 14
