"""Every run reads its output again: what is wrong is never called done, and replaces nothing."""

from pathlib import Path
from typing import Any

import pytest
from velatura.runtime import ContractError, Encoding, Pump, open_sink, open_source
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.sinks import output_file as output_module
from velatura.runtime.sinks.output_file import OutputFile

from . import videos


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mkv", codec="libx264", frames=40, tone=True)


def lose_the_end(patch: pytest.MonkeyPatch) -> None:
    """The disk keeps less than it was given, and says nothing."""
    finish = OutputFile.finish

    def cut(self: OutputFile) -> None:
        finish(self)
        with self.partial.open("r+b") as file:
            file.truncate(self.partial.stat().st_size * 4 // 5)

    patch.setattr(OutputFile, "finish", cut)


def lose_a_frame(patch: pytest.MonkeyPatch) -> None:
    """The container drops a frame on the way."""
    mux, count = OutputFile.mux, iter(range(1000))

    def drop(self: OutputFile, packet: Any) -> None:
        if next(count) == 20:
            self.tally.frame(float(packet.pts * packet.time_base))
        else:
            mux(self, packet)

    patch.setattr(OutputFile, "mux", drop)


def encoder_drops(patch: pytest.MonkeyPatch) -> None:
    """The encoder gives fewer packets than it got pictures."""
    mux, count = OutputFile.mux, iter(range(1000))

    def drop(self: OutputFile, packet: Any) -> None:
        if next(count) != 20:
            mux(self, packet)

    patch.setattr(OutputFile, "mux", drop)


def lose_the_sound(patch: pytest.MonkeyPatch) -> None:
    """Sound is promised and does not come."""
    passing = output_module.PassingStreams
    until = passing.mux_until

    class Deaf:
        """The container, to which no packet comes through."""

        def __init__(self, output: Any) -> None:
            self._output = output

        def __getattr__(self, name: str) -> Any:
            return getattr(self._output, name)

        def mux(self, packet: Any) -> None:
            del packet

    def silent(self: Any, seconds: float) -> None:
        output, self._output = self._output, Deaf(self._output)
        until(self, seconds)
        self._output = output

    patch.setattr(passing, "mux_until", silent)


WRONGS = {
    lose_the_end: ("truncated", "unreadable", "frames"),
    lose_a_frame: ("frames",),
    encoder_drops: ("it dropped or added some",),
    lose_the_sound: ("a stream is missing",),
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_output_is_an_error_and_replaces_nothing(
    wrong: Any, suffix: str, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = film.with_name(f"out{suffix}")
    target.write_bytes(b"an earlier one")
    wrong(monkeypatch)
    job = Job(source=str(film), sink=str(target), models=("identity",), overwrite=True)
    with pytest.raises(ContractError) as caught:
        run_job(job, quiet=True)
    assert caught.value.exit_code == 10
    assert any(word in str(caught.value) for word in WRONGS[wrong]), str(caught.value)
    assert target.read_bytes() == b"an earlier one"
    rejected = film.with_name(f"out.rejected{suffix}")
    assert str(rejected) in str(caught.value)
    left = {path.name for path in film.parent.iterdir()}
    assert left == {film.name, target.name, rejected.name}


def test_a_wrong_output_of_a_journalled_run_costs_nothing(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = film.with_name("out.mp4")
    job = Job(source=str(film), sink=str(target), models=("identity",), journal=True)
    with monkeypatch.context() as patch:
        lose_the_end(patch)
        with pytest.raises(ContractError):
            run_job(job, quiet=True)
    assert not target.exists()
    assert film.with_name(".out.mp4.journal").is_dir(), "the frames need not be made again"
    assert run_job(job, quiet=True) == 0
    assert len(videos.read(target).luma) == 40
    assert not film.with_name(".out.mp4.journal").exists()


def test_the_library_proves_its_outputs_too(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = film.with_name("out.mkv")
    lose_a_frame(monkeypatch)
    with (
        open_source(film) as source,
        pytest.raises(ContractError, match="frames"),
        open_sink(target, like=source, encoding=Encoding(codec="ffv1")) as sink,
    ):
        Pump(source, [], sink).run()
    assert not target.exists()
