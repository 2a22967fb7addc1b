"""The house's arrows: who may import whom, and what an import may weigh."""

import ast
import inspect
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"av", "cv2", "onnx", "onnxruntime", "openvino", "tensorrt", "torch"}
ALLOWED = {
    "benchmarks/game": {"benchmarks", "runtime"},
    "runtime": {"runtime"},
    "training": {"training"},
    "export": {"export", "runtime", "training"},
    "plugins": {"runtime"},
}
GROUND = {"backoff", "errors", "frame", "meter", "worker"}
"""What anything may import; of these only `frame` and `errors` know what a picture is."""
MODELS = {"backends", "buffers", "cache", "card", "colour", "machine", "stages", "temporal", "zoo"}
"""What a frame and a model need of each other."""
ENDS = {"media", "sinks", "sources"}
"""Where frames come from and go to."""
ARROWS: dict[str, set[str]] = {
    "backoff": set(),
    "errors": set(),
    "frame": set(),
    "machine": set(),
    "meter": set(),
    "worker": set(),
    "zoo": set(),
    "buffers": {"frame"},
    "cache": {"errors"},
    "card": {"errors"},
    "colour": {"buffers", "frame"},
    "media": {"colour", "errors", "frame"},
    "resume": {"cache", "errors", "frame", "media"},
    "verify": {"colour", "errors", "frame", "media"},
    "sources": {"colour", "media"} | GROUND,
    "sinks": {"colour", "media", "resume", "verify"} | GROUND,
    "backends": {"buffers", "cache", "card", "colour", "machine", "zoo"} | GROUND,
    "stages": {"backends", "buffers", "card", "colour"} | GROUND,
    "temporal": {"backends", "buffers", "colour", "stages"} | GROUND,
    "adaptive": MODELS | GROUND,
    "pump": {"sinks", "sources", "stages"} | GROUND,
    "live": {"adaptive"} | ENDS | MODELS | GROUND,
    "game": {"adaptive"} | MODELS | GROUND,
    "vapoursynth": MODELS | GROUND,
    "web": {"adaptive", "live"} | ENDS | MODELS | GROUND,
    "jobs": {"adaptive", "game", "live", "pump", "resume", "verify", "web"} | ENDS | MODELS | GROUND,
    "studio": {"jobs", "pump", "resume", "web"} | ENDS | MODELS | GROUND,
    "cli": {"jobs", "studio"} | ENDS | MODELS | GROUND,
    "__main__": {"cli", "jobs"} | ENDS,
}
"""What each folder and module of the runtime may import, itself aside: only what stands above it."""
OFFERED = {("stages", "temporal")}
"""`velatura.runtime.stages` offers `Stabilize`, which is a stage and lives in `temporal`, under its
public name, and imports it when it is asked for. No other module imports against the arrows."""


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no modules in {folder}"
    return found


def imports(path: Path) -> list[str]:
    """Absolute dotted names of all that a module imports, also in a function, for types, or by a name
    that it gives to `import_module`; `velatura.` stands in front of our own."""
    package = ["velatura", *path.relative_to(ROOT).parent.parts]
    names: list[str] = []
    tree = ast.parse(path.read_text())
    by_name = any(isinstance(n, ast.Name) and n.id == "import_module" for n in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names]
        elif by_name and isinstance(node, ast.Constant) and isinstance(node.value, str):
            relative = re.fullmatch(r"(\.+)([a-z_]+(?:\.[a-z_]+)*)", node.value)
            if relative is None:
                continue
            target = [*package[: len(package) - len(relative[1]) + 1], *relative[2].split(".")]
            place = ROOT.joinpath(*target[1:])
            if place.with_suffix(".py").exists() or (place / "__init__.py").exists():
                names.append(".".join(target))
    return names


