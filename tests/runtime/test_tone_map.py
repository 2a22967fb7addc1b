"""HDR made into SDR: by FFmpeg's curve as FFmpeg does it, by BT.2390's as its formula has it."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from velatura.runtime import Encoding, open_source
from velatura.runtime.frame import HLG, PQ, Colour, Damage, Frame, PixelFormat, VideoInfo
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.media.options import ToneMap
from velatura.runtime.sources import Source
from velatura.runtime.sources.tone_mapped import ToneMappedSource

from ..own_data import scenes
from . import videos
from .commands import velatura
from .test_encoders import write
from .test_hdr import DISPLAY, hdr_source

BT2020 = {PQ: Colour(matrix="bt2020", primaries=9, transfer=PQ),
          HLG: Colour(matrix="bt2020", primaries=9, transfer=HLG)}  # fmt: skip
CHAIN = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
)
"""What is usual with FFmpeg: its peak is 1000 candela per square metre where none is stated."""


def patches(transfer: int) -> list[np.ndarray]:
    """Y, U, V of 10 bits: greys, hues and skin from dark to bright, in patches, as (48, 64) each."""
    rng = np.random.default_rng(transfer)
    hues = rng.uniform(0.55, 1.0, (6, 8, 3))
    hues[0] = 1.0
    signal = np.linspace(0.12, 0.72, 8)[None, :, None] * hues
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    planes = [64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red]
    return [np.rint(p).astype(np.uint16).repeat(8, 0).repeat(8, 1) for p in planes]


def clip(path: Path, transfer: int, planes: list[np.ndarray] | None = None) -> Path:
    planes = planes or patches(transfer)
    high, wide = planes[0].shape
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv444p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9
        context.color_range = 1
        for index in range(3):
            frame = av.VideoFrame(wide, high, "yuv444p10le")
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.frombuffer(plane, np.uint16).reshape(high, -1)  # type: ignore[call-overload]
                rows[:, :wide] = values
            frame.color_primaries, frame.color_trc, frame.colorspace = 9, transfer, 9
            frame.color_range = 1
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hable_is_ffmpegs_within_two_levels(transfer: int, tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mkv", transfer)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", CHAIN,
               "-frames:v", "1", "-f", "rawvideo", "-"]  # fmt: skip
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    wanted = np.frombuffer(raw, np.uint8).reshape(3, 48, 64).astype(int)
    with open_source(path, tone_map="hable") as source:
        frame = next(iter(source))
    assert frame.format == PixelFormat("yuv", 8)
    assert frame.colour == Colour(matrix="bt709", primaries=1, transfer=1)
    found = np.stack(frame.planes).astype(int)
    assert wanted[0].max() - wanted[0].min() > 100
    assert np.abs(found - wanted).max() <= 2, np.abs(found - wanted).reshape(3, -1).max(1)


class Greys(Source):
    """One frame of 16-bit RGB in PQ, whose columns have the given light."""

    def __init__(self, light: np.ndarray, *, peak: int) -> None:
        self.uri = "greys"
        power = (light / 10_000) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
        pixels = np.rint(signal * 65535).astype(np.uint16)
        self.pixels = np.repeat(pixels[None, :, None], 3, axis=2)
        self.info = VideoInfo(
            width=len(light), height=1, format=PixelFormat("rgb", 16), rate=Fraction(25),
            time_base=Fraction(1, 25), colour=BT2020[PQ], hdr=replace(DISPLAY, max_cll=peak),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(
            planes=(self.pixels,), format=self.info.format, pts=0, time_base=Fraction(1, 25),
            colour=self.info.colour,
        )  # fmt: skip

    @property
    def damage(self) -> Damage:
        return Damage()

    def close(self) -> None:
        pass


def test_bt2390_leaves_what_is_dark_and_bends_what_is_bright() -> None:
    """Points worked out from the report's formula: 203 cd/m2 are white, 1000 the film's peak."""
    light = np.array([0.0, 1, 5, 20, 40, 100, 203, 400, 700, 1000, 4000])
    with ToneMappedSource(Greys(light, peak=1000), "bt2390") as source:
        (frame,) = source
    found = frame.planes[0][0, :, 0].astype(float)
    assert (np.diff(found) >= 0).all()
    # The knee is at 87.8 cd/m2.
    untouched = 255 * (light[:5] / 203) ** (1 / 2.4)
    np.testing.assert_allclose(found[:5], untouched, atol=0.6)
    assert found[-2] == found[-1] == 255
    by_formula = {100: 189, 203: 230, 400: 250, 700: 255}
    for value, level in zip(light, found, strict=True):
        assert abs(level - by_formula.get(int(value), level)) <= 1


@pytest.mark.parametrize("curve", ["bt2390", "hable"])
@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("bits", [8, 10])
def test_a_phones_clip_becomes_plain_h264(
    bits: int, transfer: int, curve: ToneMap, tmp_path: Path
) -> None:
    source = hdr_source(transfer, format=PixelFormat("yuv", bits, (2, 2)))
    write(source, tmp_path / "in.mkv", Encoding(codec="hevc"))
    done = velatura("run", tmp_path / "in.mkv", tmp_path / "o.mp4", "--tone-map", curve, check=True)
    assert "becomes SDR (BT.709, 8 bit)" in done.stderr
    found = videos.read(tmp_path / "o.mp4")
    assert (found.codec, found.pix_fmt, len(found.luma)) == ("h264", "yuv420p", 3)
    assert (found.matrix, found.primaries, found.transfer) == (1, 1, 1)


@pytest.mark.parametrize("curve", ["bt2390", "hable"])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_another_brightness_is_not_taken_for_a_wrong_picture(
    transfer: int, curve: ToneMap, tmp_path: Path
) -> None:
    """In a picture with details, and large enough for a run's own look at it."""
    luma = scenes(1, (192, 128))[0].mean(2) / 255
    planes = [64 + 876 * 0.6 * luma, np.full_like(luma, 512), np.full_like(luma, 512)]
    source = clip(tmp_path / "in.mkv", transfer, [np.rint(p).astype(np.uint16) for p in planes])
    job = Job(source=str(source), sink=str(tmp_path / "o.mkv"), codec="ffv1", tone_map=curve)
    assert run_job(job, quiet=True) == 0


