"""TensorRT-RTX's own builder, which needs no GPU; engine files; samples that travel as bytes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from velatura.runtime import BackendUnavailableError, EngineError, ModelCard, ModelError
from velatura.runtime.backends.base import Options
from velatura.runtime.backends.graph import INPUT, OUTPUT, Samples, io_shape, wrap
from velatura.runtime.backends.half import to_half
from velatura.runtime.backends.model import Model, load_model
from velatura.runtime.backends.nvidia import library as nvidia_library
from velatura.runtime.backends.nvidia.builder import BuildOptions, Built, Profile, build
from velatura.runtime.backends.nvidia.engine_file import (
    EngineFacts,
    check_fits,
    facts_path,
    library_of,
    load,
    open_built,
    save,
)
from velatura.runtime.backends.open import trial_runner
from velatura.runtime.cache import EngineCache, digest_of
from velatura.runtime.card import CardFlags
from velatura.runtime.machine import nvidia_problem
from velatura.runtime.zoo import zoo_models

from . import networks

GENERATIONS = (75, 86, 89, 120)
"""Turing, Ampere, Ada, Blackwell."""

ANY_FRAME = Profile((64, 64), (720, 1280), (2160, 3840))
ZOO = zoo_models()


@pytest.fixture(scope="module")
def rtx() -> nvidia_library.Library:
    try:
        return nvidia_library.load("rtx")
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def zoo_model(name: str) -> Model:
    return load_model(ZOO[name]["fp32"], flags=CardFlags(), trial=trial_runner())


def halved(model: Model) -> Model:
    card = replace(model.card, dtype="float16", precision="fp16")
    return Model(proto=to_half(model.proto), card=card)


def built(
    library: nvidia_library.Library,
    model: Model,
    *,
    bits: int = 8,
    size: tuple[int, int] | None = None,
    options: BuildOptions | None = None,
    progress: Callable[[str, float], None] = lambda _what, _done: None,
) -> Built:
    pairs = (2,) if bits > 8 else ()
    return build(
        library,
        wrap(model.proto, model.card, bits=bits, size=size, samples="bytes").SerializeToString(),
        shape=lambda height, width: (*io_shape(model.card, height, width), *pairs),
        profile=ANY_FRAME if size is None else None,
        options=options if options is not None else BuildOptions(capability=86),
        progress=progress,
    )


def test_a_model_builds(rtx: nvidia_library.Library) -> None:
    builds(rtx, "upscale-2x", 86)


@pytest.mark.soak
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", list(ZOO))
def test_the_whole_zoo_builds_for_four_generations(
    rtx: nvidia_library.Library, name: str, generation: int
) -> None:
    builds(rtx, name, generation)


def builds(rtx: nvidia_library.Library, name: str, generation: int) -> None:
    model = halved(zoo_model(name))
    weights = sum(tensor.ByteSize() for tensor in model.proto.graph.initializer)
    heard: list[tuple[str, float]] = []
    made = built(
        rtx,
        model,
        options=BuildOptions(capability=generation),
        progress=lambda what, done: heard.append((what, done)),
    )
    assert len(made.engine) > made.weights > 0.5 * weights
    # Between its layers lies at least one picture of the largest size, in half precision.
    assert made.activations > 2160 * 3840 * 2
    assert made.layers >= 1
    assert len(made.tactics) >= 1
    assert made.seconds > 0
    assert all(what and 0 <= done <= 1 for what, done in heard)
    parts = [done for _, done in heard]
    assert parts == sorted(parts)
    assert parts[-1] == 1


def test_each_generation_gets_an_engine_of_its_own(rtx: nvidia_library.Library) -> None:
    model = halved(zoo_model("upscale-2x"))
    engines = {
        built(rtx, model, options=BuildOptions(capability=generation)).engine
        for generation in GENERATIONS
    }
    assert len(engines) == len(GENERATIONS)


@pytest.mark.quick_rows(4)
@pytest.mark.parametrize("name", ["upscale-2x", "starry-night"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [None, (240, 320)])
@pytest.mark.parametrize("half", [True, False])
def test_depths_sizes_and_precisions(
    rtx: nvidia_library.Library, name: str, bits: int, size: tuple[int, int] | None, half: bool
) -> None:
    model = zoo_model(name)
    made = built(rtx, halved(model) if half else model, bits=bits, size=size)
    assert made.weights > 0
    assert made.tactics


def test_half_precision_shrinks_weights_and_activations(rtx: nvidia_library.Library) -> None:
    """Weights of a network that has many, which the library's own tables do not outweigh; activations
    of one at full resolution, which its planes in float do not."""
    for name, measure in (("wave", "weights"), ("upscale-2x-sharp", "activations")):
        model = zoo_model(name)
        whole, half = (built(rtx, m, size=(240, 320)) for m in (model, halved(model)))
        assert getattr(half, measure) < 0.8 * getattr(whole, measure), name


def test_a_fixed_size_asks_for_less_memory_than_the_largest(rtx: nvidia_library.Library) -> None:
    model = halved(zoo_model("upscale-2x"))
    assert built(rtx, model, size=(240, 320)).activations < built(rtx, model).activations / 10


def test_a_workspace_too_small_for_the_network_is_refused(rtx: nvidia_library.Library) -> None:
    options = BuildOptions(capability=86, workspace=1)
    with pytest.raises(EngineError, match="workspace"):
        built(rtx, halved(zoo_model("upscale-2x")), options=options)


def test_an_unknown_generation_is_refused_with_the_known_ones(rtx: nvidia_library.Library) -> None:
    with pytest.raises(EngineError, match=r"75, 80, 86, 89, 120.* not 70"):
        built(rtx, halved(zoo_model("upscale-2x")), options=BuildOptions(capability=70))


@pytest.mark.parametrize(
    "options", [BuildOptions(version_compatible=True), BuildOptions(hardware="ampere")]
)
def test_flags_of_tensorrt_are_refused_by_rtx(
    rtx: nvidia_library.Library, options: BuildOptions
) -> None:
    with pytest.raises(EngineError, match="--sm"):
        built(rtx, halved(zoo_model("upscale-2x")), options=options)


def test_an_unknown_operator_is_named_with_its_node(rtx: nvidia_library.Library) -> None:
    proto = networks.mixer(np.eye(3))
    proto.opset_import.append(helper.make_opsetid("my.lab", 1))
    proto.graph.node[0].output[0] = "plain"
    proto.graph.node.append(
        helper.make_node("Sharpen", ["plain"], ["result"], "sharpen_it", domain="my.lab")
    )
    card = ModelCard(name="lab", task="style")
    with pytest.raises(ModelError, match=r"operator Sharpen \(node sharpen_it\)"):
        built(rtx, Model(proto=proto, card=card))


@pytest.mark.parametrize("data", [b"no graph at all", None])
def test_a_corrupt_graph_is_the_models_fault(rtx: nvidia_library.Library, data: bytes | None) -> None:
    if data is None:
        model = halved(zoo_model("upscale-2x"))
        whole = wrap(model.proto, model.card, samples="bytes").SerializeToString()
        data = whole[: len(whole) // 2]
    with pytest.raises(ModelError, match="does not take the model"):
        build(
            rtx,
            data,
            shape=lambda height, width: (1, 1, height, width),
            profile=ANY_FRAME,
            options=BuildOptions(capability=86),
            progress=lambda _what, _done: None,
        )


def test_a_build_can_be_stopped_from_its_progress(
    rtx: nvidia_library.Library, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C falls into the progress callback, which the library calls from C++."""

    def stop(what: str, done: float) -> None:
        raise KeyboardInterrupt(f"{what} {done}")

    with pytest.raises(KeyboardInterrupt, match="Building engine"):
        built(rtx, halved(zoo_model("upscale-2x")), progress=stop)
    assert "Exception" not in capfd.readouterr().err


