"""Built engines: `velatura build`, of files for GPUs that this machine need not have, and `velatura
cache`, of those that are stored on this one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import typer

from ..backends import Precision, half_emulation, open_engine
from ..backends.base import Options
from ..backends.graph import io_shape, wrap
from ..backends.half import to_half
from ..backends.model import Model, find_model, load_model
from ..backends.nvidia import library as nvidia_library
from ..backends.nvidia.builder import BuildOptions, Built, Profile, build
from ..backends.nvidia.engine_file import SUFFIX, EngineFacts, save
from ..backends.open import cpu_backend, trial_runner
from ..backends.precision_choice import MIN_PARITY_DB, agree
from ..cache import EngineCache, digest_of
from ..card import CardFlags
from ..errors import EngineError, ModelError
from .progress import BuildView

CAPABILITIES = (75, 86, 89, 120)
"""Compute capabilities of the Turing, Ampere, Ada and Blackwell GPUs in gaming PCs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """The options of `velatura build`."""

    model: str
    target: nvidia_library.Name
    capabilities: tuple[int, ...] = CAPABILITIES
    profile: Profile
    bits: int = 8
    precision: str = "fp16"
    out: Path = Path()
    level: int | None = None
    version_compatible: bool = False
    hardware: nvidia_library.Hardware | None = None
    force: bool = False
    flags: CardFlags = field(default_factory=CardFlags)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfParity:
    """The agreement of a model in FP16 with itself in FP32."""

    db: float
    """PSNR of the 8-bit output, on the worst of several pictures, extreme ones included."""
    of: Literal["tensors", "weights"]
    """The method. `tensors`: each was rounded to half. `weights`: only they were, for want of ONNX
    Runtime, so that neither roundings between operations nor their overflow are seen."""


def run_build(job: BuildJob, *, as_json: bool) -> None:
    """Build and write one engine for each capability. Raises VelaturaError for whatever stops it."""
    library = nvidia_library.load(job.target)
    model = load_model(find_model(job.model), flags=job.flags, trial=trial_runner())
    parity = None
    if job.precision == "fp16":
        model, parity = halve(model, force=job.force)
    capabilities: Sequence[int | None] = job.capabilities
    if not library.targets:
        capabilities = (None,)
    written = [
        _build_one(job, library, model, capability, parity, quiet=as_json)
        for capability in capabilities
    ]
    if as_json:
        typer.echo(json.dumps(written))


def halve(model: Model, *, force: bool) -> tuple[Model, HalfParity | None]:
    """Returns the model in FP16 and its agreement with FP32; None for one that is in FP16 already.

    Raises EngineError below 45 dB, and where a tensor leaves half's range, on however few pixels.
    """
    card = model.card
    if card.precision == "int8":
        raise ModelError(f"{card.name} is quantised: give its FP32 model, it becomes FP16")
    if card.dtype == "float16":
        return model, None
    half = replace(
        model, proto=to_half(model.proto), card=replace(card, dtype="float16", precision="fp16")
    )
    # OpenVINO is always here, but widens the weights once and computes in float32.
    rounds = half_emulation.unavailable() is None
    options = Options(hint="latency", cache=EngineCache.of_nothing())
    backend = cpu_backend(exact=True)
    with (
        backend.open(model, precision="fp32", options=options) as full,
        (
            half_emulation.RoundedEngine(half)
            if rounds
            else backend.open(half, precision="fp32", options=options)
        ) as low,
    ):
        parity = agree(full, low).db
        overflow = low.overflow if isinstance(low, half_emulation.RoundedEngine) else None
    advice = "build it with --precision fp32, or --force it"
    if overflow is not None and not force:
        raise EngineError(f"{card.name} overflows in FP16: {overflow} becomes infinite: {advice}")
    if parity < MIN_PARITY_DB and not force:
        raise EngineError(
            f"{card.name} in FP16 agrees with FP32 to {parity:.1f} dB only, where {MIN_PARITY_DB:g} "
            f"are asked: {advice}"
        )
    return half, HalfParity(db=round(parity, 1), of="tensors" if rounds else "weights")


