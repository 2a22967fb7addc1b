"""The built wheel holds all that the tree holds, and the base installs what it should."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "benchmarks/game": "velatura.benchmarks.game",
    "export": "velatura.export",
    "runtime": "velatura.runtime",
    "training": "velatura.training",
    "plugins/vapoursynth": "velatura.vapoursynth",
}
"""Each folder, and the package that it is."""
SHIPPED = ("*.py", "*.onnx", "*.toml", "py.typed", "page/*", "include/*.*")


def tree() -> set[str]:
    return {
        f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for pattern in SHIPPED
        for path in (ROOT / folder).rglob(pattern)
        if not path.name.startswith(".") and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from the sdist, as a user's pip would."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {n for n in archive.namelist() if ".dist-info/" not in n and not n.endswith("/")}
    assert inside == tree()


def test_the_wheel_carries_licence_and_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert any(name.endswith("licenses/LICENSE") for name in names)
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        text = archive.read(entry).decode()
    assert "velatura = velatura.runtime.__main__:main" in text
    assert "[velatura.commands]" in text
    assert "game = velatura.benchmarks.game.report:bench_game" in text


def test_the_base_is_what_it_should_be() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">")[0].split("[")[0] for line in project["dependencies"]}
    assert names == {
        "av", "filelock", "numpy", "onnx", "opencv-python", "openvino", "platformdirs", "rich", "typer",
    }  # fmt: skip
    extras = set(project["optional-dependencies"])
    assert extras == {
        "ort", "gpu", "rtx", "live", "game", "docs", "export", "import", "train", "vapoursynth", "test",
        "dev",
    }  # fmt: skip


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found