def test_one_build_hears_its_own_lines_while_other_objects_of_the_library_live(
    rtx: nvidia_library.Library,
) -> None:
    """An engine that is open holds a runtime with its own logger, and the library keeps one for all."""
    elsewhere = nvidia_library.Heard()
    runtime = rtx.api.Runtime(nvidia_library.logger(rtx, elsewhere))
    made = built(rtx, halved(zoo_model("upscale-2x")))
    assert made.weights > 0
    assert made.tactics
    assert "differs from one already" not in elsewhere.text
    del runtime


@pytest.mark.parametrize(
    "sizes",
    [
        ((64, 64), (32, 1280), (2160, 3840)),
        ((64, 64), (720, 1280), (2160, 1279)),
        ((2, 2), (2, 2), (2, 1)),
    ],
)
def test_sizes_must_grow(sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(EngineError, match="must grow"):
        Profile(*sizes)


def test_a_profile_holds_what_lies_between_its_ends() -> None:
    assert ANY_FRAME.holds(64, 3840)
    assert ANY_FRAME.holds(2160, 64)
    assert not ANY_FRAME.holds(63, 1280)
    assert not ANY_FRAME.holds(720, 3841)


# Samples as bytes: the way into a library that has no 16-bit integers.


@pytest.mark.parametrize("name", ["upscale-2x", "starry-night"])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("bits", [10, 12])
def test_bytes_are_bit_equal_to_integers(name: str, half: bool, bits: int) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = halved(zoo_model(name)) if half else zoo_model(name)
    channels = model.card.input_channels
    rng = np.random.default_rng(bits)
    frame = rng.integers(0, 1 << bits, (1, 1, 56, 64) if channels == 1 else (1, 56, 64, 3))
    frame.reshape(-1)[:512] = np.linspace(0, (1 << bits) - 1, 512)
    frame = frame.astype(np.uint16)

    def result(samples: Samples, given: np.ndarray) -> np.ndarray:
        graph = wrap(model.proto, model.card, bits=bits, samples=samples).SerializeToString()
        session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return session.run([OUTPUT], {INPUT: given})[0]

    expected = result("integers", frame)
    found = result("bytes", frame.view(np.uint8).reshape(*frame.shape, 2))
    assert expected.dtype == np.uint16
    assert expected.max() > 255  # else the high byte would not be seen
    assert np.array_equal(np.ascontiguousarray(found).view(np.uint16)[..., 0], expected)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_level_survives_its_bytes(layout: str, dtype: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    card = ModelCard(name="same", task="style", layout=layout, dtype=dtype, value_range=(0.0, 1.0))  # type: ignore[arg-type]
    proto = networks.mixer(np.eye(3), layout=layout, dtype=dtype)
    graph = wrap(proto, card, bits=10, samples="bytes").SerializeToString()
    frame = np.arange(1024, dtype=np.uint16)[:, None].repeat(3, 1).reshape(1, 32, 32, 3)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run([OUTPUT], {INPUT: frame.view(np.uint8).reshape(*frame.shape, 2)})[0]
    error = np.abs(found.view(np.uint16)[..., 0].astype(int) - frame)
    # A half in 0..1 has steps of 1/2048 below one.
    assert error.max() <= (0 if dtype == "float32" else 1)


# Engine files.


def facts_of(engine: bytes, **values: object) -> EngineFacts:
    given: dict[str, object] = {
        "library": "rtx",
        "version": "1.7.1.116",
        "capability": 86,
        "precision": "fp16",
        "bits": 10,
        "profile": ANY_FRAME,
        "sha256": digest_of(engine),
        "card": zoo_model("upscale-2x").card,
        "report": {"seconds": 0.1, "tactics": ["Myelin 0x0"]},
    }
    return EngineFacts(**(given | values))  # type: ignore[arg-type]


@pytest.fixture
def engine_file(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "upscale-2x.rtx-sm86.engine"
    save(path, b"engine" * 100, facts_of(b"engine" * 100))
    return path


@pytest.mark.parametrize("profile", [ANY_FRAME, None])
def test_an_engine_file_comes_back_with_its_facts(tmp_path: Path, profile: Profile | None) -> None:
    path, engine = tmp_path / "m.engine", bytes(range(256))
    card = replace(zoo_model("upscale-2x").card, fixed_size=(64, 48))
    facts = facts_of(engine, profile=profile, card=card)
    save(path, engine, facts)
    assert load(path) == (engine, facts)
    assert library_of(path) == "rtx"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.engine", "m.engine.json"]


def test_a_damaged_engine_is_refused(engine_file: Path) -> None:
    data = engine_file.read_bytes()
    for damaged in (data[:-1], data + b"x", b"\0" + data[1:], b""):
        engine_file.write_bytes(damaged)
        with pytest.raises(ModelError, match="damaged"):
            load(engine_file)


def test_facts_of_another_engine_are_refused(engine_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.engine"
    save(other, b"other", facts_of(b"other"))
    facts_path(other).replace(facts_path(engine_file))
    with pytest.raises(ModelError, match="belongs to another"):
        load(engine_file)


def test_missing_facts_are_named(engine_file: Path) -> None:
    facts_path(engine_file).unlink()
    with pytest.raises(ModelError, match=r"upscale-2x\.rtx-sm86\.engine\.json"):
        load(engine_file)


@pytest.mark.parametrize(
    "change",
    [
        "cut", "list", "no card", "no profile", "unknown field", "unknown library", "unknown hardware",
        "binary",
    ],
)  # fmt: skip
def test_unreadable_facts_are_the_models_fault(engine_file: Path, change: str) -> None:
    path = facts_path(engine_file)
    fields = json.loads(path.read_text())
    if change == "no card":
        del fields["card"]
    if change == "no profile":
        fields["profile"] = {"least": 3}
    if change == "unknown library":
        fields["library"] = "cubism"
    if change == "unknown hardware":
        fields["hardware"] = "silicon"
    if change == "unknown field":
        fields["aura"] = 7
    text = json.dumps([] if change == "list" else fields)
    data = b"\xff\xfe\xfa" if change == "binary" else text.encode()
    path.write_bytes(data[:-5] if change == "cut" else data)
    with pytest.raises(ModelError):
        load(engine_file)


def test_an_engine_for_another_gpu_says_how_to_build_for_this_one() -> None:
    facts = facts_of(b"")
    with pytest.raises(EngineError, match=r"capability 86, this GPU has 120.*--target rtx --sm 120"):
        check_fits(Path("m.engine"), facts, facts.version, 120)
    with pytest.raises(EngineError, match=r"--target tensorrt` on this machine"):
        check_fits(Path("m.engine"), replace(facts, library="tensorrt"), facts.version, 120)


def test_an_engine_of_another_version_says_which() -> None:
    facts = facts_of(b"")
    with pytest.raises(EngineError, match=r"1\.7\.1\.116, this is 1\.8\.0\.1"):
        check_fits(Path("m.engine"), facts, "1.8.0.1", 86)
    check_fits(Path("m.engine"), facts, facts.version, 86)
    later = replace(facts, version_compatible=True)
    for version in (facts.version, "1.8.0.1", "1.10", "9.9"):
        check_fits(Path("m.engine"), later, version, 86)
    for version in ("1.7.1.99", "1.6.9.999", "0.9"):
        with pytest.raises(EngineError, match=r"1\.7\.1\.116, this is"):
            check_fits(Path("m.engine"), later, version, 86)
    with pytest.raises(EngineError, match="this GPU has 120"):
        check_fits(Path("m.engine"), later, facts.version, 120)


@pytest.mark.parametrize("compatible", [True, False])
def test_facts_that_did_not_tell_the_two_compatibilities_apart_are_read(
    engine_file: Path, compatible: bool
) -> None:
    path = facts_path(engine_file)
    fields = json.loads(path.read_text())
    del fields["version_compatible"], fields["hardware"]
    path.write_text(json.dumps({**fields, "compatible": compatible}))
    facts = load(engine_file)[1]
    wanted = (True, "ampere") if compatible else (False, None)
    assert (facts.version_compatible, facts.hardware) == wanted


def test_without_a_driver_an_engine_file_says_so(engine_file: Path) -> None:
    problem = nvidia_problem()
    if problem is None:
        pytest.skip("this machine has an NVIDIA driver")
    nvidia = "driver|GPU" if nvidia_library.missing_package("rtx") is None else "not installed"
    with pytest.raises(BackendUnavailableError, match=nvidia):
        open_built(engine_file, Options(cache=EngineCache.of_nothing()))


def test_a_real_engine_survives_its_file(rtx: nvidia_library.Library, tmp_path: Path) -> None:
    model = halved(zoo_model("upscale-2x"))
    made = built(rtx, model)
    path = tmp_path / "m.engine"
    facts = facts_of(made.engine, version=rtx.version, card=model.card)
    save(path, made.engine, facts)
    assert load(path) == (made.engine, facts)
