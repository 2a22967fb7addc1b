"""The command line as a stranger would guess it: what it takes, and what it says to type instead."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from velatura.runtime import zoo
from velatura.runtime.zoo import zoo_models

from . import videos
from .commands import velatura


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(tmp_path_factory.mktemp("stranger") / "clip.mkv", frames=6)


@pytest.mark.parametrize("before", [True, False], ids=["options last", "options first"])
def test_a_source_and_a_sink_are_a_run(clip: Path, tmp_path: Path, before: bool) -> None:
    words = [clip, tmp_path / "out.mkv"]
    options = ["-m", "identity", "--json"]
    done = velatura(*words, *options) if before else velatura(*options, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames_out"] == 6
    assert (tmp_path / "out.mkv").exists()


def test_a_live_output_is_live(clip: Path) -> None:
    # Nobody listens there: `live` says so, where `run` would look for a folder.
    done = velatura(clip, "tcp://127.0.0.1:9", "--seconds", "1")
    assert "cannot be streamed to" in done.stderr


@pytest.mark.parametrize(
    ("source", "sink", "code"),
    [
        ("CLIP", "rtmp://host/app", 4),
        ("CLIP", "window:", 4),
        ("CLIP", "list.m3u8", 4),
        ("camera:0", "out.mp4", 3),
        ("rtsp://host/x", "out.mp4", 3),
    ],
)
def test_run_says_that_live_is_the_command(clip: Path, source: str, sink: str, code: int) -> None:
    source = source.replace("CLIP", str(clip))
    done = velatura("run", source, sink, "-m", "wave")
    assert done.returncode == code
    assert f"velatura live {source} {sink} -m wave" in done.stderr


def test_slips_are_answered_by_what_is_near(clip: Path, tmp_path: Path) -> None:
    near = clip.with_name("clp.mkv")
    for words, told in (
        (("modles",), "'models'"),
        (("run", clip, "out.mkv", "--qality", "good"), "--quality"),
        (("run", clip, tmp_path / "out.mkv", "-m", "wav"), "did you mean wave"),
        (("run", near, tmp_path / "out.mkv"), f"did you mean {clip}?"),
        (("verify", near, clip), f"did you mean {clip}?"),
        (("info", near), f"did you mean {clip}?"),
        (("run", clip.parent / "none" / "a.mp4", tmp_path / "o.mkv"), "there is no folder"),
        (("live", clip, "null:", "--start", "3"), "--start is for files"),
    ):
        done = velatura(*words)
        assert done.returncode != 0
        assert told in done.stderr, done.stderr


@pytest.mark.parametrize(
    "words",
    [("run", "x"), ("run", "x", "y", "--crf", "much"), ("run", "x", "y", "--size", "9"), ("nothing",)],
    ids=str,
)
def test_json_of_a_usage_error_is_one_object(words: tuple[str, ...]) -> None:
    done = velatura(*words, "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["exit_code"] == 2
    assert told["error"] in done.stderr.replace("\n", " ")
    # Frames take standard output, and nothing else may.
    assert velatura("run", "x", "-", "--size", "9", "--json").stdout == ""


def test_help_has_its_options_in_groups() -> None:
    told = velatura("run", "--help").stdout
    titles = ("Models", "Picture", "Encoder", "Resume", "Batch")
    places = [told.index(f"\n{title}:\n") for title in titles]
    assert places == sorted(places)
    assert places[0] < told.index("--model") < places[1] < told.index("--fps") < places[2]
    assert places[2] < told.index("--crf") < places[3] < told.index("--restart") < places[4]
    assert told.index("--watch") > places[4]
    for option in ("--model", "--frames", "--audio-codec", "--overwrite", "--dry-run", "--json"):
        assert f"{option} " in told


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("velatura mod", "models"),
        ("velatura run a b -m upscale-4x", "upscale-4x upscale-4x-sharp"),
        ("velatura a.mp4 b.mp4 -m wa", "wave"),
        ("velatura info star", "starry-night"),
        ("velatura run a b --quality dr", "draft"),
        ("velatura run a.m", ""),  # the shell's own file names come then
    ],
)
def test_a_shell_completes_commands_and_models(
    line: str, offered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_VELATURA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert sorted(velatura().stdout.split()) == offered.split()


def test_models_says_what_each_does_and_how_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VELATURA_CACHE", str(tmp_path / "cache"))
    told = velatura("models", check=True).stdout
    assert all(name in told for name in zoo_models())
    assert "steps" not in told, "the history of a training is for info"
    assert "steps" in velatura("info", "wave").stdout
    assert " fps" not in told
    assert "--measure" in told
    only = {"upscale-2x": zoo_models()["upscale-2x"]}
    monkeypatch.setattr(zoo, "zoo_models", lambda: only)
    done = velatura("models", "--measure", check=True)
    assert "measuring upscale-2x" in done.stderr
    assert done.stdout.count(" fps") == 1
    # What was measured is kept, and a run takes it, too.
    again = velatura("models", check=True)
    assert (again.stdout.splitlines()[:-2], again.stderr) == (done.stdout.splitlines()[:-2], "")
    found = json.loads(velatura("models", "--json").stdout)["upscale-2x"]
    (speed,) = (card["speed"] for card in found.values() if "speed" in card)
    assert speed["rate"] > 0


def test_a_terminal_is_shown_the_models_where_none_is_named(clip: Path, tmp_path: Path) -> None:
    def in_terminal(*options: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        words = [sys.executable, "-m", "velatura.runtime", clip, tmp_path / "out.mkv", *options]
        with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            said = b""
            try:
                while part := os.read(ours, 4096):
                    said += part
            except OSError:  # how a terminal on Linux says that nobody holds its other side
                pass
        os.close(ours)
        return process.returncode, said.decode()

    code, said = in_terminal()
    assert code == 2
    assert all(name in said for name in zoo_models())
    assert f"velatura run {clip}" in said
    assert not (tmp_path / "out.mkv").exists()
    assert in_terminal("--size", "16x12")[0] == 0  # something is asked for
    assert velatura(clip, tmp_path / "other.mkv").returncode == 0  # nobody is there to be asked
