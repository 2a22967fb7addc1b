"""What the simulated libraries offer, the real ones have: names, parameters, numbers.

The adapter runs against the simulation in test_device.py; by this it cannot call what does not exist.
"""

import inspect
import shutil
import subprocess
from collections.abc import Callable
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from velatura.runtime import BackendUnavailableError
from velatura.runtime.backends.nvidia import library as nvidia_library
from velatura.runtime.machine import nvidia_problem

from . import bindings
from .simulated import Gpu, cudaError_t
from .simulated_builder import FLAVOURS, VERSIONS, Flavour
from .simulated_cuda import Runtime, cudaDeviceProp
from .simulated_tensorrt import tensorrt

LIBRARY = (77, 8, 9)
"""Minor version, patch and build of the libraries below the bindings, which are of another version."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Flavour], Path]:
    """Where the bindings of a TensorRT lie, with libraries that do nothing."""
    known: dict[str, Path] = {}

    def find(flavour: Flavour) -> Path:
        if flavour not in known:
            known[flavour] = _fetched(flavour, tmp_path_factory.mktemp(flavour))
        return known[flavour]

    return find


def _fetched(flavour: Flavour, folder: Path) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile what TensorRT's bindings are linked with")
    version = VERSIONS[flavour]
    try:
        bindings.install(folder, f"tensorrt-cu13-bindings=={version}")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"pip does not get TensorRT's bindings {version}: {error.stderr}")
    bindings.stub_libraries(folder, (int(version.partition(".")[0]), *LIBRARY))
    return folder


@pytest.fixture(scope="session")
def real(folders: Callable[[Flavour], Path]) -> Callable[[Flavour], bindings.Surface]:
    """The surface of a flavour's real bindings."""
    known: dict[str, bindings.Surface] = {}

    def find(flavour: Flavour) -> bindings.Surface:
        if flavour not in known:
            known[flavour] = (
                _rtx() if flavour == "rtx" else bindings.read(folders(flavour), "tensorrt_bindings")
            )
        return known[flavour]

    return find


def _rtx() -> bindings.Surface:
    try:
        return bindings.surface(nvidia_library.load("rtx").api)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def own(thing: type) -> dict[str, Any]:
    """The public members of a simulated class and its simulated bases."""
    kinds = [kind for kind in thing.__mro__ if kind.__module__ == thing.__module__]
    names = {name for kind in kinds for name in vars(kind)}
    return {
        name: inspect.getattr_static(thing, name)
        for name in sorted(names)
        if name == "__init__" or not name.startswith("_")
    }


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_tensorrt_has_what_its_simulation_offers(
    flavour: Flavour, real: Callable[[Flavour], bindings.Surface]
) -> None:
    surface, simulation = real(flavour), tensorrt(Gpu(), flavour)
    missing: list[str] = []
    for name in [name for name in vars(simulation) if not name.startswith("_")]:
        kind, found = getattr(simulation, name), surface.get(name)
        if found is None:
            missing.append(f"{name}: no such class")
        elif issubclass(kind, IntEnum):
            members = {member.name: member.value for member in kind}
            missing += [
                f"{name}.{m}: {found['enum'].get(m)}" for m in members.items() - found["enum"].items()
            ]
        else:
            missing += [f"{name}.{what}" for what in _differences(kind, found["members"])]
    assert missing == []