def test_sdr_is_left_as_it_is(tmp_path: Path, capsys: Any) -> None:
    path = videos.make(tmp_path / "in.mkv", frames=3)
    job = Job(source=str(path), sink=str(tmp_path / "o.mkv"), codec="ffv1", tone_map="hable")
    assert run_job(job) == 0
    assert "is not HDR: --tone-map leaves it as it is" in capsys.readouterr().err
    for one, two in zip(videos.read(path).luma, videos.read(Path(job.sink)).luma, strict=True):
        np.testing.assert_array_equal(one, two)


def test_bt2390_of_hlg_has_the_system_gamma_of_luminance() -> None:
    """A strong colour keeps its ratios of light, as ITU-R BT.2100 has it: red of E = 0.5, 0.1, 0.1."""
    scene = np.array([0.5, 0.1, 0.1])
    signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene),
                      0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)  # fmt: skip
    greys = Greys(np.zeros(1), peak=1000)
    greys.pixels = np.rint(signal * 65535).astype(np.uint16).reshape(1, 1, 3)
    greys.info = replace(greys.info, colour=BT2020[HLG], hdr=None)
    with ToneMappedSource(greys, "bt2390") as source:
        (frame,) = source
    luma = float(scene @ [0.2627, 0.6780, 0.0593])
    light = 1000 * luma**0.2 * scene
    to_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083],
                       [-0.0182, -0.1006, 1.1187]])  # fmt: skip
    display = to_709 @ light
    found = (frame.planes[0].reshape(3) / 255.0) ** 2.4
    assert display.max() > 203
    np.testing.assert_allclose(found[1:] / found[0], display[1:] / display[0], atol=0.01)
