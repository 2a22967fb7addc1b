"""HDR sources: kept whole where the encoder can, refused with advice where they would look wrong."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from velatura.runtime import Encoding, SinkError, open_sink
from velatura.runtime.frame import Colour, Hdr, PixelFormat
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from .test_encoders import Given, decoded, given, write

PQ, HLG = 16, 18
DISPLAY = Hdr(
    red=(Fraction(34_000, 50_000), Fraction(16_000, 50_000)),
    green=(Fraction(13_250, 50_000), Fraction(34_500, 50_000)),
    blue=(Fraction(7_500, 50_000), Fraction(3_000, 50_000)),
    white=(Fraction(15_635, 50_000), Fraction(16_450, 50_000)),
    luminance=(Fraction(50, 10_000), Fraction(1000)),
    max_cll=1000,
    max_fall=400,
)
TEN = PixelFormat("yuv", 10, (2, 2))


def hdr_source(transfer: int, hdr: Hdr | None = DISPLAY, format: PixelFormat = TEN) -> Given:
    colour = Colour(matrix="bt2020", primaries=9, transfer=transfer)
    return given(format, colour=colour, size=(96, 64), hdr=hdr)


def side_data(frame: av.VideoFrame) -> dict[str, list[Fraction]]:
    """Mastering display and light levels, in the order of FFmpeg's structures."""
    found: dict[str, list[Fraction]] = {}
    if (data := frame.side_data.get(Type.MASTERING_DISPLAY_METADATA)) is not None:
        pairs = np.frombuffer(bytes(data), np.int32)[:20].reshape(-1, 2)
        found["display"] = [Fraction(int(n), int(d)) for n, d in pairs]
    if (data := frame.side_data.get(Type.CONTENT_LIGHT_LEVEL)) is not None:
        found["light"] = [Fraction(int(n)) for n in np.frombuffer(bytes(data), np.int32)[:2]]
    return found


WANTED = [
    *(value for point in (DISPLAY.red, DISPLAY.green, DISPLAY.blue, DISPLAY.white)
      for value in point or ()),
    *(DISPLAY.luminance or ()),
]  # fmt: skip


@pytest.mark.quick_rows(14)
@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("hevc", ".mp4"), ("hevc", ".mkv"), ("hevc", ".mov"), ("hevc", ".ts"), ("av1", ".mp4"),
     ("av1", ".mkv"), ("av1", ".webm"), ("ffv1", ".mkv"), ("prores", ".mov"), ("prores", ".mkv")],
)  # fmt: skip
def test_tags_and_metadata_are_kept(
    codec: str, suffix: str, bits: int, transfer: int, tmp_path: Path
) -> None:
    source = hdr_source(transfer, format=PixelFormat("yuv", bits, (2, 2)))
    notes = write(source, tmp_path / f"o{suffix}", Encoding(codec=codec))
    assert sum("processed as they are" in note for note in notes) == 1
    frames = decoded(tmp_path / f"o{suffix}")
    assert len(frames) == 3
    for frame in frames:
        assert int(frame.color_trc) == transfer
        assert int(frame.color_primaries) == 9
        assert int(frame.colorspace) == 9
        assert max(c.bits for c in frame.format.components) >= 10
    assert not any("mastering display" in note for note in notes)
    for frame in frames:
        found = side_data(frame)
        assert found["light"] == [1000, 400]
        # AV1 has 1/65536 for the points, and 1/256 and 1/16384 for the light.
        slack = 1e-4 if codec == "av1" else 2e-5
        assert [float(v) for v in found["display"]] == pytest.approx(
            [float(v) for v in WANTED], abs=slack
        )


@pytest.mark.parametrize("codec", ["hevc", "av1"])
@pytest.mark.parametrize(
    ("hdr", "kinds"),
    [(Hdr(max_cll=800, max_fall=200), {"light"}), (replace(DISPLAY, max_cll=None, max_fall=None),
                                                   {"display"}), (None, set())],
)  # fmt: skip
def test_only_what_is_known_is_written(
    codec: str, hdr: Hdr | None, kinds: set[str], tmp_path: Path
) -> None:
    write(hdr_source(PQ, hdr), tmp_path / "o.mp4", Encoding(codec=codec))
    assert set(side_data(decoded(tmp_path / "o.mp4")[0])) == kinds


