"""Engine files: a TensorRT or TensorRT-RTX engine built ahead, with its card and facts beside it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from onnx import ModelProto

from ..cache import digest_of, write_whole
from ..card import ModelCard
from ..errors import BackendUnavailableError, EngineError, ModelError
from . import cuda, nvinfer
from .base import Engine, Options
from .builder import Plan, Profile
from .device import DeviceEngine
from .model import Model

SUFFIX = ".engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What must be known to run an engine file; kept in NAME.engine.json."""

    library: nvinfer.Name
    version: str
    """Of the library that built it: no other loads it, unless it was built version-compatible."""
    capability: int
    """Compute capability of its GPU, as 86."""
    precision: str
    bits: int
    """Of the frames' samples."""
    profile: Profile | None
    compatible: bool
    """Built to be loaded by later versions, or on other GPUs."""
    sha256: str
    card: ModelCard
    report: dict[str, Any]
    """What the builder said: seconds, weights, activations, layers, tactics."""

    def to_json(self) -> str:
        """For the file beside the engine."""
        fields = asdict(self)
        fields["card"] = json.loads(self.card.to_json())
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EngineFacts":
        """Raises ModelError for a text that is not its own."""
        try:
            fields: Any = json.loads(text)
            if fields["library"] not in nvinfer.MODULES:
                raise ValueError(f"no library is called {fields['library']!r}")
            profile = fields["profile"]
            fields["profile"] = profile and Profile(*(tuple(profile[k]) for k in profile))
            fields["card"] = ModelCard.from_json(json.dumps(fields["card"]))
            return cls(**fields)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"the facts beside the engine cannot be read: {error}") from error


def facts_path(path: Path) -> Path:
    """Where the facts of an engine file lie."""
    return path.with_name(path.name + ".json")


def save(path: Path, engine: bytes, facts: EngineFacts) -> None:
    """Write engine and facts, each whole or not at all, the facts last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, engine)
    write_whole(facts_path(path), facts.to_json().encode())


def load(path: Path) -> tuple[bytes, EngineFacts]:
    """(engine, facts). Raises ModelError when either is missing, cut, or not of the other."""
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
    """An engine on the GPU from a file.

    Raises BackendUnavailableError without library, driver or GPU, and EngineError, saying how to build
    it again, when it was built for another GPU or by another version.
    """
    engine, facts = load(path)
    reason = nvinfer.problem(facts.library) or cuda.missing_package()
    if reason is not None:
        raise BackendUnavailableError(f"{path} needs an NVIDIA GPU: {reason}")
    library, runtime = nvinfer.load(facts.library), cuda.load()
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
    """Raises EngineError when this library or GPU does not load the engine."""
    if facts.compatible:
        return
    again = f"build it again with `velatura build MODEL --target {facts.library}"
    if facts.capability != capability:
        how = f"{again} --sm {capability}`" if facts.library == "rtx" else f"{again}` on this machine"
        raise EngineError(
            f"{path} was built for compute capability {facts.capability}, this GPU has {capability}: "
            f"{how}"
        )
    if facts.version != version:
        raise EngineError(f"{path} was built by version {facts.version}, this is {version}: {again}`")


def library_of(path: Path) -> str:
    """The backend that runs an engine file."""
    return cast(str, load(path)[1].library)
