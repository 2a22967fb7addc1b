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
from velatura.runtime.backends import nvinfer

from . import bindings
from .simulated import Gpu, cudaError_t
from .simulated_builder import FLAVOURS, VERSIONS, Flavour
from .simulated_cuda import Runtime, cudaDeviceProp
from .simulated_tensorrt import tensorrt


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Flavour], bindings.Surface]:
    """The surface of a flavour's real bindings."""
    known: dict[str, bindings.Surface] = {}

    def find(flavour: Flavour) -> bindings.Surface:
        if flavour not in known:
            known[flavour] = _rtx() if flavour == "rtx" else _tensorrt(flavour, tmp_path_factory)
        return known[flavour]

    return find


def _rtx() -> bindings.Surface:
    try:
        return bindings.surface(nvinfer.load("rtx").api)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def _tensorrt(flavour: Flavour, factory: pytest.TempPathFactory) -> bindings.Surface:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile what TensorRT's bindings are linked with")
    folder, version = factory.mktemp(flavour), VERSIONS[flavour]
    try:
        bindings.install(folder, f"tensorrt-cu13-bindings=={version}")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"pip does not get TensorRT's bindings {version}: {error.stderr}")
    bindings.stub_libraries(folder, int(version.partition(".")[0]))
    return bindings.read(folder, "tensorrt_bindings")


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
        severity = nvinfer.load("rtx").api.ILogger.Severity
        simulated = tensorrt(Gpu(), flavour).ILogger.Severity
        assert {m.name: m.value for m in simulated} == {
            name: int(value) for name, value in severity.__members__.items()
        }


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
    from velatura.runtime.backends import cuda

    assert cuda.missing_package() is None
    assert cuda.load().api is import_module("cuda.bindings.runtime")


def test_libraries_of_rtx_are_found_through_the_path_on_windows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "others")
    monkeypatch.setattr(nvinfer.sys, "platform", "win32")
    nvinfer.preload(tmp_path)
    assert nvinfer.os.environ["PATH"].split(nvinfer.os.pathsep) == [str(tmp_path), "others"]
