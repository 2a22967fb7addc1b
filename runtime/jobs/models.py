"""`velatura models`, `velatura models remove` and `velatura info`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table

from ..backends.graph import macs_per_pixel
from ..backends.identity import NAME as IDENTITY
from ..backends.model import ELSEWHERE, find_model, load_model
from ..backends.open import trial_runner
from ..card import CardFlags, ModelCard
from ..errors import ModelError
from ..frame import VideoInfo
from ..sources import open_source
from ..zoo import named_models, own_folder, own_models, zoo_models
from .options import sister


def list_models(*, as_json: bool) -> None:
    """Print a table of the zoo, and of the user's own models below it."""
    shipped = zoo_models()
    cards: dict[str, dict[str, ModelCard]] = {}
    for name, variants in named_models().items():
        try:
            cards[name] = {precision: _card(path) for precision, path in variants.items()}
        except ModelError as error:  # the user's own folder may hold anything
            typer.echo(f"velatura: {error}", err=True)
    if as_json:
        found = {n: {p: asdict(card) for p, card in v.items()} for n, v in cards.items()}
        typer.echo(json.dumps(found))
        return
    table = Table(Column("model", no_wrap=True), "task", "scale", "precisions", "trained", "licence")
    for number, (name, variants) in enumerate(cards.items(), 1):
        card = variants.get("fp32") or next(iter(variants.values()))
        table.add_row(
            name, card.task, f"{card.scale}x", " ".join(variants), card.training, card.licence,
            end_section=number == len(shipped),
        )  # fmt: skip
    Console().print(table)
    if len(cards) > len(shipped):
        typer.echo(f"Those below the line are your own, in {own_folder()}.")


def remove_models(names: Sequence[str], *, as_json: bool) -> None:
    """Remove the user's own models of these names, all or none. Raises ModelError for any other."""
    own = own_models()
    for name in names:
        if name not in own:
            shipped = name in zoo_models()
            why = "is shipped with velatura" if shipped else "is none of your own models"
            mine = ", ".join(own) or "none"
            raise ModelError(f"{name} {why}, so it cannot be removed; yours are: {mine}")
    paths = [path for name in names for path in own[name].values()]
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            raise ModelError(f"{path} cannot be removed: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps({"removed": [str(path) for path in paths]}))
        return
    for path in paths:
        typer.echo(f"removed {path}")


def show_info(what: str, *, as_json: bool) -> None:
    """Print the card of a model, or the facts about a video. Raises VelaturaError when it is
    neither."""
    if what in named_models() or Path(what).suffix == ".onnx" or Path(what).suffix in ELSEWHERE:
        path = find_model(what)
        model = load_model(path, flags=CardFlags(), trial=trial_runner())
        facts: dict[str, Any] = {**asdict(model.card), "file": str(path), "bytes": path.stat().st_size}
        facts["weights"] = sum(_count(tensor.dims) for tensor in model.proto.graph.initializer)
        facts["macs_per_pixel"] = round(macs_per_pixel(model.proto, model.card))
        notes = model.notes
    elif (described := _recipe(what)) is not None:
        facts, notes = described, ()
    elif Path(what).exists() or ":" in what or "%" in what or "*" in what:
        with open_source(what) as source:
            facts, notes = _video(source.info), source.info.notes
    elif "." in Path(what).name or "/" in what:
        raise ModelError(f"no file at {what}")
    elif what == IDENTITY:
        raise ModelError("identity is built in: it passes frames through unchanged")
    else:
        find_model(what)
        return
    if as_json:
        typer.echo(json.dumps({**facts, "notes": notes}))
        return
    for name, value in facts.items():
        if value not in (None, "", (), {}):
            typer.echo(f"{name:<22} {value}")
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _recipe(what: str) -> dict[str, Any] | None:
    """Returns the training package's description of a recipe of this name; None without the package or
    the recipe."""
    try:
        describe = sister("info", "recipe")
        return describe(what) if describe is not None else None
    except ModuleNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(str(error)) from error


def _card(path: Path) -> ModelCard:
    return load_model(path, flags=CardFlags(), trial=trial_runner()).card


def _video(info: VideoInfo) -> dict[str, Any]:
    return {
        "codec": info.codec,
        "size": f"{info.width}x{info.height}",
        "format": str(info.format),
        "rate": str(info.rate),
        "frames": info.frames,
        "seconds": info.duration,
        "matrix": info.colour.matrix,
        "range": info.colour.range,
        "primaries": info.colour.primaries,
        "transfer": info.colour.transfer,
        "aspect": str(info.aspect),
        "audio": list(info.audio),
    }


def _count(dims: Any) -> int:
    total = 1
    for dim in dims:
        total *= int(dim)
    return total
