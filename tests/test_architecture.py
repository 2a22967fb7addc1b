"""The house's arrows: who may import whom, and what an import may weigh."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"av", "cv2", "onnx", "onnxruntime", "openvino", "tensorrt", "torch"}
ALLOWED = {
    "runtime": {"runtime"},
    "training": {"training"},
    "export": {"export", "runtime", "training"},
}
LEAVES = ("sources", "sinks", "backends", "stages")


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no modules in {folder}"
    return found


def imports(path: Path) -> list[str]:
    """Absolute dotted names of everything a module imports, `velatura.` in front of our own."""
    package = ["velatura", *path.relative_to(ROOT).parent.parts]
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("folder", list(ALLOWED))
def test_arrows_between_the_folders(folder: str) -> None:
    for path in modules(folder):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "velatura":
                assert parts[1] in ALLOWED[folder], f"{path} imports {name}"


@pytest.mark.parametrize("folder", LEAVES)
def test_leaves_import_neither_the_pump_nor_the_command(folder: str) -> None:
    for path in modules(f"runtime/{folder}"):
        for name in imports(path):
            assert not name.startswith(("velatura.runtime.pump", "velatura.runtime.jobs")), (
                f"{path} imports {name}"
            )


@pytest.mark.parametrize("folder", ["sources", "sinks"])
def test_leaves_import_no_leaf_of_another_folder(folder: str) -> None:
    others = tuple(f"velatura.runtime.{other}" for other in LEAVES if other != folder)
    for path in modules(f"runtime/{folder}"):
        for name in imports(path):
            assert not name.startswith(others), f"{path} imports {name}"


def test_runtime_never_mentions_torch() -> None:
    for path in modules("runtime"):
        assert not {name.split(".")[0] for name in imports(path)} & {"torch"}, path


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_runtime_loads_no_heavy_library() -> None:
    assert not loaded_after("import velatura.runtime") & HEAVY


def test_help_loads_no_heavy_library() -> None:
    code = """
import sys
sys.argv = ["velatura", "--help"]
from velatura.runtime.__main__ import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""
    assert not loaded_after(code) & HEAVY


@pytest.mark.parametrize(
    "name", ["velatura.runtime", "velatura.runtime.backends", "velatura.runtime.sinks",
             "velatura.runtime.sources", "velatura.runtime.stages", "velatura.training.nets"]
)  # fmt: skip
def test_public_names_exist(name: str) -> None:
    module = import_module(name)
    assert module.__all__ == sorted(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), f"{name}.{public}"


def test_print_stands_in_no_module() -> None:
    for folder in ALLOWED:
        for path in modules(folder):
            calls = [
                node
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
            ]
            assert not calls, path


def test_no_package_at_the_root() -> None:
    assert not (ROOT / "__init__.py").exists()