def _build_one(
    job: BuildJob,
    library: nvidia_library.Library,
    model: Model,
    capability: int | None,
    parity: HalfParity | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Builds one engine file and returns the report on it."""
    card = model.card
    graph = wrap(model.proto, card, bits=job.bits, samples="bytes", size=card.fixed_size)
    pairs = (2,) if job.bits > 8 else ()
    options = BuildOptions(
        capability=capability,
        level=job.level,
        version_compatible=job.version_compatible,
        hardware=job.hardware,
        timings=EngineCache().timings(library.name, library.version),
    )
    shape: Callable[[int, int], tuple[int, ...]] = lambda h, w: (*io_shape(card, h, w), *pairs)  # noqa: E731
    number = capability if capability is not None else _here()
    path = job.out / f"{card.name}.{library.name}-sm{number}{SUFFIX}"
    with BuildView(f"{card.name} for sm{number}", silent=quiet) as view:
        built = build(
            library,
            graph.SerializeToString(),
            shape=shape,
            profile=None if card.fixed_size else job.profile,
            options=options,
            progress=view,
        )
    facts = EngineFacts(
        library=library.name,
        version=library.version,
        capability=number,
        precision=job.precision,
        bits=job.bits,
        profile=None if card.fixed_size else job.profile,
        sha256=digest_of(built.engine),
        card=card,
        report=_report(built, parity),
        version_compatible=job.version_compatible,
        hardware=job.hardware,
    )
    save(path, built.engine, facts)
    if not quiet:
        typer.echo(f"{path}: {_words(built, parity)}")
    return {"engine": str(path), "capability": number, **facts.report}


def _report(built: Built, parity: HalfParity | None) -> dict[str, Any]:
    fields = {k: v for k, v in asdict(built).items() if k != "engine"}
    fields |= {"seconds": round(built.seconds, 3), "bytes": len(built.engine)}
    fields |= {"parity_db": parity and parity.db, "parity_of": parity and parity.of}
    return fields


def _words(built: Built, parity: HalfParity | None) -> str:
    words = (
        f"{len(built.engine) / 1e6:.2f} MB in {built.seconds:.1f} s, "
        f"weights {built.weights / 1e3:.0f} kB, {built.layers} fused layers, "
        f"{len(built.tactics)} tactics ({', '.join(built.tactics[:3])}), "
        f"{built.activations / 2**20:.0f} MiB at most beside the frames"
    )
    return words if parity is None else f"{words}, {half_words(parity)}"


def half_words(parity: HalfParity) -> str:
    """Returns the agreement and its method in words."""
    words = f"{parity.db:.1f} dB against FP32"
    if parity.of == "tensors":
        return words
    return f"{words} by the weights alone (without onnxruntime neither rounding nor overflow is seen)"


def _here() -> int:
    """Returns the compute capability of this machine's GPU."""
    from ..backends.nvidia import cuda

    return cuda.load().device().capability


def list_entries(*, as_json: bool) -> None:
    """Print each engine with its model, and the total size."""
    cache = EngineCache()
    entries = cache.entries()
    if as_json:
        found = [
            {"file": entry.path.name, "bytes": entry.size, "whole": entry.whole, "key": entry.key}
            for entry in entries
        ]
        typer.echo(json.dumps({"folder": str(cache.folder), "entries": found}))
        return
    for entry in entries:
        words = [str(entry.key[word]) for word in ("name", "backend", "precision") if word in entry.key]
        state = " ".join(words) if entry.whole else "damaged: will be built again"
        typer.echo(f"{entry.size / 1e3:10.1f} kB  {entry.path.name}  {state}")
    total = sum(entry.size for entry in entries)
    typer.echo(f"{cache.folder}: {len(entries)} entries, {total / 1e6:.1f} MB")
    if cache.problem is not None:
        typer.echo(f"note: {cache.problem}", err=True)


def clear(*, as_json: bool) -> None:
    """Remove all entries; they are built again when they are needed."""
    cache = EngineCache()
    count = cache.clear()
    if as_json:
        typer.echo(json.dumps({"folder": str(cache.folder), "removed": count}))
    else:
        typer.echo(f"{cache.folder}: {count} entries removed")


def prebuild(
    models: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    *,
    backend: str,
    precision: Precision,
    as_json: bool,
) -> None:
    """Build and store the engines of these models for frames of these sizes (height, width), at 8 bits.

    Raises VelaturaError as `open_engine` does.
    """
    done: list[dict[str, object]] = []
    for model in models:
        with (
            BuildView(model, silent=as_json) as view,
            open_engine(model, backend, precision=precision, progress=view) as engine,
        ):
            for height, width in sizes:
                engine.prepare(height, width)
                line: dict[str, object] = {
                    "model": model,
                    "size": [height, width],
                    "backend": engine.backend,
                    "precision": engine.precision,
                }
                done.append(line)
                if not as_json:
                    where = f"{engine.backend} in {engine.precision}"
                    typer.echo(f"{model} at {height}x{width}: ready on {where}")
    if as_json:
        typer.echo(json.dumps(done))
