"""Every command, option, link and target that the documents name exists; what can run here does."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from .own_data import shoot
from .runtime.commands import velatura

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
ALL = "\n".join(TEXTS.values())
APPS = {
    "runtime.__main__": "app",
    "training.command": "app",
    "export.command": "app",
    "export.evaluate": "app",
    "export.import_command": "app",
}
"""Where the options of commands stand."""


def blocks(language: str, text: str = ALL) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(start: str, text: str = ALL) -> list[str]:
    """Lines of all examples, each once, in the order of the pages."""
    lines = [line.strip() for block in blocks("sh", text) for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(start)))


def runnable() -> list[str]:
    return [line for line in commands("velatura ") if " models/" not in line]


def verified() -> set[str]:
    """Outputs that a later line verifies: those runs go to the end."""
    return {shlex.split(line)[3] for line in commands("velatura verify ")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a short and small `samples/clip.mp4`."""
    path = tmp_path_factory.mktemp("documents")
    (path / "samples").mkdir()
    shoot(path / "samples/clip.mp4", frames=30, size=(160, 90))
    return path


@pytest.mark.parametrize("line", runnable())
def test_commands_run(line: str, folder: Path) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "run" and words[2] not in verified():
        words += ["--frames", "5"]
    elif words[0] in ("train", "export", "evaluate", "import"):
        words = [words[0], "--help"]
    elif words[0] == "bench":
        for option, less in (("--size", "96x160"), ("--seconds", "0.2")):
            if option in words:
                words[words.index(option) + 1] = less
    done = velatura(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    if "--dry-run" in words:
        assert not (folder / words[2]).exists()
    elif words[0] == "run" and not words[2].endswith(":"):
        assert (folder / words[2]).stat().st_size > 0
    if words[-1] == "--help":
        for option in re.findall(r"--[a-z-]+", line):
            assert option in done.stdout, f"{option} is not an option of {words[0]}"


def test_there_are_commands_to_test() -> None:
    assert len(runnable()) >= 30
    assert len(commands("make ", TEXTS["README.md"])) == 2
    assert len(commands("velatura ", TEXTS["README.md"])) == 5


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 200


def test_the_python_examples_run(folder: Path) -> None:
    film, game = blocks("python")
    for code in (film, game):
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    assert (folder / "out.mp4").stat().st_size > 0


def options_of(command: Any) -> set[str]:
    """Every option of a command and of its subcommands."""
    found = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    for other in getattr(command, "commands", {}).values():
        found |= options_of(other)
    return found


def test_options_named_in_prose_exist() -> None:
    from typer.main import get_command

    known = {"--help"}
    for module, app in APPS.items():
        known |= options_of(get_command(getattr(import_module(f"velatura.{module}"), app)))
    prose = re.sub(r"```.*?```", "", ALL, flags=re.DOTALL)
    named = {
        name for code in re.findall(r"`([^`]+)`", prose) for name in re.findall(r"--[a-z-]+", code)
    }
    assert len(named) > 30
    # Options of other programs: of Python modules that the documents call.
    assert named - known <= {"--minutes"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = ALL + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert {"demo", "test", "lint", "bench", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"`\[([a-z]+)\]`", TEXTS["docs/install.md"])) == set(extras)
    assert set(re.findall(r"`\[([a-z]+)\]`", ALL)) <= set(extras)


def test_exit_codes_are_those_of_the_errors() -> None:
    from velatura.runtime import errors

    documented = {
        int(code) for code in re.findall(r"^\| (\d+) \|", TEXTS["docs/files.md"], re.MULTILINE)
    }
    raised = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.VelaturaError)
    }
    assert raised | {0, 2, 130} == documented


def test_backends_are_those_that_there_are() -> None:
    from velatura.runtime.backends import BACKENDS

    named = re.findall(r"^\| (`.*?) \|", TEXTS["docs/engines.md"], re.MULTILINE)
    assert {name for cell in named for name in re.findall(r"`([a-z-]+)`", cell)} == set(BACKENDS)


@pytest.mark.parametrize("page", list(TEXTS))
def test_links_lead_to_files(page: str) -> None:
    home = (ROOT / page).parent
    targets = [*re.findall(r"\]\(([^)#]+)[)#]", TEXTS[page])]
    snippets = re.findall(r'--8<-- "(.*?)"', TEXTS[page])
    for target in targets:
        if not target.startswith("http"):
            assert (home / target).exists(), target
    for snippet in snippets:
        assert (ROOT / snippet).is_file(), snippet


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": ([a-z-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {path.name for path in PAGES if path != README}


@pytest.mark.parametrize("page", list(TEXTS))
def test_nothing_is_left_to_fill_in(page: str) -> None:
    assert "@@" not in TEXTS[page]


def test_the_architecture_page_names_what_there_is() -> None:
    """The map itself is held to the tree by `test_architecture.py`."""
    text = TEXTS["docs/architecture.md"]
    for path in re.findall(
        r"`((?:runtime|export|training|tests|docs|benchmarks|samples)/[\w/.-]*)`", text
    ):
        assert "NAME" in path or (ROOT / path).exists(), path
