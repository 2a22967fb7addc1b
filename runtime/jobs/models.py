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
from ..backends.precision_choice import SIZE
from ..backends.speed import Speed, known_speed, measure_speed, named_card
from ..cache import EngineCache
from ..card import CardFlags, ModelCard
from ..errors import ModelError, VelaturaError, missing
from ..frame import VideoInfo
from ..sources import open_source
from ..zoo import named_models, own_folder, own_models, zoo_models
from .options import sister


def list_models(*, as_json: bool, measure: bool = False) -> None:
    """Print a table of the zoo, and of the user's own models below it.

    Speeds are those that runs on this machine have measured; with `measure` the others are measured
    now, some seconds each, and kept.
    """
    shipped, cache = zoo_models(), EngineCache()
    cards: dict[str, dict[str, ModelCard]] = {}
    speeds: dict[str, Speed] = {}
    for name, variants in named_models().items():
        try:
            cards[name] = {precision: named_card(path) for precision, path in variants.items()}
            speed = known_speed(cards[name]["fp32"], cache)
            if speed is None and measure:
                typer.echo(f"measuring {name}", err=True)
                speed = measure_speed(name, cache)
            if speed is not None:
                speeds[name] = speed
        except VelaturaError as error:  # the user's own folder may hold anything
            typer.echo(f"velatura: {error}", err=True)
    if as_json:
        typer.echo(json.dumps({n: _as_json(v, speeds.get(n)) for n, v in cards.items()}))
        return
    table = Table(Column("model", no_wrap=True), "what it does", "scale", "speed here", "quality")
    for number, (name, variants) in enumerate(cards.items(), 1):
        card = variants["fp32"]
        speed = f"{speeds[name].rate:.0f} fps" if name in speeds else "?"
        table.add_row(
            name, _does(card), f"{card.scale}x", speed, _quality(card),
            end_section=number == len(shipped),
        )  # fmt: skip
    Console().print(table)
    unknown = "; `velatura models --measure` finds out the others" if len(speeds) < len(cards) else ""
    typer.echo(f"Speed is that of frames of {SIZE[1]}x{SIZE[0]}{unknown}.")
    typer.echo("`velatura info MODEL` tells how one was trained, on what, and its licence.")
    if len(cards) > len(shipped):
        typer.echo(f"Those below the line are your own, in {own_folder()}.")


def _as_json(variants: dict[str, ModelCard], speed: Speed | None) -> dict[str, dict[str, Any]]:
    """Returns the cards by precision; the speed stands with the one that reached it."""
    found = {precision: asdict(card) for precision, card in variants.items()}
    if speed is not None:
        place = "int8" if speed.precision.startswith("int8") and "int8" in found else "fp32"
        found[place]["speed"] = asdict(speed)
    return found


def _does(card: ModelCard) -> str:
    """Returns what a model does, by its title."""
    if not card.title:
        return "enlarges the picture" if card.task == "upscale" else "changes the picture"
    title = card.title.removeprefix("Real-time ")
    return title[0].upper() + title[1:]


GRID = 1.5
"""Energy of a pattern of four pixels, over a photograph's, above which it is seen in a style."""


def _quality(card: ModelCard) -> str:
    """Returns the measured figure that tells most, in words; empty where none was measured."""
    if (grid := card.measures.get("grid_4px")) is not None:
        return "no grid is seen" if grid <= GRID else f"a grid is seen, {grid:.0f} times a photograph's"
    for data in ("set14", "set5"):
        if (psnr := card.measures.get(f"{data}_psnr_y_db")) is not None:
            return f"{psnr:.1f} dB on {data.capitalize()}"
    return ""


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
        raise ModelError(missing(Path(what)))
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
