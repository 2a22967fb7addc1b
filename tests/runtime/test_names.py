"""Names and pictures as users have them: brackets, colons, per cent, hidden files, opacity, limits."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.runtime import Pump, SinkError, SourceError, TruncatedSourceError, open_sink, open_source
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.media.addresses import without_secrets

from . import videos


def run(source: object, sink: object, **options: object) -> int:
    job = Job(source=str(source), sink=str(sink), models=("identity",), **options)  # type: ignore[arg-type]
    return run_job(job, quiet=True)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mkv", codec="libx264", frames=12, tone=True)


@pytest.mark.parametrize("name", ["photo[1].png", "shot[1]_%05d.png"])
def test_brackets_in_a_name_are_no_pattern(name: str, film: Path) -> None:
    taken = film.with_name(name % 0 if "%" in name else name)
    taken.write_bytes(b"mine")
    with pytest.raises(SinkError, match="exists"):
        run(film, film.with_name(name), frames=1)
    assert taken.read_bytes() == b"mine"


def test_a_per_cent_in_a_folder_is_no_number(film: Path) -> None:
    folder = film.with_name("50%")
    folder.mkdir()
    assert run(film, folder / "x%03d.png", frames=2) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["x000.png", "x001.png"]


def test_a_colon_is_no_protocol(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(film.parent)
    film.rename(film.with_name("S01:E01.mkv"))
    assert run("S01:E01.mkv", "a:b.mkv") == 0
    read = videos.read(film.with_name("a:b.mkv"))
    assert len(read.luma) == 12
    assert read.audio


@pytest.mark.parametrize("sink", [".", "/"])
def test_a_folder_is_no_file(sink: str, film: Path) -> None:
    with pytest.raises(SinkError, match="is a folder"):
        run(film, sink)


def test_hidden_pictures_are_not_part_of_a_sequence(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "._1.png", ".3.partial.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    with open_source(tmp_path / "*.png") as source:
        assert len(list(source)) == 2


def test_pictures_keep_their_opacity(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 4), np.uint8)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"in{number}.png"), pixels)
    assert run(tmp_path / "in%d.png", tmp_path / "out%d.png") == 0
    found = cv2.imread(str(tmp_path / "out2.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found[:, :, 3], pixels[:, :, 3])
    # The identity works on luma: RGB goes through YUV and back.
    np.testing.assert_allclose(found[:, :, :3].astype(int), pixels[:, :, :3].astype(int), atol=3)


def test_samples_that_are_not_read_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "f0.tiff"), np.zeros((8, 8, 3), np.float32))
    with pytest.raises(SourceError, match="float32"):
        open_source(tmp_path / "f%d.tiff", rate=Fraction(25))


@pytest.mark.parametrize("journal", [True, False])
def test_a_limit_hides_no_damage(journal: bool, tmp_path: Path) -> None:
    film = videos.make(tmp_path / "in.mkv", codec="libx264", frames=60, options={"g": "10"})
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])
    with pytest.raises(TruncatedSourceError):
        run(film, tmp_path / "out.mkv", frames=60, journal=journal)
    assert run(film, tmp_path / "few.mkv", frames=10, journal=journal) == 0


def test_an_avi_of_ours_is_not_called_damaged(film: Path) -> None:
    assert run(film, film.with_name("out.avi"), audio=False) == 0
    assert run(film.with_name("out.avi"), film.with_name("again.mkv")) == 0
    assert len(videos.read(film.with_name("again.mkv")).luma) == 12


@pytest.mark.parametrize("uri", ["pattern:64x48@0", "pattern:64x48@30/0"])
def test_a_rate_of_nothing_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="is not a pattern"):
        open_source(uri)


def test_a_playlist_is_for_live(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(film.parent)
    with pytest.raises(SinkError, match="velatura live"):
        run(film, "x.m3u8")
    assert [path.name for path in film.parent.iterdir()] == [film.name]


def test_y4m_says_when_it_is_ready(film: Path) -> None:
    heard: list[bytes] = []
    with open_source(film) as source:
        sink = open_sink(film.with_name("out.y4m"), like=source)
        sink.ready = lambda path: heard.append(path.read_bytes()[:9])
        Pump(source, [], sink).run()
        sink.close()
    assert heard == [b"YUV4MPEG2"]


def test_secrets_are_not_shown() -> None:
    assert without_secrets("rtsp://admin:pw@cam:554/1?k=2") == "rtsp://cam:554/1?..."
    assert without_secrets("rtmps://a.b/app/live_123") == "rtmps://a.b/app/..."
    assert without_secrets("udp://127.0.0.1:5000") == "udp://127.0.0.1:5000"
    assert without_secrets("C:/films/a.mkv") == "C:/films/a.mkv"
