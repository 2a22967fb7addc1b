"""Engine files: a TensorRT or TensorRT-RTX engine built ahead of time, with its card and facts."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

from onnx import ModelProto

from ...cache import digest_of, write_whole
from ...card import ModelCard
from ...errors import BackendUnavailableError, EngineError, ModelError
from ..base import Engine, Model, Options
from . import cuda
from . import library as nvidia_library
from .builder import Plan, Profile
from .engine import DeviceEngine

SUFFIX = ".engine"

AMPERE = 80
"""The compute capability of the first Ampere GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """The facts that are needed to run an engine file; stored in NAME.engine.json."""

    library: nvidia_library.Name
    version: str
    """Version of the library that built it."""
    capability: int
    """Compute capability of its GPU, such as 86."""
    precision: str
    bits: int
    """Bits of the frames' samples."""
    profile: Profile | None
    sha256: str
    card: ModelCard
    report: dict[str, Any]
    """The builder's report: seconds, weights, activations, layers, tactics."""
    version_compatible: bool = False
    """True if later versions load it, too. It then contains host code of its own, which runs in this
    process when it is opened: open such a file only from a source whose programs you would run."""
    hardware: nvidia_library.Hardware | None = None
    """GPUs that it supports beside the one it was built for."""

    def to_json(self) -> str:
        """Returns the facts as JSON."""
        fields = asdict(self)
        fields["card"] = json.loads(self.card.to_json())
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EngineFacts":
        """Returns the facts in a JSON text. Raises ModelError for any other text."""
        try:
            fields: Any = json.loads(text)
            if fields["library"] not in nvidia_library.MODULES:
                raise ValueError(f"no library is called {fields['library']!r}")
            if fields.pop("compatible", False):  # files of 0.1.0 did not tell one from the other
                fields |= {"version_compatible": True, "hardware": "ampere"}
            if fields.get("hardware") not in (None, *get_args(nvidia_library.Hardware)):
                raise ValueError(f"no hardware compatibility is called {fields['hardware']!r}")
            profile = fields["profile"]
            fields["profile"] = profile and Profile(*(tuple(profile[k]) for k in profile))
            fields["card"] = ModelCard.from_json(json.dumps(fields["card"]))
            return cls(**fields)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"the facts beside the engine cannot be read: {error}") from error


def facts_path(path: Path) -> Path:
    """Returns the path of an engine file's facts."""
    return path.with_name(path.name + ".json")


def save(path: Path, engine: bytes, facts: EngineFacts) -> None:
    """Write engine and facts, each atomically, the facts last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, engine)
    write_whole(facts_path(path), facts.to_json().encode())


def load(path: Path) -> tuple[bytes, EngineFacts]:
    """Returns (engine, facts). Raises ModelError when either is missing, cut, or not of the other."""
    beside = facts_path(path)
    try:
        engine, text = path.read_bytes(), beside.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"no engine at {path} with its facts {beside.name}: {error}") from error
    facts = EngineFacts.from_json(text)
    if digest_of(engine) != facts.sha256:
        raise ModelError(f"{path} is damaged, or {beside.name} belongs to another: build it again")
    return engine, facts


def open_built(path: Path, options: Options) -> Engine:
    """Opens an engine on the GPU from a file.

    Raises BackendUnavailableError without library, driver or GPU, and EngineError, saying how to build
    it again, when it was built for another GPU or by another version.
    """
    engine, facts = load(path)
    reason = nvidia_library.problem(facts.library) or cuda.missing_package()
    if reason is not None:
        raise BackendUnavailableError(f"{path} needs an NVIDIA GPU: {reason}")
    library, runtime = nvidia_library.load(facts.library), cuda.load()
    check_fits(path, facts, library.version, runtime.device().capability)
    plan = Plan(
        engine=engine,
        profile=facts.profile,
        bits=facts.bits,
        kernels_key={
            "name": facts.card.name,
            "backend": facts.library,
            "precision": f"{facts.precision}-kernels",
            "engine": facts.sha256,
            "library": library.version,
            "device": runtime.device().name,
            "driver": runtime.device().driver,
        },
        host_code=facts.version_compatible,
    )
    model = Model(proto=ModelProto(), card=facts.card, path=path)
    return DeviceEngine(
        model,
        library=library,
        cuda=runtime,
        precision=facts.precision,
        options=options,
        plan=plan,
    )


def check_fits(path: Path, facts: EngineFacts, version: str, capability: int) -> None:
    """Raise EngineError when this library or GPU does not load the engine."""
    again = f"build it again with `velatura build MODEL --target {facts.library}"
    newer_gpu = facts.hardware == "ampere" and capability >= AMPERE
    if facts.capability != capability and not newer_gpu:
        how = f"{again} --sm {capability}`" if facts.library == "rtx" else f"{again}` on this machine"
        raise EngineError(
            f"{path} was built for compute capability {facts.capability}, this GPU has {capability}: "
            f"{how}"
        )
    later = facts.version_compatible and _numbers(version) >= _numbers(facts.version)
    if facts.version != version and not later:
        raise EngineError(f"{path} was built by version {facts.version}, this is {version}: {again}`")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def library_of(path: Path) -> str:
    """Returns the name of the backend that runs an engine file."""
    return cast(str, load(path)[1].library)
