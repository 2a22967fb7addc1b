"""The nodes of samples/comfyui, loaded and called as ComfyUI does it by its documented contract."""

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from .runtime import videos

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]
TYPES = {"STRING", "BOOLEAN", "INT", "FLOAT", "IMAGE"}


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    """Imported from its folder under a name of ComfyUI's own making."""
    folder = ROOT / "samples" / "comfyui"
    spec = importlib.util.spec_from_file_location("comfyui_velatura", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_velatura"] = module
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.startswith("comfyui_velatura")]:
        del sys.modules[name]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's module of folders, with an input and an output folder of the test's."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
    paths = ModuleType("folder_paths")
    paths.get_input_directory = lambda: str(tmp_path / "input")  # type: ignore[attr-defined]
    paths.get_output_directory = lambda: str(tmp_path / "output")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    return tmp_path


class Stopped(Exception):  # noqa: N818 - as ComfyUI's own
    """ComfyUI's InterruptProcessingException."""


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """ComfyUI's progress bar and its button to stop."""
    seen = SimpleNamespace(total=None, values=[], stop=False)

    class ProgressBar:
        def __init__(self, total: int) -> None:
            seen.total = total

        def update_absolute(self, value: int) -> None:
            seen.values.append(value)

    def throw() -> None:
        if seen.stop:
            raise Stopped

    comfy, tools, management = (
        ModuleType(f"comfy{name}") for name in ("", ".utils", ".model_management")
    )
    tools.ProgressBar = ProgressBar  # type: ignore[attr-defined]
    management.throw_exception_if_processing_interrupted = throw  # type: ignore[attr-defined]
    for module in (comfy, tools, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def execute(node: type, **given: Any) -> tuple[Any, ...]:
    """What ComfyUI's executor does: types checked, defaults filled in, the result unpacked."""
    kinds = node.INPUT_TYPES()  # type: ignore[attr-defined]
    assert set(given) >= {
        name for name, kind in kinds["required"].items() if "default" not in dict(*kind[1:])
    }
    values = {}
    for name, (kind, *options) in {**kinds["required"], **kinds.get("optional", {})}.items():
        values[name] = given.get(name, options[0]["default"] if options else None)
        if isinstance(kind, list):
            assert values[name] in kind, f"{values[name]} is not in the list of {name}"
    if hasattr(node, "VALIDATE_INPUTS"):
        wanted = inspect.signature(node.VALIDATE_INPUTS).parameters
        told = node.VALIDATE_INPUTS(**{k: v for k, v in values.items() if k in wanted})
        if told is not True:
            raise ValueError(told)
    result = getattr(node(), node.FUNCTION)(**values)  # type: ignore[attr-defined]
    if isinstance(result, dict):
        assert set(result) <= {"ui", "result"}
        result = result["result"]
    assert isinstance(result, tuple)
    assert len(result) == len(node.RETURN_TYPES)  # type: ignore[attr-defined]
    return result


def test_every_node_keeps_the_contract(package: ModuleType) -> None:
    nodes = package.NODE_CLASS_MAPPINGS
    assert set(nodes) == set(package.NODE_DISPLAY_NAME_MAPPINGS) == {"VelaturaVideo", "VelaturaImages"}
    for node in nodes.values():
        assert isinstance(node.CATEGORY, str)
        assert isinstance(node.RETURN_TYPES, tuple)
        assert set(node.RETURN_TYPES) <= TYPES
        assert len(node.RETURN_NAMES) == len(node.RETURN_TYPES)
        assert isinstance(inspect.getattr_static(node, "INPUT_TYPES"), classmethod)
        taken = inspect.signature(getattr(node, node.FUNCTION)).parameters
        kinds = node.INPUT_TYPES()
        assert set(kinds) <= {"required", "optional", "hidden"}
        required, optional = kinds["required"], kinds.get("optional", {})
        assert set(taken) - {"self"} == set(required) | set(optional)
        for name, (kind, *options) in {**required, **optional}.items():
            assert kind in TYPES if isinstance(kind, str) else all(isinstance(k, str) for k in kind)
            if isinstance(kind, list) and options:
                assert options[0]["default"] in kind
            if name in optional:
                assert taken[name].default is not inspect.Parameter.empty, "it may be left away"
    assert "upscale-2x" in nodes["VelaturaImages"].INPUT_TYPES()["required"]["model"][0]


def test_a_video_goes_from_path_to_path(
    package: ModuleType, folders: Path, bars: SimpleNamespace
) -> None:
    videos.make(folders / "input" / "in.mp4", codec="libx264", size=(96, 64), frames=5, tone=True)
    node = package.NODE_CLASS_MAPPINGS["VelaturaVideo"]
    (path,) = execute(node, source="in.mp4", model="upscale-2x", sink="new/out.mkv")
    assert path == str(folders / "output" / "new" / "out.mkv")
    found = videos.read(Path(path))
    assert (len(found.luma), found.width, found.height) == (5, 192, 128)
    assert bars.total == 5
    assert bars.values[-1] == 5
    with pytest.raises(ValueError, match="exists"):
        execute(node, source="in.mp4", model="upscale-2x", sink="new/out.mkv")
    again = {"sink": "new/out.mkv", "then": "upscale-2x", "overwrite": True}
    execute(node, source="in.mp4", model="upscale-2x", **again)
    assert videos.read(Path(path)).width == 384


def test_a_stopped_queue_leaves_nothing(
    package: ModuleType, folders: Path, bars: SimpleNamespace
) -> None:
    videos.make(folders / "input" / "in.mkv", size=(96, 64), frames=5)
    bars.stop = True
    with pytest.raises(Stopped):
        execute(package.NODE_CLASS_MAPPINGS["VelaturaVideo"], source="in.mkv", sink="out.mkv")
    assert not list((folders / "output").iterdir())


@pytest.mark.parametrize(
    ("given", "told"),
    [({"source": "none.mp4"}, "no video at"), ({"sink": "../out.mp4"}, "leads out of"),
     ({"sink": "/tmp/out.mp4"}, "leads out of"), ({"sink": "out"}, "no suffix")],
)  # fmt: skip
def test_what_is_wrong_is_told_before_work_begins(
    given: dict[str, str], told: str, package: ModuleType, folders: Path
) -> None:
    videos.make(folders / "input" / "in.mkv", size=(96, 64), frames=2)
    node = package.NODE_CLASS_MAPPINGS["VelaturaVideo"]
    with pytest.raises(ValueError, match=told):
        execute(node, **{"source": "in.mkv", "sink": "out.mkv", **given})
    # What another node gives is not known when a graph is checked, but when it runs.
    assert node.VALIDATE_INPUTS(source=None, sink=None) is True
    with pytest.raises(ValueError, match=told):
        node().render(**{"source": "in.mkv", "sink": "out.mkv", **given}, model="upscale-2x")


def test_a_changed_source_is_work_again(package: ModuleType, folders: Path) -> None:
    """And the node's own result is not."""
    node = package.NODE_CLASS_MAPPINGS["VelaturaVideo"]
    source = videos.make(folders / "input" / "in.mkv", size=(96, 64), frames=2)
    given = {"source": "in.mkv", "model": "upscale-2x", "sink": "out.mkv"}
    before = node.IS_CHANGED(**given)
    (folders / "output" / "out.mkv").write_bytes(b"made")
    assert node.IS_CHANGED(**given) == before
    videos.make(source, size=(96, 64), frames=3)
    assert node.IS_CHANGED(**given) != before
    # A path that another node gives is None by then.
    unknown = node.IS_CHANGED(**{**given, "source": None})
    assert unknown != unknown


@pytest.mark.parametrize("channels", [3, 4])
def test_images_keep_their_levels_and_their_opacity(channels: int, package: ModuleType) -> None:
    random = np.random.default_rng(0)
    coarse = random.random((2, 6, 8, channels)).astype(np.float32)
    images = torch.from_numpy(coarse.repeat(8, 1).repeat(8, 2))
    before = images.clone()
    node = package.NODE_CLASS_MAPPINGS["VelaturaImages"]
    (made,) = execute(node, images=images, model="upscale-2x")
    assert (made.dtype, tuple(made.shape)) == (torch.float32, (2, 96, 128, channels))
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert torch.equal(images, before), "a node must not change what other nodes get, too"
    # In the middle of the flat squares the picture is what it was, in each channel.
    assert float((made[:, 8::16, 8::16] - images[:, 4::8, 4::8]).abs().mean()) < 0.02
    assert not torch.equal(made[0], made[1])
