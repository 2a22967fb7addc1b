"""`--dry-run` and `--compare`: what is foretold is what comes, and nothing is written at the sink."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import av
import cv2
import numpy as np
import pytest
from velatura.runtime import ModelError, SinkError, SourceError, open_sink, open_source
from velatura.runtime.jobs import dry_run, dry_run_sample
from velatura.runtime.jobs.dry_run import preview_folder, run_preflight
from velatura.runtime.jobs.dry_run_sample import (
    Coded,
    Excerpt,
    Packet,
    Sample,
    forecast_bytes,
    forecast_seconds,
    weights_of,
)
from velatura.runtime.jobs.job import Job, settings_of
from velatura.runtime.jobs.run import run_job

from ..own_data import SAMPLE
from . import videos
from .commands import velatura

Foretell = Callable[..., dict[str, Any]]


@pytest.fixture
def foretell(capsys: pytest.CaptureFixture[str]) -> Foretell:
    def told(job: Job, *, budget: float = 1.0, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert run_preflight(job, as_json=True, budget=budget) == code
        return json.loads(capsys.readouterr().out)

    return told


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mp4", codec="libx264", tone=True, frames=60, size=(96, 64))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_all_is_told_and_nothing_written_at_the_sink(
    clip: Path, tmp_path: Path, foretell: Foretell
) -> None:
    target = tmp_path / "out.mp4"
    job = Job(source=str(clip), sink=str(target), models=("upscale-2x",), precision="fp32")
    told = foretell(job)
    stills = {f"out.preview/still-{number}.png" for number in (1, 2, 3)}
    assert files(tmp_path) == {"in.mp4", *stills}
    assert set(told["stills"]) == {str(tmp_path / still) for still in stills}
    assert (told["frames"], told["duration"]) == (60, pytest.approx(2.4))
    assert told["input"]["size"] == "96x64"
    assert (told["output"]["size"], told["output"]["format"]) == ("192x128", "yuv420p")
    assert told["output"]["codec"] == "h264"
    assert told["models"] == [{"name": "upscale-2x", "backend": "openvino", "precision": "fp32"}]
    assert told["streams"] == ["stream 1 (audio, aac) is copied"]
    assert any("no colour matrix stated" in note for note in told["notes"])
    assert (told["journal"], told["fits"]) == (False, True)
    assert told["free_bytes"] > 1e6
    assert told["peak_memory_mib"] > 20
    assert 0 < told["seconds"]["least"] <= told["seconds"]["likely"] <= told["seconds"]["most"]
    assert run_job(job, quiet=True) == 0
    size = target.stat().st_size
    assert told["output_bytes"]["likely"] == pytest.approx(size, rel=0.25)


@pytest.fixture
def counted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample for which each look at the clock takes 5 ms, so that it is as long on a busy machine."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) * 0.005)
    monkeypatch.setattr(dry_run_sample, "time", clock)


@pytest.mark.quick_rows(1)
@pytest.mark.usefixtures("counted_time")
@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_clip_takes_what_was_foretold(codec: str, tmp_path: Path, foretell: Foretell) -> None:
    target = tmp_path / "out.mkv"
    job = Job(source=str(SAMPLE), sink=str(target), codec=codec, size=(320, 180))
    told = foretell(job, budget=1.5)
    assert 60 < told["sampled_frames"] < 160
    assert run_job(job, quiet=True) == 0
    assert told["output_bytes"]["likely"] == pytest.approx(target.stat().st_size, rel=0.25)
    assert told["seconds"]["likely"] > 0
    assert told["frames"] == 180
    assert told["sampled_at"] == pytest.approx([0, 1, 3, 5], abs=0.05)


def test_the_work_is_bounded_by_time(tmp_path: Path, foretell: Foretell) -> None:
    job = Job(source="pattern:160x120@25?frames=100000", sink=str(tmp_path / "out.mkv"))
    told = foretell(job, budget=0.4)
    assert 8 <= told["sampled_frames"] < 20_000
    assert told["frames"] == 100_000
    assert told["seconds"]["likely"] > 5
    assert told["journal"] is False


def test_stills_show_the_film_at_its_places(tmp_path: Path, foretell: Foretell) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=60, rate=25, size=(160, 120))
    target = tmp_path / "a film.mkv"
    foretell(Job(source=str(source), sink=str(target), codec="ffv1", pix_fmt="yuv420p"))
    with av.open(str(source)) as container:
        film = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, place in enumerate((10, 30, 50), 1):
        still = cv2.imread(str(tmp_path / "a film.preview" / f"still-{number}.png"))
        assert still is not None
        assert still.shape == (120, 322, 3)
        still = still[..., ::-1]
        np.testing.assert_array_equal(still[:80, :160], still[:80, 162:])
        apart = [np.abs(still[:80, :160].astype(int) - frame[:80]).mean() for frame in film]
        assert int(np.argmin(apart)) == place
        assert apart[place] < 5


def test_own_stills_are_replaced_and_nothing_else(
    clip: Path, tmp_path: Path, foretell: Foretell
) -> None:
    folder = tmp_path / "out.preview"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    (folder / "still-1.png").write_bytes(b"old")
    job = Job(source=str(clip), sink=str(tmp_path / "out.mp4"))
    foretell(job)
    assert (folder / "mine.txt").read_text() == "mine"
    assert cv2.imread(str(folder / "still-1.png")) is not None
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(SinkError, match=r"out\.preview"):
        run_preflight(job, quiet=True)
    assert folder.read_text() == "a file"


def test_where_stills_go() -> None:
    assert preview_folder("a/b.mkv") == Path("a/b.preview")
    assert preview_folder("b.mkv") == Path("b.preview")
    assert preview_folder("null:") == preview_folder("-") == Path("dry-run.preview")
    assert preview_folder("a/frames/%05d.png") == Path("a/frames.preview")
    assert preview_folder("a/shot-%05d.png") == Path("a/shot.preview")
    assert preview_folder("%05d.png") == Path("pictures.preview")


def test_nothing_kept_and_pictures(
    clip: Path, tmp_path: Path, foretell: Foretell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = foretell(Job(source=str(clip), sink="null:"))
    assert (told["output_bytes"], told["fits"], told["streams"]) == (None, None, [])
    assert (tmp_path / "dry-run.preview" / "still-3.png").exists()
    (tmp_path / "frames").mkdir()
    told = foretell(Job(source=str(clip), sink="frames/%05d.png", frames=40))
    assert told["frames"] == 40
    assert files(tmp_path / "frames") == set()
    assert run_job(Job(source=str(clip), sink="frames/%05d.png", frames=40), quiet=True) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "frames").iterdir())
    assert told["output_bytes"]["likely"] == pytest.approx(size, rel=0.25)


def test_a_source_of_unknown_length_gets_no_figures(
    own_clips: Path, tmp_path: Path, foretell: Foretell
) -> None:
    source = own_clips / "no_duration.webm"
    told = foretell(
        Job(source=str(source), sink=str(tmp_path / "o.mkv"), codec="ffv1", size=(64, 36)), budget=0.3
    )
    assert (told["frames"], told["duration"], told["seconds"]) == (None, None, None)
    assert (told["output_bytes"], told["fits"]) == (None, None)
    assert told["fps"] > 0
    assert any("does not tell its length" in note for note in told["notes"])


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize("journal", [True, False])
def test_a_disk_too_small_is_told_with_an_exit_code(
    journal: bool, clip: Path, tmp_path: Path, foretell: Foretell, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(source=str(clip), sink=str(tmp_path / "out.mp4"), journal=journal)
    needed = foretell(job)["needed_bytes"]
    likely = foretell(replace(job, journal=False))["output_bytes"]["likely"]
    assert needed == pytest.approx(likely * (2 if journal else 1), rel=0.2)

    def usage(path: object) -> Usage:
        return Usage(10**12, 0, 1000 if Path(str(path)) == tmp_path else 10**11)

    monkeypatch.setattr(dry_run.shutil, "disk_usage", usage)
    told = foretell(job, code=4)
    assert told["fits"] is False
    assert told["free_bytes"] == 1000


class NumberedError(SinkError):
    """An error that is not made of its text alone."""

    def __init__(self, path: str, number: int) -> None:
        super().__init__(f"{path} failed with {number}")
        self.number = number


def test_an_error_of_the_sample_names_the_sink_and_keeps_what_it_knows(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job, *_: object, **__: object) -> NoReturn:
        raise NumberedError(job.sink, 7)

    monkeypatch.setattr(dry_run, "open_output", refuse)
    sink = tmp_path / "out.mp4"
    with pytest.raises(NumberedError) as told:
        run_preflight(Job(source=str(clip), sink=str(sink)))
    assert str(told.value) == f"{sink} failed with 7"
    assert told.value.number == 7


def test_refusals_are_those_of_the_run(clip: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.mp4"
    there.write_bytes(b"mine")
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"sink": str(there)}, SinkError, "there.mp4 exists"),
        ({"sink": str(clip)}, SinkError, "input itself"),
        ({"sink": str(tmp_path / "no" / "o.mp4")}, SinkError, "create it first"),
        ({"sink": str(tmp_path / "o.webm"), "codec": "h264"}, SinkError, r"\.webm files cannot hold"),
        ({"sink": str(tmp_path / "o.xyz")}, SinkError, f"{tmp_path}/o.xyz"),
        ({"sink": str(tmp_path / "o.avi"), "journal": True}, SinkError, "can have no journal"),
        ({"source": str(tmp_path / "none.mp4")}, SourceError, "no file"),
        ({"source": "-"}, SourceError, "read once only"),
        ({"models": ("upscale",)}, ModelError, "did you mean"),
    ]
    before = files(tmp_path)
    for options, error, text in refused:
        job = replace(Job(source=str(clip), sink=str(tmp_path / "o.mkv")), **options)
        with pytest.raises(error, match=text):
            run_preflight(job, quiet=True)
        if options.get("source") != "-":
            with pytest.raises(error, match=text):
                run_job(job, quiet=True)
    assert files(tmp_path) == before
    assert there.read_bytes() == b"mine"


def test_what_an_earlier_run_left_is_counted_and_kept(tmp_path: Path, foretell: Foretell) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=300, size=(32, 32))
    target = tmp_path / "out.mkv"
    job = Job(source=str(source), sink=str(target), codec="ffv1", journal=True)
    with open_source(source) as film:
        sink = open_sink(target, like=film, encoding=job.encoding, journal=settings_of(job))
        for frame in film:
            sink.write(frame)
        sink.abort()
    assert sink.left == 250
    left = files(tmp_path)
    told = foretell(job)
    assert told["frames_kept"] == 250
    assert any("250 frames of an earlier run" in note for note in told["notes"])
    with pytest.raises(SinkError, match="--restart"):
        run_preflight(replace(job, size=(16, 16)), quiet=True)
    assert foretell(replace(job, size=(16, 16), restart=True))["frames_kept"] == 0
    assert {name for name in files(tmp_path) if "preview" not in name} == left


def test_the_command_speaks_to_a_person(clip: Path, tmp_path: Path) -> None:
    done = velatura("run", clip, tmp_path / "out.mkv", "--size", "48x32", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{clip} -> {tmp_path / 'out.mkv'}, tried on ")
    for begin in (
        "in ",
        "out ",
        "length ",
        "time ",
        "size ",
        "memory ",
        "journal ",
        "beside ",
        "still ",
    ):
        assert any(line.strip().startswith(begin) for line in lines), begin
    assert "no colour matrix stated" in done.stderr
    assert not (tmp_path / "out.mkv").exists()
    quiet = velatura("run", clip, tmp_path / "out.mkv", "--dry-run", "--quiet")
    assert quiet.stdout == quiet.stderr == ""
    (tmp_path / "out.mkv").write_bytes(b"mine")
    refused = velatura("run", clip, tmp_path / "out.mkv", "--dry-run")
    assert refused.returncode == 4


def excerpt(at: float, frames: int, per_frame: float, begin: int) -> Excerpt:
    with open_source("pattern:4x4?frames=1") as source:
        frame = next(iter(source))
    return Excerpt(
        at=at, begin=begin * frame.time_base, frames=frames, per_frame=per_frame,
        before=frame, after=frame,
    )  # fmt: skip


def test_forecasts_weigh_places_by_what_they_stand_for() -> None:
    places = (excerpt(0, 100, 0.01, 0), excerpt(30, 100, 0.02, 100), excerpt(90, 100, 0.04, 200))
    weights = weights_of(places, 100.0)
    assert weights == pytest.approx([0.15, 0.45, 0.4])
    sample = Sample(excerpts=places, first=1.0, closing=0.5, notes=())
    seconds = forecast_seconds(sample, 1001, weights=weights)
    # The end of the sample pays for frames that its beginning only took in.
    assert seconds.likely == pytest.approx(1 + 1000 * (0.15 * 0.015 + 0.45 * 0.02 + 0.4 * 0.04))
    assert seconds.least <= 1 + 1000 * 0.015
    assert seconds.most == pytest.approx(1 + 1000 * 0.04)


def test_cuts_that_the_sample_makes_are_not_counted() -> None:
    """Three places whose frames have 1000 bytes, and 50,000 where each begins."""
    places = tuple(excerpt(at, 50, 0.01, 50 * number) for number, at in enumerate((0, 30, 90)))
    packets = tuple(
        Packet(
            index / 30, 50_000 if index % 50 == 0 else 5000 if index % 50 < 5 else 1000, not index % 50
        )
        for index in range(150)
    )
    sample = Sample(excerpts=places, first=0.1, closing=0.1, notes=())
    weights = weights_of(places, 100.0)
    size = forecast_bytes(sample, Coded(packets=packets, beside=0), 3000, weights=weights)
    assert size.likely == pytest.approx(3000 * (1000 + 49_000 / 250), rel=0.01)
    whole = forecast_bytes(sample, Coded(packets=packets, beside=77), 150, weights=weights)
    assert whole.likely == whole.most == sum(packet.size for packet in packets) + 77


@pytest.mark.parametrize("suffix", [".png", ".html", ".mkv"])
def test_a_run_compares_afterwards(suffix: str, clip: Path, tmp_path: Path) -> None:
    target, view = tmp_path / "out.mkv", tmp_path / f"view{suffix}"
    job = Job(source=str(clip), sink=str(target), size=(192, 128), frames=20)
    assert run_job(job, view, quiet=True) == 0
    assert len(videos.read(target).luma) == 20
    if suffix == ".png":
        picture = cv2.imread(str(view))
        assert picture is not None
        assert picture.shape == (128, 192, 3)
    elif suffix == ".html":
        assert view.read_text().count("data:image/png") == 12
    else:
        # Matroska begins with the sound's priming, which moves the last frame by a part of its length.
        assert len(videos.read(view).luma) in (20, 21)


def test_a_comparison_that_cannot_be_is_refused_before_the_work(clip: Path, tmp_path: Path) -> None:
    target, there = tmp_path / "out.mkv", tmp_path / "there.png"
    there.write_bytes(b"mine")
    job = Job(source=str(clip), sink=str(target))
    cases = [
        (job, there, "exists"),
        (job, tmp_path / "view.xyz", "needs a suffix"),
        (job, tmp_path / "no" / "view.png", "create it first"),
        (replace(job, sink="null:"), tmp_path / "view.png", "reads SOURCE and SINK again"),
        (replace(job, sink=str(tmp_path / "%05d.png")), tmp_path / "view.png", "SINK a video"),
        (replace(job, overwrite=True), target, "output itself"),
    ]
    for wrong, view, text in cases:
        for runs in (run_job, run_preflight):
            with pytest.raises(SinkError, match=text):
                runs(wrong, view, quiet=True)
    assert files(tmp_path) == {"in.mp4", "there.png"}
    assert there.read_bytes() == b"mine"
    done = velatura("run", clip, target, "--compare", tmp_path / "v.png", "--json")
    assert json.loads(done.stdout)["frames_out"] == 60
    assert (tmp_path / "v.png").exists()
    batch = velatura("run", tmp_path, tmp_path / "all", "--dry-run")
    assert batch.returncode == 2


def test_a_source_that_is_sought_in_gives_the_rest_of_the_film(tmp_path: Path) -> None:
    film = videos.make(tmp_path / "in.mp4", codec="libx264", frames=60, options={"bf": "2", "g": "12"})
    (tmp_path / "frames").mkdir()
    for number in range(60):
        picture = videos.drawing((32, 24), number)
        cv2.imwrite(str(tmp_path / "frames" / f"{number:03d}.png"), picture)
    for uri, most in (
        (str(film), 59),
        (str(tmp_path / "frames" / "%03d.png"), 30),
        ("pattern:32x24@25?frames=60", 30),
    ):
        with open_source(uri) as source:
            whole = [(frame.pts, frame.planes[0].tobytes()) for frame in source]
        with open_source(uri) as source:
            assert source.seek(1.2)
            rest = [(frame.pts, frame.planes[0].tobytes()) for frame in source]
        assert rest == whole[-len(rest) :]
        assert 30 <= len(rest) <= most
