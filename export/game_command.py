"""What `velatura export --for` and `--check` do, and how they tell it.

The keys of `--json` where a file was written:
`file`, `bytes`: it, and its length;
`engine`: unity or unreal; `opset`: ONNX's operator set in it; `precision`: fp32 or fp16;
`size` (height, width), null where it is free: then sides are multiples of `size_multiple` and at least
`min_size`;
`scale`: sides of the result over those of the picture;
`parity_db`: the worst of `parity`, which has for each `library` and `size` of the picture the PSNR
`db` between the file and the original, 99 at most.

Of `--check --json`:
`file`, `engine`: what was checked, and for what;
`violations`: what stands in the way, each with the `rule` it breaks, `operator` and `node` (empty where
it is the file as a whole), `why`, and `advice` on what to do;
`sources`: the documents that the rules are from; `open_points`: what they leave open.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import typer

from ..runtime.backends.model import Model, find_model
from ..runtime.card import ModelCard
from ..runtime.errors import ModelError, SinkError, SourceError
from ..runtime.jobs.options import reporting, usage, width_height
from ..training.checkpoint import Checkpoint
from .checker import Violation, check_file
from .game_engines import graph_for
from .game_parity import Parity, measure_parity
from .targets import DEFAULT_OPSET, LOWEST_EXPORT_OPSET, TARGETS, Target
from .to_onnx import save, to_onnx

Read = Callable[[str], Checkpoint | Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user wants of `--for`, as written."""

    engine: str
    size: str = "free"
    opset: int | None = None
    precision: str = "fp32"
    force: bool = False


def target_of(engine: str | None) -> Target:
    """The target of that name; a wrong one is a wrong option."""
    if engine is None:
        usage("--check needs --for unity or --for unreal")
    if engine not in TARGETS:
        usage(f"--for is {engine!r}, not {' or '.join(TARGETS)}")
    return TARGETS[engine]


def check_model(source: str, target: Target, *, as_json: bool) -> None:
    """Tell what stands in the way of an ONNX file; exit code 5 where something does."""
    with reporting(debug=False, as_json=as_json):
        if Path(source).suffix == ".pt":
            raise ModelError(f"{source} is a checkpoint: export it first, then check the .onnx")
        path = find_model(source)
        found = check_file(path, target)
        if as_json:
            typer.echo(json.dumps(_checked(path, target, found)))
        elif found:
            for violation in found:
                typer.echo(str(violation))
        else:
            typer.echo(f"{path}: nothing in the way of {target.title}")
    if found:
        many = f"{len(found)} things stand" if len(found) > 1 else "one thing stands"
        typer.echo(f"velatura: {many} in the way of {target.title}", err=True)
        raise typer.Exit(ModelError.exit_code)


def _checked(path: Path, target: Target, found: list[Violation]) -> dict[str, object]:
    return {
        "file": str(path),
        "engine": target.name,
        "violations": [asdict(violation) for violation in found],
        "sources": target.sources,
        "open_points": target.open_points,
    }


def export_model(
    source: str,
    out: Path | None,
    wish: Wish,
    *,
    read: Read,
    minimum: dict[str, float],
    as_json: bool,
) -> None:
    """Write the file for a game engine where it keeps to the engine's rules and to the original."""
    target = target_of(wish.engine)
    opset = _opset(wish.opset, target)
    wide = None if wish.size == "free" else width_height("--size", wish.size)
    size = None if wide is None else (wide[1], wide[0])
    if wish.precision == "int8":
        usage(f"--precision int8 --for {target.name}: {target.int8_refusal}")
    if wish.precision == "fp16" and not target.half:
        usage(f"--precision fp16 --for {target.name}: {target.half_refusal}")
    with reporting(debug=False, as_json=as_json):
        trained = _read(read, source)
        if isinstance(trained, Model):
            proto, card, notes = trained.proto, trained.card, trained.notes
        else:
            (proto, card), notes = to_onnx(trained), ()
        path = out or Path(f"{card.name}.{target.name}.onnx")
        if isinstance(trained, Model) and trained.path is not None and _same(trained.path, path):
            raise SinkError(f"{path} is the model itself: give another name to write to")
        half = wish.precision == "fp16"
        graph, made = graph_for(proto, card, target, size=size, opset=opset, half=half)
        trial = path.with_name(f".{path.stem}.trial.onnx")
        try:
            save(graph, made, trial)
            parity = measure_parity(proto, card, trial, made)
            worst = min(one.db for one in parity)
            if worst < minimum[wish.precision] and not wish.force:
                raise ModelError(
                    f"{wish.precision} fails parity: it agrees with the original to {worst} dB only "
                    "(--force writes it all the same)"
                )
            made = replace(made, measures={"parity_db": worst})
            save(graph, made, path)
        except OSError as error:
            raise SinkError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            trial.unlink(missing_ok=True)
        if as_json:
            typer.echo(json.dumps(_written(path, target, opset, made, parity)))
            return
        for note in notes:
            typer.echo(note)
        typer.echo(f"parity {', '.join(_words(one) for one in parity)}")
        typer.echo(
            f"{path}: {path.stat().st_size / 1e3:.0f} kB for {target.title}, operator set {opset}, "
            f"{_sizes(made)}, parity_db {worst}"
        )


def _opset(given: int | None, target: Target) -> int:
    if given is None:
        return DEFAULT_OPSET
    low, high = LOWEST_EXPORT_OPSET, target.opsets[1]
    if not low <= given <= high:
        usage(f"--opset {given} --for {target.name}: give {low} to {high} ({target.opset_note})")
    return given


def _read(read: Read, source: str) -> Checkpoint | Model:
    try:
        return read(source)
    except ValueError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror or error}") from error


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _words(parity: Parity) -> str:
    height, width = parity.size
    return f"{parity.library} {width}x{height} {parity.db} dB"


def _sizes(card: ModelCard) -> str:
    if card.fixed_size is not None:
        height, width = card.fixed_size
        return f"pictures of {width}x{height}"
    if card.size_multiple == 1 and card.min_size == 1:
        return "pictures of any size"
    return f"sides that are multiples of {card.size_multiple} and at least {card.min_size}"


def _written(
    path: Path, target: Target, opset: int, card: ModelCard, parity: list[Parity]
) -> dict[str, object]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "engine": target.name,
        "opset": opset,
        "precision": card.precision,
        "size": None if card.fixed_size is None else list(card.fixed_size),
        "size_multiple": card.size_multiple,
        "min_size": card.min_size,
        "scale": card.scale,
        "parity_db": card.measures["parity_db"],
        "parity": [asdict(one) for one in parity],
    }
