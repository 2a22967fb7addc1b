"""`velatura doctor`: the backends that this machine can run, and a two-second test."""

import json
import os
import platform
import shutil
import subprocess
from typing import Any

import typer

from ..backends import open_engine, refusals
from ..backends.nvidia import library as nvidia_library
from ..backends.open import backend_precisions, distributions
from ..cache import EngineCache
from ..errors import VelaturaError
from ..machine import cpu_features, cpu_name, nvidia_problem, packages
from ..sources import open_source
from ..stages import Neural
from ..zoo import zoo_models
from .bench import stage_times

SELF_TEST = "upscale-2x"
SELF_TEST_SECONDS = 2.0


def examine(*, as_json: bool) -> int:
    """Prints the findings; returns 0 when at least one backend runs, 7 when none does."""
    reasons = refusals()
    cache = EngineCache()
    findings: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cpu_features": cpu_features(),
        "gpus": _gpus(),
        "nvidia": nvidia_problem() or "usable",
        "cache": str(cache.folder) if cache.problem is None else cache.problem,
        "backends": {
            name: "refused: " + reason if reason else "available: " + " ".join(backend_precisions(name))
            for name, reason in reasons.items()
        },
        "builders": {name: _builder(name) for name in nvidia_library.MODULES},
        "models": list(zoo_models()),
        "packages": packages(distributions()),
    }
    usable = [name for name, reason in reasons.items() if reason is None]
    findings["used"] = usable[0] if usable else None
    if usable:
        findings["self_test"] = self_test()
    if as_json:
        typer.echo(json.dumps(findings))
    else:
        _print(findings)
    failed = not usable or "error" in findings["self_test"]
    return 7 if failed else 0


def self_test() -> dict[str, Any]:
    """Returns the result of upscaling a 640x360 pattern for two seconds, without any file."""
    try:
        with open_source("pattern:640x360?frames=16") as source, open_engine(SELF_TEST) as engine:
            times = stage_times(Neural(engine), list(source), SELF_TEST_SECONDS)
            return {
                "model": SELF_TEST,
                "backend": engine.backend,
                "precision": engine.precision,
                "fps_640x360": round(len(times) / sum(times), 1),
            }
    except VelaturaError as error:
        return {"error": str(error)}


def _print(findings: dict[str, Any]) -> None:
    for name, value in findings.items():
        if isinstance(value, dict):
            typer.echo(f"{name}:")
            for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
                typer.echo(f"  {key:<16} {inner}")
        elif isinstance(value, list):
            typer.echo(f"{name:<14} {' '.join(map(str, value)) or 'none'}")  # pyright: ignore
        else:
            typer.echo(f"{name:<14} {value}")


def _builder(name: nvidia_library.Name) -> str:
    """Returns what `velatura build` can do here: TensorRT-RTX builds for other GPUs, too."""
    try:
        library = nvidia_library.load(name)
    except VelaturaError as error:
        return f"refused: {error}"
    if library.targets:
        return f"{library.version}, builds for sm {' '.join(map(str, library.targets))}"
    return f"{library.version}, builds for the GPU of this machine"


def _gpus() -> list[str]:
    """Returns the GPUs that the driver's own tool lists."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"nvidia-smi failed: {error}"]
    return [line for line in listed.stdout.splitlines() if line]
