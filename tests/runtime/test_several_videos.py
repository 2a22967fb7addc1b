"""Files with several videos and several tracks of sound: which is taken, and how another is."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from velatura.runtime import SourceError, open_source
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.jobs.verify import verify

from . import videos

SMALL, LARGE = (32, 24), (64, 48)


def film(path: Path, *, default: int | None = None) -> Path:
    """Streams 0 (small), 1 (large, twice as many frames), 2 and 3 (English and German sound)."""
    with av.open(str(path), "w") as out:
        pictures = [out.add_stream("libx264", rate=rate) for rate in (25, 50)]
        for stream, size in zip(pictures, (SMALL, LARGE), strict=True):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, stream in enumerate(pictures):
            stream.disposition = Disposition.default if number == default else Disposition(0)
        sounds = [out.add_stream("aac", rate=48_000, layout="stereo") for _ in range(2)]
        for stream, language in zip(sounds, ("eng", "deu"), strict=True):
            stream.metadata["language"] = language
        for number in range(20):
            for stream, size, times in zip(pictures, (SMALL, LARGE), (1, 2), strict=True):
                for index in range(number * times, (number + 1) * times):
                    frame = av.VideoFrame.from_ndarray(videos.drawing(size, index), format="rgb24")
                    frame = frame.reformat(format="yuv420p")
                    frame.pts, frame.time_base = index, Fraction(1, 25 * times)
                    out.mux(stream.encode(frame))
        for stream in pictures:
            out.mux(stream.encode(None))
        for stream in sounds:
            videos.add_tone(out, stream, 0.8)
    return path


def run(source: Path, target: Path, **options: object) -> tuple[int, int, int]:
    """Width, height and number of the first video's frames."""
    job = Job(source=str(source), sink=str(target), models=("identity",), **options)  # type: ignore[arg-type]
    assert run_job(job) == 0
    found = videos.read(target)
    return found.width, found.height, len(found.luma)


@pytest.mark.parametrize(
    ("default", "stream", "wanted"),
    [
        (None, None, (*LARGE, 40)),
        (0, None, (*SMALL, 20)),
        (1, None, (*LARGE, 40)),
        (1, 0, (*SMALL, 20)),
        (0, 1, (*LARGE, 40)),
    ],
)
def test_one_video_is_taken_and_said(
    default: int | None, stream: int | None, wanted: tuple[int, int, int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = film(tmp_path / "in.mkv", default=default)
    assert run(source, tmp_path / "out.mkv", video_stream=stream) == wanted
    number = 0 if wanted[:2] == SMALL else 1
    assert (
        f"stream {number} is processed; there are stream 0 (h264, 32x24), stream 1 (h264, 64x48): "
        "--video-stream takes another"
    ) in capsys.readouterr().err
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert len(container.streams.video) == 2, "the other is copied"
    with open_source(tmp_path / "out.mkv") as made:
        assert (made.info.width, made.info.height) == wanted[:2], "players take what was made"
    for given, code in ((stream, 0), (1 - number, 10)):
        found = verify(
            str(source), str(tmp_path / "out.mkv"), deep=False, as_json=False, video_stream=given
        )
        assert found == code


def test_one_sound_is_taken(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv")
    for number, language in ((2, "eng"), (3, "deu")):
        run(source, tmp_path / "out.mkv", audio_stream=number, overwrite=True)
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert [s.metadata["language"] for s in container.streams.audio] == [language]
    with open_source(source, audio_stream=3) as opened:
        assert opened.info.audio == ("aac",)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ({"video_stream": 2}, r"no video stream 2; it holds stream 0 \(h264, 32x24\), stream 1 \(h264"),
        (
            {"audio_stream": 0},
            r"no audio stream 0; it holds stream 2 \(aac, eng\), stream 3",
        ),
        ({"video_stream": 9}, "no video stream 9"),
    ],
)
def test_what_is_not_there(stream: dict[str, int], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        open_source(film(tmp_path / "in.mkv"), **stream)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="is no file with streams"):
        open_source("pattern:64x48@25", **stream)  # type: ignore[arg-type]


def test_one_video_says_nothing(tmp_path: Path) -> None:
    with open_source(videos.make(tmp_path / "in.mkv", frames=2)) as source:
        assert not [note for note in source.info.notes if "stream" in note]
        assert len(list(source)) == 2
