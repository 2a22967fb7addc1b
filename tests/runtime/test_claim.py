"""One owner of an output's name at a time, and what becomes of files that a killed run has left."""

import signal
from pathlib import Path

import pytest
from velatura.runtime import SinkError, open_sink, open_source
from velatura.runtime.resume import output_lock

from . import videos
from .cutting import DIE, SINK, command, contents, cut_off, finish, journal, names, run

BUSY = "another velatura is at work on it"


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.y4m", "%03d.png"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_one_output_has_one_owner(name: str, overwrite: bool, tmp_path: Path) -> None:
    target = tmp_path / "o" / name
    target.parent.mkdir()
    with open_source(videos.make(tmp_path / "in.mkv", frames=3)) as source:
        first = open_sink(target, like=source)
        with pytest.raises(SinkError, match=BUSY):
            open_sink(target, like=source, overwrite=overwrite)
        for frame in source:
            first.write(frame)
        first.close()
    made = names(target.parent)
    assert made == (["000.png", "001.png", "002.png"] if "%" in name else [name])
    with open_source(tmp_path / "in.mkv") as source:
        if not overwrite:
            with pytest.raises(SinkError, match="exists: --overwrite replaces it"):
                open_sink(target, like=source)
        open_sink(target, like=source, overwrite=True).abort()
    assert names(target.parent) == made


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("journals", [("--journal", "--no-journal"), ("--no-journal", "--journal")])
def test_with_a_journal_or_without(journals: tuple[str, str], source: Path) -> None:
    """The second run begins while the first has all its pictures and no name yet."""
    target = source.with_name("out.mp4")
    second = command(source, target, journals[1], "--overwrite")
    meanwhile = f"""
import subprocess, velatura.runtime.sinks.output_file as o
finish = o.OutputFile.finish
def finished(self):
    done = subprocess.run({second!r}, capture_output=True, text=True)
    print(done.returncode, done.stderr)
    finish(self)
o.OutputFile.finish = finished
"""
    done = run(source, target, journals[0], before=meanwhile)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{SINK} velatura: {target}: {BUSY}")
    assert len(contents(target)["frames"]) == len(videos.read(source).luma)
    assert names(source.parent) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_what_a_killed_run_leaves_is_removed(suffix: str, source: Path) -> None:
    target = source.with_name(f"out{suffix}")
    other = source.with_name(f".out.ffffff.partial.other{suffix}")
    other.write_bytes(b"not ours")
    die = f"{DIE}\nimport velatura.runtime.sinks.output_file as m; m.prove = lambda *a, **k: die()\n"
    if suffix == ".y4m":
        die += "import velatura.runtime.sinks.y4m as r; r.prove = m.prove"
    done = run(source, target, "--no-journal", before=die)
    assert done.returncode == -signal.SIGKILL
    left = [name for name in names(source.parent) if name.endswith(f".partial{suffix}")]
    assert len(left) == 1
    said = finish(source, target, "--no-journal", alone=False)
    assert f"{left[0]}, which a run that was killed has left, is removed" in said
    assert names(source.parent) == [other.name, "in.mp4", target.name]


def test_a_lock_is_on_the_file_that_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder ends, and removes it, between another's opening and locking of it."""
    first = output_lock.Lock(tmp_path / "lock")
    lock = output_lock._lock  # pyright: ignore[reportPrivateUsage]

    def late(descriptor: int) -> None:
        first.release(remove=True)
        lock(descriptor)

    monkeypatch.setattr(output_lock, "_lock", late)
    second = output_lock.Lock(tmp_path / "lock")
    assert names(tmp_path) == ["lock"]
    with pytest.raises(BlockingIOError):
        output_lock.Lock(tmp_path / "lock")
    second.release(remove=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("option", ["--restart", "--overwrite"])
@pytest.mark.parametrize("kind", ["link", "names", "state", "file", "linked file"])
def test_a_folder_that_no_journal_made(kind: str, option: str, source: Path, tmp_path: Path) -> None:
    target = source.with_name("out.mp4")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "000000.seg").write_bytes(b"my own")
    (mine / "thesis.txt").write_text("years of work")
    folder = journal(target)
    if kind == "link":
        folder.symlink_to(mine)
    elif kind == "file":
        folder.write_text("a note")
    else:
        folder.mkdir()
    if kind == "names":
        (folder / "thesis.txt").write_text("years of work")
    elif kind == "state":
        (folder / "journal.json").write_text('{"entries": ["a diary"]}')
    elif kind == "linked file":
        (folder / "000000.seg").symlink_to(mine / "000000.seg")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = run(source, target, "--journal", option)
    assert done.returncode == SINK
    assert "was made by no journal: move it away, or use --no-journal" in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert run(source, target, "--no-journal", option).returncode == 0
    target.unlink()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_strange_file_in_a_journal_stays(source: Path) -> None:
    target = source.with_name("out.mp4")
    cut_off(source, target, "--journal")
    (journal(target) / "thesis.txt").write_text("years of work")
    (journal(target) / "deeper").mkdir()
    assert "going on after 30 frames" in finish(source, target, "--journal", alone=False)
    assert names(journal(target)) == ["deeper", "thesis.txt"]
    assert (journal(target) / "thesis.txt").read_text() == "years of work"