def module_name(path: Path, root: Path = ROOT / "runtime") -> str:
    """Dotted, below `velatura.runtime`; a folder's own name for its `__init__`, "" for the root's."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def runtime_imports() -> dict[str, set[str]]:
    """Which modules of the runtime each of them imports, by the names that `module_name` gives."""
    paths = {module_name(path): path for path in modules("runtime")}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        found[module] = set()
        for name in imports(path):
            if not name.startswith("velatura.runtime."):
                continue
            target = name.removeprefix("velatura.runtime.")
            # A name that is no module is something in one: in its folder, or in the runtime's root.
            while target and target not in paths:
                target = target.rpartition(".")[0]
            found[module].add(target)
        found[module].discard(module)
    return found


@pytest.mark.parametrize("folder", list(ALLOWED))
def test_arrows_between_the_folders(folder: str) -> None:
    for path in modules(folder):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "velatura":
                assert parts[1] in ALLOWED[folder], f"{path} imports {name}"


def test_arrows_between_the_rooms_of_the_runtime() -> None:
    for module, targets in runtime_imports().items():
        room = module.partition(".")[0]
        if not room:
            continue  # what `velatura.runtime` offers comes from everywhere
        for target in targets:
            other = target.partition(".")[0]
            if room != other and (module, other) not in OFFERED:
                assert other in ARROWS[room], (
                    f"{module} imports {target}: {room} -> {other} is no arrow"
                )


def test_every_room_has_its_arrows_and_none_leads_back() -> None:
    rooms = {module.partition(".")[0] for module in runtime_imports()} - {""}
    assert rooms == set(ARROWS)
    above: set[str] = set()
    for room, may in ARROWS.items():
        assert may <= above, f"{room} -> {may - above} leads back"
        above.add(room)


def test_no_circle_of_modules() -> None:
    """Not even of imports in functions or for types: each module is understood without those above."""
    try:
        TopologicalSorter(runtime_imports()).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1][::-1]))


def test_options_of_files_need_no_codec() -> None:
    """Light, as the command line and every sink's and source's contract import them."""
    assert not loaded_after("import velatura.runtime.media.options") & HEAVY


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
             "velatura.runtime.sources", "velatura.runtime.stages", "velatura.runtime.live",
             "velatura.runtime.game", "velatura.training.nets", "velatura.vapoursynth"]
)  # fmt: skip
def test_public_names_exist(name: str) -> None:
    module = import_module(name)
    assert module.__all__ == sorted(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), f"{name}.{public}"


def test_a_frame_of_a_run_passes_few_modules(tmp_path: Path) -> None:
    """From the file to the file through one model, once all is set up: who follows a frame through the
    code opens these."""
    film, made = tmp_path / "film.mkv", tmp_path / "made.mkv"
    run_job(Job(source="pattern:96x64@25?frames=40", sink=str(film)), quiet=True)
    entered: set[str] = set()
    written = 0
    installed = Path(inspect.getfile(run_job)).parents[1]  # of a wheel, not of the tree

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal written
        place = Path(frame.f_code.co_filename)
        if event == "call" and place.is_relative_to(installed):
            written += frame.f_code.co_qualname == "FileSink.write"
            if 10 <= written < 20:
                entered.add(module_name(place, installed))

    before = threading.getprofile()
    threading.setprofile(note)  # for the threads of the frames; this one shows the progress
    try:
        run_job(
            Job(source=str(film), sink=str(made), models=("upscale-2x",), backend="ort"), quiet=True
        )
    finally:
        threading.setprofile(before)  # pyright: ignore[reportArgumentType]
    assert written == 40
    assert {"backends.ort", "frame", "pump", "sources.file", "stages.neural"} <= entered
    assert len(entered) <= 20, sorted(entered)


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


def test_one_module_makes_the_core_of_openvino() -> None:
    """Another core, dropped by another thread, makes of the next Ctrl-C a segmentation fault."""
    for folder in ("benchmarks", "export", "runtime", "samples", "training"):
        for path in modules(folder):
            if path != ROOT / "runtime" / "backends" / "openvino.py":
                assert not re.search(r"\bCore\(\)", path.read_text()), path


def named_in_the_map(text: str) -> Iterator[Path]:
    """The folders and modules that the architecture page's map names, in the order of its lines: what
    stands before two spaces, below the folder whose line is less indented."""
    above: list[tuple[int, Path]] = []
    for line in text.partition("## The map")[2].split("```")[1].splitlines()[1:]:
        depth = len(line) - len(line.lstrip())
        while above and above[-1][0] >= depth:
            above.pop()
        folder = above[-1][1] if above else ROOT
        for name in re.split(r" {2,}", line.strip())[0].split():
            if name.endswith("/"):
                above.append((depth, folder / name))
                yield folder / name
            else:
                yield folder / f"{name.removesuffix('.py')}.py"


def test_the_map_names_every_module_once_and_none_that_is_not_there() -> None:
    named = list(named_in_the_map((ROOT / "docs" / "architecture.md").read_text()))
    assert [path for path in named if not path.exists()] == []
    assert len(named) == len(set(named))
    there = [path for folder in ("runtime", "export", "training") for path in modules(folder)]
    folders = {path.parent for path in there if path.parent.name != "recipes"}
    wanted = {path for path in there if path.name != "__init__.py"} | folders
    assert wanted == set(named)
