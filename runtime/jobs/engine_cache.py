"""`velatura cache`: the engines and measurements stored on this machine."""

import json
from collections.abc import Sequence

import typer

from ..backends import Precision, open_engine
from ..cache import EngineCache
from .progress import BuildView


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
