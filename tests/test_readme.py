"""Every command of the README exists, and those that can run here do."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .runtime.commands import velatura

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(start: str) -> list[str]:
    lines = [line.strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


def runnable() -> list[str]:
    return [line for line in commands("velatura ") if " models/" not in line]


def verified() -> set[str]:
    """Outputs that a later line verifies: those runs go to the end."""
    return {shlex.split(line)[3] for line in commands("velatura verify ")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readme")
    (path / "samples").mkdir()
    shutil.copy(ROOT / "samples/clip.mp4", path / "samples/clip.mp4")
    return path


@pytest.mark.parametrize("line", runnable())
def test_commands_run(line: str, folder: Path) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "run" and words[2] not in verified():
        words += ["--frames", "5"]
    elif words[0] in ("train", "export", "evaluate"):
        words = [words[0], "--help"]
    if words[-1] == "--help":
        done = velatura(*words)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "velatura.runtime", *words],
            cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "--dry-run" in words:
        assert not (folder / words[2]).exists()
    elif words[0] == "run" and not words[2].endswith(":"):
        assert (folder / words[2]).stat().st_size > 0
    if words[-1] == "--help":
        for option in re.findall(r"--[a-z-]+", line):
            assert option in done.stdout, f"{option} is not an option of {words[0]}"


def test_there_are_commands_to_test() -> None:
    assert len(runnable()) >= 10
    assert len(commands("make ")) == 2


def test_the_python_examples_run(folder: Path) -> None:
    film, game = blocks("python")
    for code in (film, game):
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    assert (folder / "out.mp4").stat().st_size > 0


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z]+)", README))
    assert {"demo", "test", "lint", "bench", "clean"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"`\[([a-z]+)\]`", README)) == set(extras)


def test_exit_codes_are_those_of_the_errors() -> None:
    from velatura.runtime import errors

    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.VelaturaError)
    }
    assert raised | {0, 2, 130} == documented


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README
