"""Many files with one command: which ones, what becomes of each, and how it goes on when cut off."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result
from velatura.runtime.__main__ import app
from velatura.runtime.errors import BatchError
from velatura.runtime.jobs import batch, batch_state
from velatura.runtime.jobs.batch_state import NAME, Queue

from . import videos
from .cutting import DIE, DIE_AFTER_SEGMENTS, MAIN, SHORT, contents

SOURCE, SINK, MODEL, DAMAGED = 3, 4, 5, 8


def run(*arguments: object) -> Result:
    """`velatura run` in this process."""
    return CliRunner().invoke(app, ["run", "-m", "identity", *map(str, arguments)])


def lines(done: Result) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What --json printed of each file, and in the end."""
    *files, last = (json.loads(line) for line in done.stdout.splitlines())
    return files, last["summary"]


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / NAME).read_bytes())["files"]


def states(folder: Path) -> dict[str, str]:
    return {name: entry["state"] for name, entry in state(folder).items()}


def names(folder: Path) -> list[str]:
    """All that is not hidden, and in nothing that is."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in names(folder)}


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(tmp_path_factory.mktemp("short") / "short.mp4", codec="libx264", frames=6)


@pytest.fixture
def clips(short: Path, tmp_path: Path) -> Path:
    """Three videos, and what is none."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("clip10.mp4", "clip2.mp4", "clip1.mp4", ".hidden.mp4", ".clip1.partial.mp4"):
        shutil.copy(short, folder / name)
    (folder / "notes.txt").write_text("no video")
    (folder / "folder.mp4").mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def spoil(path: Path) -> None:
    path.write_bytes(b"no video at all" * 100)