def test_own_options_stand_beside_the_metadata(tmp_path: Path) -> None:
    options = (("x265-params", "bframes=0:max-cll=700,100"),)
    write(hdr_source(PQ), tmp_path / "o.mp4", Encoding(codec="hevc", options=options))
    found = side_data(decoded(tmp_path / "o.mp4")[0])
    assert found["light"] == [700, 100]
    assert len(found["display"]) == 10


EIGHT = PixelFormat("yuv", 8, (2, 2))
REFUSED: list[tuple[str, Encoding, PixelFormat]] = [
    ("o.mp4", Encoding(codec="h264"), TEN),
    ("o.mp4", Encoding(codec="h264", quality="archive"), TEN),
    ("o.webm", Encoding(codec="vp9"), TEN),
    ("o.gif", Encoding(), TEN),
    ("o.mp4", Encoding(codec="hevc", pix_fmt="yuv420p"), TEN),
    ("o.mp4", Encoding(codec="av1", pix_fmt="yuv420p"), EIGHT),
    ("o.mp4", Encoding(pix_fmt="yuv420p"), EIGHT),
    ("o.mkv", Encoding(codec="ffv1", pix_fmt="yuv420p"), TEN),
    ("%d.png", Encoding(), TEN),
    ("%d.jpg", Encoding(), TEN),
    ("%d.webp", Encoding(), TEN),
    ("o.y4m", Encoding(), TEN),
]


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize(("name", "encoding", "format"), REFUSED)
def test_what_would_show_it_wrongly_is_refused(
    name: str, encoding: Encoding, format: PixelFormat, transfer: int, tmp_path: Path
) -> None:
    source = hdr_source(transfer, format=format)
    word = {PQ: "PQ", HLG: "HLG"}[transfer]
    told = rf"HDR \({word}\).*--codec hevc or av1.*--tone-map bt2390"
    with pytest.raises(SinkError, match=told):
        open_sink(tmp_path / name, like=source, encoding=encoding)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(
    ("suffix", "codec", "instead"),
    [(".mp4", "hevc", "h264"), (".mkv", "hevc", "h264"), (".mov", "hevc", "h264"),
     (".webm", "av1", "vp9")],
)  # fmt: skip
def test_the_defaults_keep_it(
    suffix: str, codec: str, instead: str, bits: int, transfer: int, tmp_path: Path
) -> None:
    """A phone's clip needs no option, though H.264 and VP9 carry no HDR here; 8-bit HLG neither."""
    source = hdr_source(transfer, format=PixelFormat("yuv", bits, (2, 2)))
    notes = write(source, tmp_path / f"o{suffix}", Encoding())
    assert any(f"encoded as {codec}, as {instead} does not carry it" in note for note in notes)
    frames = decoded(tmp_path / f"o{suffix}")
    assert len(frames) == 3
    with av.open(str(tmp_path / f"o{suffix}")) as container:
        context = container.streams.video[0].codec_context
        assert context.codec.canonical_name == codec
        assert context.pix_fmt == "yuv420p10le"
        assert codec != "hevc" or context.profile == "Main 10"
    for frame in frames:
        assert (int(frame.color_trc), int(frame.color_primaries)) == (transfer, 9)


def test_segments_of_workers_keep_it_too(tmp_path: Path) -> None:
    """Processes that know nothing of the source are told the encoder."""
    path = tmp_path / "in.mkv"
    write(hdr_source(HLG, None), path, Encoding(codec="ffv1"))
    job = Job(source=str(path), sink=str(tmp_path / "o.mp4"), journal=True, workers=2)
    assert run_job(job, quiet=True) == 0
    with av.open(job.sink) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == "hevc"


@pytest.mark.parametrize("transfer", [1, 2, 13, 14, 15])
def test_sdr_is_not_meant(transfer: int, tmp_path: Path) -> None:
    source: Any = given(TEN, colour=Colour(matrix="bt2020", primaries=9, transfer=transfer))
    assert not write(source, tmp_path / "o.mp4", Encoding())
