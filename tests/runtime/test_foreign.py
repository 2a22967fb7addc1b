"""Peers' models, and files that are broken, old or strange, as a user would try them."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from velatura.runtime import BackendUnavailableError, CardFlags, EngineError, ModelError, open_engine
from velatura.runtime.backends import BACKENDS
from velatura.runtime.backends import open as opening
from velatura.runtime.backends.graph import explain
from velatura.runtime.backends.model import load_model
from velatura.runtime.backends.open import cpu_backends
from velatura.runtime.backends.ort import CUDA
from velatura.runtime.card import ModelCard
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.machine import nvidia_problem

from . import networks, videos

PEERS = {
    "2x_animejanai_sd_compact_fp16": (2, (0.0, 1.0), None),
    "candy_nc16_256x256": (1, (0.0, 255.0), (256, 256)),
    "ingame_style_960x540": (1, (0.0, 255.0), None),
}


@pytest.fixture
def peers(data_root: Path) -> Path:
    return data_root / "peers"


@pytest.fixture
def photo(own_clips: Path) -> Iterator[np.ndarray]:
    with av.open(str(own_clips / "film.mp4")) as container:
        yield next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize("name", list(PEERS))
def test_inspection_finds_what_a_peer_wants(name: str, peers: Path) -> None:
    scale, value_range, fixed = PEERS[name]
    model = load_model(peers / f"{name}.onnx", flags=CardFlags(), trial=opening.trial_runner())
    card = model.card
    assert (card.scale, card.value_range, card.fixed_size) == (scale, value_range, fixed)


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("backend", cpu_backends())
@pytest.mark.parametrize("name", list(PEERS))
def test_a_peer_computes_what_its_own_file_does(
    name: str, backend: str, peers: Path, photo: np.ndarray
) -> None:
    """The unchanged file in ONNX Runtime, fed by hand: nothing wraps, nothing shifts."""
    path = peers / f"{name}.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    height, width = (s if isinstance(s, int) else 96 for s in given.shape[2:4])
    image = photo[:96, :96] if height == 96 else np.resize(photo, (height, width, 3))
    top = PEERS[name][1][1]
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    planes = (image.transpose(2, 0, 1)[None] * (top / 255)).astype(kind)
    (raw,) = session.run(None, {given.name: planes})
    wanted = (np.clip(raw[0].astype(np.float64) / top, 0, 1) * 255).round().transpose(1, 2, 0)
    with open_engine(path, backend, precision="fp32") as engine:
        found = engine.run(np.ascontiguousarray(image)).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2
    assert found.std() > 10


@pytest.mark.soak
@pytest.mark.parametrize("fit", ["tile", "resize"])
@pytest.mark.parametrize("name", list(PEERS))
def test_a_peer_runs_on_a_real_clip(
    name: str, fit: str, peers: Path, own_clips: Path, tmp_path: Path
) -> None:
    job = Job(
        source=str(own_clips / "film.mp4"),
        sink=str(tmp_path / "out.mkv"),
        models=(str(peers / f"{name}.onnx"),),
        frames=3,
        fit=fit,  # type: ignore[arg-type]
    )
    assert run_job(job, quiet=True) == 0
    found = videos.read(tmp_path / "out.mkv")
    scale = PEERS[name][0]
    assert (len(found.luma), found.width, found.height) == (3, 320 * scale, 180 * scale)
    assert found.luma[0].std() > 8


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(48, 64), (32, 32), (20, 24), (70, 50)])
def test_a_fixed_size_is_resized_when_asked(size: tuple[int, int], bits: int, tmp_path: Path) -> None:
    """Smooth pictures survive the way there and back, overshoot stays within the depth."""
    card = ModelCard(
        name="fixed",
        task="style",
        input_colour="luma",
        output_colour="luma",
        fixed_size=(32, 48),
        halo=4,
    )
    proto = networks.mixer(np.array([[1.0]]))
    card.write_to(proto)
    path = networks.write(proto, tmp_path / "m.onnx")
    peak = 2**bits - 1
    ramp = np.linspace(0, peak, size[0] * size[1]).reshape(size).round()
    image = ramp.astype(np.uint8 if bits == 8 else np.uint16)
    with open_engine(path, fit="resize", precision="fp32") as engine:
        found = engine.run(image, bits)
        assert found.shape == size
        assert found.max() <= peak
        # Half a row of the coarser of the two grids is as near as it gets at the upper and lower edge.
        assert np.abs(found.astype(float) - image).max() <= peak / 24
        steps = np.where(np.arange(size[0]) % 2, peak, 0)[:, None] * np.ones(size[1])
        assert engine.run(steps.astype(image.dtype), bits).max() <= peak


def test_old_operator_sets_are_brought_forward(tmp_path: Path) -> None:
    """In operator set 9 a Clip has no inputs: ours were ignored, and bright values came out black."""
    node = helper.make_node("Mul", ["image", "three"], ["result"])
    proto = networks.model([node], {"three": np.full(1, 3, np.float32)}, [1, 1, "h", "w"])
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", 9))
    proto.ir_version = 4
    path = networks.write(proto, tmp_path / "old.onnx")
    image = np.full((100, 100), 200, np.uint8)
    for backend in cpu_backends():
        with open_engine(path, backend, precision="fp32") as engine:
            assert (engine.run(image) == 255).all(), backend


def strange(tmp_path: Path, domain: str = "mine") -> Path:
    proto = networks.model([helper.make_node("Identity", ["image"], ["result"])], {}, [1, 1, "h", "w"])
    proto.graph.node[0].output[0] = "same"
    node = helper.make_node("Sparkle", ["same"], ["result"], "the_sparkle", domain=domain)
    proto.graph.node.append(node)
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    card = ModelCard(name="strange", task="style", input_colour="luma", output_colour="luma")
    card.write_to(proto)
    path = tmp_path / "strange.onnx"
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("backend", cpu_backends())
def test_an_unknown_operator_is_named_with_its_node(backend: str, tmp_path: Path) -> None:
    with (
        open_engine(strange(tmp_path), backend, precision="fp32") as engine,
        pytest.raises(EngineError, match=r"mine\.Sparkle \(node the_sparkle\)"),
    ):
        engine.run(np.zeros((64, 64), np.uint8))


def test_explanations_name_no_innocent_node() -> None:
    proto = networks.deep(channels=1, scale=2)
    assert explain(proto, "out of memory\n") == "out of memory"
    assert not explain(proto, "something about Convolution went wrong").startswith("operator")
    told = explain(proto, "trouble\nunsupported operator DepthToSpace in node")
    assert told.startswith("operator DepthToSpace")


def test_old_sets_that_cannot_be_converted_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from velatura.runtime.backends import model

    def fail(*_: object) -> None:
        raise RuntimeError("no adapter for Sparkle")

    monkeypatch.setattr(model.version_converter, "convert_version", fail)
    proto = networks.mixer(np.eye(3))
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", 11))
    path = networks.write(proto, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match=r"operator set 11; 13 or newer.*no adapter for Sparkle"):
        open_engine(path)


GPU = [name for name in BACKENDS if name.startswith("ort-")]


@pytest.mark.parametrize("name", GPU)
def test_providers_say_what_is_missing(name: str) -> None:
    reason = opening.find_backend(name).unavailable()
    if reason is None:
        pytest.skip(f"{name} runs here")
    assert "driver" in reason or "install" in reason
    with pytest.raises(BackendUnavailableError, match=name):
        open_engine("upscale-2x", name)


def test_a_silent_fall_back_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime replaces a provider whose libraries are missing by the CPU's and goes on."""

    class Session:
        def __init__(self, *arguments: object, **options: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(EngineError, match="fell back to the CPU"):
        CUDA.session(b"", threads=1)


def test_a_driver_that_is_missing_is_quiet_in_auto() -> None:
    """Nobody without a GPU wants five lines about GPUs at every run; `velatura doctor` has them."""
    if nvidia_problem() is None:
        pytest.skip("an NVIDIA GPU is here")
    with open_engine("upscale-2x", precision="fp32") as engine:
        assert not any("NVIDIA" in note or "tensorrt" in note for note in engine.notes)