def cut(path: Path) -> None:
    """A file that lacks its last frames, as its own header tells."""
    videos.make(path, codec="libx264", frames=60, size=(160, 120), container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def test_a_folder(clips: Path, out: Path, short: Path) -> None:
    done = run(clips, f"{out}/")
    assert done.exit_code == 0, done.stderr
    assert names(out) == ["clip1.mp4", "clip10.mp4", "clip2.mp4"]
    assert sorted(p.name for p in out.iterdir() if p.name not in names(out)) == [NAME]
    for name in names(out):
        assert len(videos.read(out / name).luma) == 6
    told = [line for line in done.stderr.splitlines() if line.startswith(("1/", "2/", "3/"))]
    assert told == ["1/3 clip1.mp4", "2/3 clip2.mp4", "3/3 clip10.mp4"]
    assert "3 files: 3 done" in done.stdout
    assert "6 of 6 frames" in done.stdout
    before = times(out)
    again = run(clips, out)
    assert again.exit_code == 0
    assert "3 files: 3 done (3 of them earlier)" in again.stdout
    assert times(out) == before
    shutil.copy(short, clips / "clip3.mp4")
    third = run(clips, out, "--quiet")
    assert (third.exit_code, third.stdout, third.stderr) == (0, "", "")
    assert {name: when for name, when in times(out).items() if name != "clip3.mp4"} == before
    assert set(states(out).values()) == {"done"}


def test_globs_of_videos_and_of_pictures(clips: Path, out: Path, tmp_path: Path) -> None:
    assert run(clips / "clip1*.mp4", f"{out}/").exit_code == 0
    assert names(out) == ["clip1.mp4", "clip10.mp4"]
    assert run(clips / "*", f"{out}/").exit_code == 0
    assert names(out) == ["clip1.mp4", "clip10.mp4", "clip2.mp4"]
    pictures = tmp_path / "frames"
    pictures.mkdir()
    assert run(clips / "clip1.mp4", pictures / "%03d.png").exit_code == 0
    assert len(names(pictures)) == 6
    film = tmp_path / "film.mkv"
    for source in (pictures / "*.png", pictures / "%03d.png", pictures / "*"):
        assert run(source, film, "--overwrite").exit_code == 0
        assert len(videos.read(film).luma) == 6
    for source, told in ((clips / "*.mkv", "no video matches"), (pictures, "no video in")):
        refused = run(source, f"{tmp_path}/none/")
        assert refused.exit_code == SOURCE
        assert told in refused.stderr
        assert not (tmp_path / "none").exists()


def test_names_with_brackets_dashes_and_more(
    short: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "-clips [1] 'ü'"
    folder.mkdir()
    shutil.copy(short, folder / "-a [x].mp4")
    monkeypatch.chdir(tmp_path)
    assert run("--", f"{folder.name}/*.mp4", "out/").exit_code == 0
    assert names(out) == ["-a [x].mp4"]
    again = run("--", folder.name, "out")
    assert again.exit_code == 0
    assert "1 of them earlier" in again.stdout
    assert run("--", f"{folder.name}/-a [x].mp4", "one.mp4").exit_code == 0
    monkeypatch.chdir(folder)
    assert "1 of them earlier" in run(".", "../out").stdout
    assert "1 of them earlier" in run("*.mp4", "../out").stdout


def test_folders_inside(clips: Path, short: Path) -> None:
    inner = clips / "b" / "c"
    inner.mkdir(parents=True)
    shutil.copy(short, inner / "clip1.mp4")
    (clips / ".trash").mkdir()
    shutil.copy(short, clips / ".trash" / "old.mp4")
    out = clips / "out"
    wanted = ["b/c/clip1.mp4", "clip1.mp4", "clip10.mp4", "clip2.mp4"]
    assert run(clips, f"{out}/").exit_code == 0
    assert names(out) == wanted[1:]
    for _ in range(2):  # what lies in the output's folder is no input the second time
        assert run(clips, f"{out}/", "--recursive").exit_code == 0
        assert names(out) == wanted
    assert run(clips / "**" / "*.mp4", f"{out}/").exit_code == 0
    assert names(out) == wanted
    shutil.rmtree(out)
    assert run(clips / "**" / "clip1.mp4", f"{out}/").exit_code == 0
    assert names(out) == ["b/c/clip1.mp4", "clip1.mp4"]


def test_what_outputs_end_in(clips: Path, out: Path, tmp_path: Path) -> None:
    (clips / "clip2.mp4").rename(clips / "clip2.VOB")
    (clips / "clip10.mp4").rename(clips / "clip10.MOV")
    assert run(clips, f"{out}/").exit_code == 0
    assert names(out) == ["clip1.mp4", "clip10.mov", "clip2.mkv"]
    other = tmp_path / "other"
    assert run(clips, f"{other}/", "--to", "mkv", "--codec", "ffv1").exit_code == 0
    assert names(other) == ["clip1.mkv", "clip10.mkv", "clip2.mkv"]
    assert videos.read(other / "clip1.mkv").codec == "ffv1"
    none = tmp_path / "none"
    assert run(clips, f"{none}/", "--codec", "ffv1", "--to", ".webm").exit_code == SINK
    assert run(clips, f"{none}/", "--codec", "h265000").exit_code == SINK
    pictures = run(clips, f"{none}/", "--to", "png")
    assert pictures.exit_code == SINK
    assert "a batch makes video files" in pictures.stderr
    assert not none.exists()
    # Where the source's own kind of file cannot hold what is wanted.
    (clips / "clip1.mp4").rename(clips / "clip1.webm")
    assert run(clips / "*.webm", f"{none}/", "--codec", "ffv1").exit_code == 0
    assert names(none) == ["clip1.mkv"]


def test_two_that_would_become_one(clips: Path, out: Path) -> None:
    (clips / "clip2.mp4").rename(clips / "clip1.mov")
    refused = run(clips, f"{out}/", "--to", ".mkv")
    assert refused.exit_code == SINK
    assert f"{clips / 'clip1.mov'} and {clips / 'clip1.mp4'} would become" in refused.stderr
    assert not out.exists()
    assert run(clips, f"{out}/").exit_code == 0


def test_into_the_same_folder(clips: Path) -> None:
    before = {name: (clips / name).read_bytes() for name in names(clips)}
    refused = run(clips, clips, "--overwrite")
    assert refused.exit_code == SINK
    assert "which is an input itself" in refused.stderr
    assert names(clips) == sorted(before)
    for _ in range(2):
        done = run(clips, clips, "--to", "mkv")
        assert done.exit_code == 0
        assert "3 files: 3 done" in done.stdout
    assert {name: (clips / name).read_bytes() for name in before} == before
    assert len(names(clips)) == len(before) + 3


def test_what_is_no_batch(clips: Path, out: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("kept")
    for sink, told in ((taken, "is a file"), (out, "end it in a slash"), ("null:", "name a folder")):
        refused = run(clips, sink)
        assert refused.exit_code == SINK
        assert told in refused.stderr
    assert taken.read_text() == "kept"
    one = run(clips, tmp_path / "one.mp4")
    assert one.exit_code == SOURCE
    assert f"for its pictures give '{clips}/*.png'" in one.stderr
    assert f"such as {tmp_path / 'one'}/" in one.stderr
    for option in (("--watch",), ("--retry",), ("--recursive",), ("--to", "mkv")):
        assert run(clips / "clip1.mp4", tmp_path / "o.mp4", *option).exit_code == 2
    unknown = run(clips, f"{out}/", "-m", "nothing")
    assert unknown.exit_code == MODEL
    assert not out.exists()


def test_one_that_fails_does_not_stop_the_others(clips: Path, out: Path, short: Path) -> None:
    spoil(clips / "clip2.mp4")
    done = run(clips, f"{out}/")
    assert done.exit_code == SOURCE
    assert names(out) == ["clip1.mp4", "clip10.mp4"]
    assert "3 files: 2 done, 1 failed" in done.stdout
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"failed: {clips / 'clip2.mp4'} cannot be opened")
    assert last.endswith("(exit code 3)")
    before = times(out)
    again = run(clips, out)
    assert again.exit_code == SOURCE
    assert "failed in an earlier run" in again.stderr
    assert "--retry" in again.stderr
    assert run(clips, out, "--retry").exit_code == SOURCE
    # Of different failures none speaks for all.
    cut(clips / "clip3.mp4")
    mixed = run(clips, out)
    assert mixed.exit_code == BatchError.exit_code
    kinds = {name: entry["kind"] for name, entry in state(out).items() if entry["kind"]}
    assert kinds == {"clip2.mp4": "SourceError", "clip3.mp4": "TruncatedSourceError"}
    assert "clip3.mp4" in names(out), "what could be decoded is kept"
    held = (clips / "clip2.mp4").stat()
    shutil.copy(short, clips / "clip2.mp4")
    assert (clips / "clip2.mp4").stat().st_size != held.st_size
    repaired = run(clips, out)
    assert repaired.exit_code == DAMAGED
    assert "clip2.mp4" in names(out)
    assert run(clips, out, "--retry", "--tolerate").exit_code == 0
    assert set(states(out).values()) == {"done"}
    after = times(out)
    assert {name: after[name] for name in before} == before


def test_a_bug_in_one_is_told_and_does_not_stop_the_others(
    clips: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = batch.execute

    def fail(job: Any, *rest: Any, **options: Any) -> Any:
        if job.source.endswith("clip2.mp4"):
            raise ZeroDivisionError("seven")
        return inner(job, *rest, **options)

    monkeypatch.setattr(batch, "execute", fail)
    done = run(clips, f"{out}/")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert names(out) == ["clip1.mp4", "clip10.mp4"]


def test_json_lines(clips: Path, out: Path) -> None:
    spoil(clips / "clip2.mp4")
    done = run(clips, f"{out}/", "--json")
    assert done.stderr == ""
    files, summary = lines(done)
    assert [Path(f["source"]).name for f in files] == ["clip1.mp4", "clip2.mp4", "clip10.mp4"]
    assert [f["state"] for f in files] == ["done", "failed", "done"]
    assert files[0]["report"]["frames_out"] == 6
    assert files[0]["report"]["output_bytes"] == (out / "clip1.mp4").stat().st_size
    assert (files[1]["kind"], files[1]["exit_code"], files[1]["report"]) == ("SourceError", 3, None)
    assert summary == {
        "files": 3, "done": 2, "failed": 1, "skipped": 0, "done_earlier": 0, "waiting": 0,
        "interrupted": False, "exit_code": 3, "errors": {files[1]["source"]: files[1]["error"]},
    }  # fmt: skip
    assert state(out)["clip1.mp4"]["report"] == files[0]["report"]
    again, summary = lines(run(clips, out, "--json"))
    assert [f["now"] for f in again] == [False] * 3
    assert [f["report"] for f in again] == [f["report"] for f in files]
    assert summary["done_earlier"] == 2
    error = json.loads(run(clips / "*.mkv", out, "--json").stdout)
    assert error["exit_code"] == SOURCE


def test_changed_options(clips: Path, out: Path) -> None:
    assert run(clips, f"{out}/").exit_code == 0
    before = times(out)
    changed = run(clips, out, "--crf", "30", "--size", "32x24")
    assert changed.exit_code == SINK
    assert "--size was not given and is 32x24; --crf was not given and is 30" in changed.stderr
    assert "3 files: 0 done, 3 skipped" in changed.stdout
    assert times(out) == before
    same = run(clips, out)
    assert same.exit_code == 0
    assert times(out) == before
    assert run(clips, out, "--size", "32x24", "--overwrite").exit_code == 0
    assert videos.read(out / "clip1.mp4").width == 32
    made = times(out)
    # The same command again, as after a restart, makes nothing anew.
    assert run(clips, out, "--size", "32x24", "--overwrite").exit_code == 0
    assert times(out) == made


def test_changed_sources_and_outputs(clips: Path, out: Path) -> None:
    assert run(clips, f"{out}/").exit_code == 0
    videos.make(clips / "clip1.mp4", codec="libx264", frames=9)
    changed = run(clips, out)
    assert changed.exit_code == SINK
    assert "clip1.mp4 has changed: --overwrite makes it again" in changed.stderr
    assert run(clips, out, "--overwrite").exit_code == 0
    assert len(videos.read(out / "clip1.mp4").luma) == 9
    (out / "clip2.mp4").write_bytes(b"edited by its owner")
    foreign = run(clips, out)
    assert foreign.exit_code == SINK
    assert "exists, changed since it was made" in foreign.stderr
    assert (out / "clip2.mp4").read_bytes() == b"edited by its owner"
    (out / "clip2.mp4").unlink()
    gone = run(clips, out)
    assert gone.exit_code == 0
    assert "is gone: it is made again" in gone.stderr
    assert len(videos.read(out / "clip2.mp4").luma) == 6


def test_what_lay_there_before_is_kept(clips: Path, out: Path, short: Path, tmp_path: Path) -> None:
    out.mkdir()
    (out / "clip2.mp4").write_bytes(b"mine")
    done = run(clips, out)
    assert done.exit_code == SINK
    assert states(out) == {"clip1.mp4": "done", "clip2.mp4": "skipped", "clip10.mp4": "done"}
    assert (out / "clip2.mp4").read_bytes() == b"mine"
    other = tmp_path / "others"
    other.mkdir()
    shutil.copy(short, other / "clip1.mp4")
    mixed = run(other, out)
    assert mixed.exit_code == SINK
    assert f"was made of {clips / 'clip1.mp4'}" in mixed.stderr
    assert run(clips, out, "--overwrite").exit_code == 0
    assert set(states(out).values()) == {"done"}


def test_the_list_is_damaged_or_newer(clips: Path, out: Path) -> None:
    assert run(clips, f"{out}/").exit_code == 0
    (out / NAME).write_text('{"version": 99}')
    assert run(clips, out).exit_code == SINK
    (out / NAME).write_text('{"version": 1, "files": [')
    done = run(clips, out)
    assert done.exit_code == SINK
    assert "was damaged" in done.stderr
    assert "exists: --overwrite" in done.stderr
    assert run(clips, out, "--overwrite").exit_code == 0
    assert run(clips, out, "--restart").exit_code == SINK, "nothing is known of the outputs any more"


def test_a_second_batch_has_to_wait(clips: Path, out: Path) -> None:
    out.mkdir()
    with Queue(out, {}, restart=False):
        refused = run(clips, out)
    assert refused.exit_code == SINK
    assert "another velatura works on a batch there" in refused.stderr
    assert run(clips, out).exit_code == 0


def test_a_source_that_changes_while_it_is_read(
    clips: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = batch.execute

    def change(job: Any, *rest: Any, **options: Any) -> Any:
        outcome = inner(job, *rest, **options)
        if job.source.endswith("clip2.mp4"):
            with Path(job.source).open("ab") as file:
                file.write(b"more")
        return outcome

    monkeypatch.setattr(batch, "execute", change)
    done = run(clips, f"{out}/")
    assert done.exit_code == SOURCE
    assert "changed or replaced while it was read" in done.stderr
    monkeypatch.undo()
    assert run(clips, out).exit_code == 0
    assert set(states(out).values()) == {"done"}


def test_a_disk_that_is_full(clips: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said to be done that the list could not keep."""
    inner, calls = batch_state.write_whole, 0

    def full(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:  # begun, then running, ready and done of the first, and running of the second
            raise OSError(errno.ENOSPC, "No space left on device")
        inner(path, data)

    monkeypatch.setattr(batch_state, "write_whole", full)
    done = run(clips, f"{out}/")
    assert done.exit_code == SINK
    assert "No space left on device" in done.stderr
    assert names(out) == ["clip1.mp4"]
    monkeypatch.undo()
    before = times(out)
    assert run(clips, out).exit_code == 0
    assert len(names(out)) == 3
    assert times(out)["clip1.mp4"] == before["clip1.mp4"]


def test_a_link_that_leads_nowhere_is_told(clips: Path, out: Path) -> None:
    (clips / "gone.mp4").symlink_to(clips / "nothing.mp4")
    done = run(clips, f"{out}/")
    assert done.exit_code == SOURCE
    assert f"no file at {clips / 'gone.mp4'}" in done.stderr
    assert len(names(out)) == 3


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough for journals, with segments of ten frames."""
    folder = tmp_path_factory.mktemp("films") / "films"
    folder.mkdir()
    for name in ("a", "b", "c"):
        videos.make(folder / f"{name}.mp4", codec="libx264", frames=45, tone=True)
    return folder


@pytest.fixture(scope="session")
def uncut_films(films: Path) -> Path:
    """What a batch that nobody disturbs makes of them."""
    uncut = films.with_name("uncut")
    subprocess.run(command(films, uncut, "--journal"), check=True, capture_output=True, timeout=60)
    return uncut


def command(source: Path, sink: Path, *options: object, before: str = "") -> list[str]:
    arguments = ["run", source, f"{sink}/", "-m", "identity", *options]
    return [sys.executable, "-c", f"{before}\n{SHORT}\n{MAIN}", *map(str, arguments)]


DIE_IN_SECOND = DIE_AFTER_SEGMENTS.format(3).replace(
    "if len(self.segments)", "if 'b.mp4' in str(self.folder) and len(self.segments)"
)
STOP_IN_SECOND = DIE_IN_SECOND.replace("signal.SIGKILL", "signal.SIGINT")
DIE_BEFORE_NAMED_DONE = f"""
{DIE}
import velatura.runtime.jobs.batch_state as q
put = q.Queue.put
def last(self, target, entry):
    if (target.name, entry.state) == ("b.mp4", "done"): die()
    put(self, target, entry)
q.Queue.put = last
"""


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize(
    ("death", "code", "made", "kept"),
    [
        pytest.param(DIE_IN_SECOND, -signal.SIGKILL, ["a.mp4"], (30,), id="kill"),
        pytest.param(STOP_IN_SECOND, 130, ["a.mp4"], (30, 40), id="stop"),
        pytest.param(DIE_BEFORE_NAMED_DONE, -signal.SIGKILL, ["a.mp4", "b.mp4"], (0,), id="kill late"),
    ],
)
def test_a_batch_that_is_cut_off_goes_on(
    death: str,
    code: int,
    made: list[str],
    kept: tuple[int, ...],
    films: Path,
    uncut_films: Path,
    out: Path,
) -> None:
    asked = command(films, out, "--journal", before=death)
    first = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert first.returncode == code, first.stderr
    assert names(out) == made, "nothing short lies under a good name, and no more was begun"
    assert states(out) == {"a.mp4": "done", "b.mp4": "running" if code < 0 else "waiting"}
    if code > 0:
        assert "3 files: 1 done, 2 left: the same command goes on there" in first.stdout
    before = times(out)
    again = subprocess.run(
        command(films, out, "--journal", "--json"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *files, last = (json.loads(line) for line in again.stdout.splitlines())
    assert [f["now"] for f in files] == [False, True, True]
    assert files[1]["report"]["frames_kept"] in kept
    assert files[2]["report"]["frames_kept"] == 0
    assert last["summary"]["done"] == 3
    assert times(out)["a.mp4"] == before["a.mp4"]
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        assert contents(out / name) == contents(uncut_films / name)
    assert sorted(p.name for p in out.iterdir() if p.name not in names(out)) == [NAME]


WATCH = "import velatura.runtime.jobs.batch as w; w.PERIOD, w.SETTLE = 0.1, 1.2"
IMPATIENT = "w.PATIENCE = 2.5"


class Watching:
    """A process that watches a folder."""

    def __init__(self, source: Path, sink: Path, *options: object, how: str = "") -> None:
        self.sink = sink
        hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = "\n".join((WATCH, how, hear, MAIN))
        arguments = ["run", source, f"{sink}/", "-m", "identity", "--watch", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def wait(self, until: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, states(self.sink)
            time.sleep(0.05)

    def wait_for(self, name: str, what: str = "done") -> None:
        self.wait(lambda: (self.sink / NAME).exists() and states(self.sink).get(name) == what)

    def end(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, told = self.process.communicate(timeout=20)
        return self.process.returncode, out, told


def test_watching_a_folder(short: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(short, folder / "there.mp4")
    film = videos.make(tmp_path / "film.mkv", frames=40, size=(96, 64)).read_bytes()
    for junk in ("cover.jpg", "notes", "film.mkv.part", ".hidden.txt"):
        (folder / junk).write_bytes(b"no film")
    with Watching(folder, out) as watching:
        watching.wait_for("there.mp4")
        # A Matroska file opens from its first bytes on; only that it grows tells that more will come.
        with (folder / "slow.mkv").open("wb") as file:
            for start in range(0, len(film), len(film) // 10 + 1):
                file.write(film[start : start + len(film) // 10 + 1])
                file.flush()
                assert "slow.mkv" not in states(out)
                time.sleep(0.2)
        # Neither is one taken that lacks its index, though nothing comes for a while.
        whole = short.read_bytes()
        (folder / "late.mp4").write_bytes(whole[: len(whole) // 2])
        (folder / "goes.mp4").write_bytes(whole)
        time.sleep(0.4)  # it is seen
        (folder / "goes.mp4").unlink()
        watching.wait_for("slow.mkv")
        time.sleep(0.3)
        assert "late.mp4" not in states(out)
        (folder / "late.mp4").write_bytes(whole)
        watching.wait_for("late.mp4")
        code, told, errors = watching.end()
    assert code == 0, errors
    assert "3 files: 3 done" in told
    # What is no film is said once, whatever the number of scans.
    assert errors.count("cover.jpg is not taken: .jpg is no video's") == 1
    assert errors.count("notes is not taken: a name without a suffix is no video's") == 1
    assert errors.count("is not taken") == 2
    assert names(out) == ["late.mp4", "slow.mkv", "there.mp4"]
    assert len(videos.read(out / "slow.mkv").luma) == 40
    assert len(videos.read(out / "late.mp4").luma) == 6


def test_watching_what_fails_clashes_and_is_replaced(short: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    spoil(folder / "broken.mp4")
    shutil.copy(short, folder / "same.mp4")
    with Watching(folder, out, "--json", "--to", "mkv", how=IMPATIENT) as watching:
        watching.wait_for("same.mkv")
        shutil.copy(short, folder / "same.mov")
        watching.wait_for("broken.mkv", "failed")  # once it was waited for in vain
        videos.make(tmp_path / "new.mp4", codec="libx264", frames=9)
        (tmp_path / "new.mp4").replace(folder / "broken.mp4")
        watching.wait_for("broken.mkv")
        (out / "same.mkv").unlink()  # taken away by its user
        shutil.copy(short, folder / "last.mp4")
        watching.wait_for("last.mkv")
        code, told, errors = watching.end()
    assert code == SINK, errors
    *files, last = (json.loads(line) for line in told.splitlines())
    found = [(Path(f["source"]).name, f["state"]) for f in files]
    assert found[0] == ("same.mp4", "done")
    assert sorted(found[1:3]) == [("broken.mp4", "failed"), ("same.mov", "skipped")]
    assert found[3:] == [("broken.mp4", "done"), ("last.mp4", "done")]
    assert list(last["summary"]["errors"]) == [str(folder / "same.mov")]
    assert names(out) == ["broken.mkv", "last.mkv"]
    assert len(videos.read(out / "broken.mkv").luma) == 9


def test_watching_is_stopped_in_the_middle_of_a_file(films: Path, out: Path) -> None:
    asked = command(films, out, "--journal", "--watch", before=WATCH + STOP_IN_SECOND)
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert states(out) == {"a.mp4": "done", "b.mp4": "waiting"}
    assert names(out) == ["a.mp4"]