def _differences(kind: type, members: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, member in own(kind).items():
        if name == "__init__":
            # What only the library itself makes has no constructor; ours then is the simulation's.
            overloads = bindings.signatures("__init__", members.get("__init__") or "")
            if overloads and parameters(member) not in [[p for p, _ in o] for o in overloads]:
                found.append(f"__init__: real {overloads}")
        elif name not in members:
            found.append(f"{name}: no such member")
        elif isinstance(member, type):
            continue
        elif not inspect.isfunction(member):
            if members[name] is not None:
                found.append(f"{name}: a method, not a value")
        else:
            overloads = bindings.signatures(name, members[name] or "")
            if not any(_accepts(overload, parameters(member)) for overload in overloads):
                found.append(f"{name}({', '.join(parameters(member))}): real {overloads}")
    return found


def _accepts(overload: list[tuple[str, bool]], given: list[str]) -> bool:
    """Whether a call with those parameters, in that order or by name, is one of the overload."""
    names = [name for name, _ in overload]
    return names[: len(given)] == given and all(optional for _, optional in overload[len(given) :])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_levels_of_severity_are_as_the_adapter_takes_them(
    flavour: Flavour, real: Callable[[Flavour], bindings.Surface]
) -> None:
    """Errors are 0 and 1."""
    assert "Severity" in real(flavour)["ILogger"]["members"]
    if flavour == "rtx":
        severity = nvidia_library.load("rtx").api.ILogger.Severity
        simulated = tensorrt(Gpu(), flavour).ILogger.Severity
        assert {m.name: m.value for m in simulated} == {
            name: int(value) for name, value in severity.__members__.items()
        }


@pytest.mark.parametrize("flavour", ["trt10", "trt11"])
@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_a_library_that_makes_nothing_raises_as_its_simulation_does(
    flavour: Flavour, kind: str, folders: Callable[[Flavour], Path]
) -> None:
    """The libraries that do nothing answer as TensorRT does without a driver: with no object."""
    code = f"""
import tensorrt_bindings as library
try:
    library.{kind}(library.Logger())
except Exception as error:
    print(type(error).__name__, error)
"""
    gpu = Gpu()
    gpu.fail = "driver"
    simulation = tensorrt(gpu, flavour)
    with pytest.raises(TypeError) as caught:
        getattr(simulation, kind)(simulation.ILogger())
    assert bindings.run(folders(flavour), ["-c", code]).strip() == f"TypeError {caught.value}"


@pytest.mark.parametrize("flavour", ["trt10", "trt11"])
def test_the_version_is_that_of_the_library_below_the_bindings(
    flavour: Flavour, folders: Callable[[Flavour], Path]
) -> None:
    """The bindings ask for a major version alone, and engines are kept under the library's."""
    code = (
        "from velatura.runtime.backends.nvidia import library; print(library.load('tensorrt').version)"
    )
    major = VERSIONS[flavour].partition(".")[0]
    assert bindings.run(folders(flavour), ["-c", code]).strip() == f"{major}.77.8.9"


def test_the_version_of_rtx_is_its_librarys_too(monkeypatch: pytest.MonkeyPatch) -> None:
    surface = _rtx()
    assert "Runtime" in surface
    real = nvidia_library.load("rtx")
    monkeypatch.setattr(real.api, "__version__", f"{real.version.partition('.')[0]}.77.8.9")
    nvidia_library.load.cache_clear()
    assert nvidia_library.load("rtx").version == real.version


def test_only_rtx_has_targets_and_kernels(real: Callable[[Flavour], bindings.Surface]) -> None:
    """What `Library` says of the differences."""
    for flavour in FLAVOURS:
        surface, rtx = real(flavour), flavour == "rtx"
        assert ("ComputeCapability" in surface) is rtx
        assert ("create_runtime_cache" in surface["IRuntimeConfig"]["members"]) is rtx
        assert ("is_stream_capturable" in surface["IExecutionContext"]["members"]) is rtx
        assert ("REQUIRE_USER_ALLOCATION" in surface["BuilderFlag"]["enum"]) is rtx


def test_cuda_has_what_its_simulation_offers() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    missing: list[str] = []
    for name, member in own(Runtime).items():
        found = getattr(runtime, name, None)
        if name == "__init__":
            continue
        if found is None:
            missing.append(f"{name}: no such name")
        elif isinstance(member, type):
            missing += [f"{m}" for m in member if int(getattr(found, m.name)) != m.value]
        elif inspect.isfunction(member):
            if parameters(member) != parameters(found):
                missing.append(f"{name}{parameters(member)}: real {parameters(found)}")
        elif int(found) != member:
            missing.append(f"{name}: {found}")
    assert missing == []


def test_cuda_describes_a_device_as_its_simulation_does() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    facts, simulated = runtime.cudaDeviceProp(), vars(cudaDeviceProp(Gpu()))
    assert {name: type(getattr(facts, name)) for name in simulated} == {
        name: type(value) for name, value in simulated.items()
    }


def test_cuda_answers_with_tuples_as_its_simulation_does() -> None:
    """Without a driver each call fails, in the form that the adapter takes apart."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    simulated = Runtime(Gpu())
    for name, arguments in (("cudaMalloc", (1 << 60,)), ("cudaGetDeviceProperties", (99,))):
        ours, theirs = getattr(simulated, name)(*arguments), getattr(runtime, name)(*arguments)
        assert isinstance(theirs, tuple)
        assert int(theirs[0])
        assert len(theirs) == len(ours)
    code, words = runtime.cudaGetErrorString(runtime.cudaError_t(cudaError_t.cudaErrorMemoryAllocation))
    assert (int(code), words) == (0, b"out of memory")


def test_cuda_takes_arguments_of_the_adapters_types() -> None:
    """Addresses and foreign streams as numbers, its own handles as it gave them, kinds as enums."""
    if nvidia_problem() is None:
        pytest.skip("this machine has an NVIDIA driver, which would be called with what is none")
    runtime = pytest.importorskip("cuda.bindings.runtime")
    stream, event = runtime.cudaStream_t(64), runtime.cudaEvent_t(128)
    graph, launchable = runtime.cudaGraph_t(192), runtime.cudaGraphExec_t(256)
    inwards = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("cudaDriverGetVersion", ()),
        ("cudaEventCreateWithFlags", (3,)),
        ("cudaEventDestroy", (event,)),
        ("cudaEventRecord", (event, stream)),
        ("cudaEventRecord", (event, 4096)),
        ("cudaEventSynchronize", (event,)),
        ("cudaFree", (4096,)),
        ("cudaFreeHost", (4096,)),
        ("cudaGetDevice", ()),
        ("cudaGetDeviceProperties", (0,)),
        ("cudaGetErrorString", (runtime.cudaError_t(2),)),
        ("cudaGraphDestroy", (graph,)),
        ("cudaGraphExecDestroy", (launchable,)),
        ("cudaGraphInstantiate", (graph, 0)),
        ("cudaGraphLaunch", (launchable, stream)),
        ("cudaHostAlloc", (64, 0)),
        ("cudaMalloc", (64,)),
        ("cudaMemcpy", (4096, 8192, 64, inwards)),
        ("cudaMemcpyAsync", (4096, 8192, 64, inwards, stream)),
        ("cudaStreamBeginCapture", (stream, mode)),
        ("cudaStreamCreateWithFlags", (1,)),
        ("cudaStreamDestroy", (stream,)),
        ("cudaStreamEndCapture", (stream,)),
        ("cudaStreamSynchronize", (stream,)),
        ("cudaStreamWaitEvent", (stream, event, 0)),
    ]
    simulated = {name for name, member in own(Runtime).items() if inspect.isfunction(member)}
    assert {name for name, _ in calls} == simulated - {"__init__"}
    for name, arguments in calls:
        answer = getattr(runtime, name)(*arguments)
        assert isinstance(answer[0], runtime.cudaError_t), name


def test_a_handle_is_no_number_but_gives_one() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    code, ours = Runtime(gpu := Gpu()).cudaStreamCreateWithFlags(1)
    assert code == 0
    for handle in (ours, runtime.cudaStream_t(5)):
        assert not isinstance(handle, int)
        assert int(handle)
    gpu.close()


def test_the_adapter_finds_cuda_by_its_name() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    from velatura.runtime.backends.nvidia import cuda

    assert cuda.missing_package() is None
    assert cuda.load().api is import_module("cuda.bindings.runtime")


def test_libraries_of_rtx_are_found_through_the_path_on_windows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "others")
    monkeypatch.setattr(nvidia_library.sys, "platform", "win32")
    nvidia_library.preload(tmp_path)
    assert nvidia_library.os.environ["PATH"].split(nvidia_library.os.pathsep) == [
        str(tmp_path),
        "others",
    ]
