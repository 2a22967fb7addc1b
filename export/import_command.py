"""`velatura import`: weights or a graph from elsewhere become a model of the user's own, with a name.

The keys of `--json`:
`imported`: a list, each with `name`, `file` (the model), `source`, `architecture` (empty for a graph),
`scale`, `fixed_size` (height, width; null where it takes any), `licence`, `origin` and `parity_db`, by
backend: the PSNR between its 8-bit output and that of the source in PyTorch, or for a graph in ONNX
Runtime, 99 at most;
`failed`: a list, each with `source` and `error`.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.backends import open_engine
from ..runtime.backends.identity import NAME as IDENTITY
from ..runtime.backends.model import load_model
from ..runtime.backends.open import trial_runner
from ..runtime.cache import digest_of
from ..runtime.card import CardFlags, ModelCard
from ..runtime.errors import BatchError, ModelError, SinkError, VelaturaError
from ..runtime.jobs.options import Channels, Debug, Json, ValueRange, flags_of, reporting, usage
from ..runtime.zoo import named_models, own_folder, own_models
from .command import MIN_PARITY_DB
from .to_onnx import save
from .verify import parity_db
from .weights import SUFFIXES, export_network, network_of, read_weights, texture

FILES = (*SUFFIXES, ".onnx")
"""What is looked for in a folder; of several files of one name the first of these."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the user says of a model that its file cannot know."""

    licence: str | None = None
    origin: str | None = None
    flags: CardFlags
    force: bool = False

    def asked(self, option: str, given: str | None, stated: str) -> str:
        """What was given, what the file states, or what a person at the terminal answers."""
        if given is not None:
            return given
        if sys.stdin.isatty():
            return str(typer.prompt(f"Its {option}", default=stated or "unknown"))
        if not stated:
            usage(f"--{option} is missing: say it, though it be --{option} unknown")
        return stated


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A model of the user's own that has just been made."""

    source: Path
    file: Path
    card: ModelCard
    architecture: str
    parity: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "name": self.card.name,
            "file": str(self.file),
            "source": str(self.source),
            "architecture": self.architecture,
            "scale": self.card.scale,
            "fixed_size": self.card.fixed_size,
            "licence": self.card.licence,
            "origin": self.card.attribution,
            "parity_db": self.parity,
        }

    def told(self) -> str:
        """The line for a person."""
        size = self.card.fixed_size
        sizes = f"frames in tiles of {size[1]}x{size[0]}" if size else "frames of any size"
        agrees = ", ".join(f"{db:g} dB ({backend})" for backend, db in self.parity.items())
        kind = self.architecture or "a graph"
        return (
            f"{self.card.name}: {kind}, {self.card.scale}x, {sizes}; "
            f"agrees with its source to {agrees}; "
            f"kept as {self.file}"
        )


@app.command("import")
def import_models(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE|FOLDER", help=".pth, .safetensors or .onnx; or a folder of them."),
    ],
    name: Annotated[str | None, typer.Option(help="What to call it. [the file's name]")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Its licence, for the card. [stated in the file, or asked]")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="Who made it, or where it is from. [stated, or asked]")
    ] = None,
    value_range: ValueRange = None,
    channels: Channels = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Of an .onnx with a noise or strength plane: its level there. [0.059]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Keep it though it fails parity.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make models of your own of files from elsewhere: then their names work like shipped ones.

    No code in a file is run. `velatura models` lists them, `velatura models remove NAME` removes one.
    """
    flags = replace(flags_of(value_range, channels), strength=strength)
    terms = Terms(licence=licence, origin=origin, flags=flags, force=force)
    with reporting(debug, as_json):
        if not source.is_dir():
            made, failed = [import_file(source, name, terms)], dict[Path, VelaturaError]()
        elif name is not None:
            usage("--name is for one file, not for a folder")
        else:
            made, failed = import_folder(source, terms, quiet=as_json)
        if as_json:
            wrong = [{"source": str(path), "error": str(error)} for path, error in failed.items()]
            facts = {"imported": [model.facts() for model in made], "failed": wrong}
            typer.echo(json.dumps(facts))
        elif not source.is_dir():
            typer.echo(made[0].told())
    if failed:
        codes = {error.exit_code for error in failed.values()}
        raise typer.Exit(codes.pop() if len(codes) == 1 else BatchError.exit_code)


def import_folder(
    folder: Path, terms: Terms, *, quiet: bool
) -> tuple[list[Imported], dict[Path, VelaturaError]]:
    """Import every file of a folder that is not among the user's own yet; what fails stops no other.

    Raises ModelError where there is none.
    """
    found: dict[str, Path] = {}
    for suffix in FILES:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == suffix and not path.name.startswith("."):
                found.setdefault(path.stem, path)
    if not found:
        raise ModelError(f"{folder} holds no {', '.join(FILES)}")
    before = {_training(path) for files in own_models().values() for path in files.values()}
    made: list[Imported] = []
    failed: dict[Path, VelaturaError] = {}
    for path in found.values():
        if any(text.endswith(_mark(path)) for text in before):
            if not quiet:
                typer.echo(f"{path} has been imported before")
            continue
        try:
            made.append(import_file(path, None, terms))
        except VelaturaError as error:
            failed[path] = error
            if not quiet:
                typer.echo(f"velatura: {error}", err=True)
        else:
            if not quiet:
                typer.echo(made[-1].told())
    return made, failed


def import_file(source: Path, name: str | None, terms: Terms) -> Imported:
    """Make a model of one file and keep it in the user's folder.

    Raises ModelError for what cannot be a model or fails parity, SinkError where it cannot be kept.
    """
    if not source.is_file():
        raise ModelError(f"no file at {source}")
    if source.suffix.lower() not in FILES:
        raise ModelError(f"{source} ends in none of {', '.join(FILES)}")
    name = _free_name(name or re.sub(r"[^A-Za-z0-9_+-]+", "-", source.stem).strip("-+_"))
    target = own_folder() / f"{name}.onnx"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix.lower() == ".onnx":
            model = _of_graph(source, target, name, terms)
        else:
            model = _of_weights(source, target, name, terms)
    except OSError as error:
        raise SinkError(
            f"{target} cannot be written: {error.strerror or error}; "
            "$VELATURA_MODELS names another folder"
        ) from error
    return model


def _free_name(name: str) -> str:
    """The name, if it is one and nobody has it. Raises ModelError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]*", name):
        raise ModelError(f"{name!r} is no name for a model: letters, digits, - and _ make one (--name)")
    if name == IDENTITY or name in named_models():
        mine = f", or remove it: `velatura models remove {name}`" if name in own_models() else ""
        raise ModelError(f"the name {name} is taken: give another by --name{mine}")
    return name


def _of_weights(source: Path, target: Path, name: str, terms: Terms) -> Imported:
    weights = read_weights(source)
    net = network_of(weights, source)
    colour = "luma" if net.channels == 1 else "rgb"
    kind = " ".join([net.architecture, *net.tags])
    stated = weights.stated
    card = ModelCard(
        name=name,
        task="upscale" if net.scale > 1 else "style",
        title=stated.get("modelspec.title", ""),
        input_colour=colour,
        output_colour=colour,
        scale=net.scale,
        training=f"{kind}, {_mark(source)}",
        licence=terms.asked("licence", terms.licence, stated.get("modelspec.license", "")),
        attribution=terms.asked("origin", terms.origin, stated.get("modelspec.author", "")),
    )
    graph, card, parity = export_network(net, card, target)
    return _kept(source, target, graph, card, kind, parity, terms)


def _of_graph(source: Path, target: Path, name: str, terms: Terms) -> Imported:
    model = load_model(source, flags=terms.flags, trial=trial_runner())
    licence = terms.asked("licence", terms.licence, model.card.licence)
    origin = terms.asked("origin", terms.origin, model.card.attribution)
    trained = model.card.training or "elsewhere"
    training = f"{trained}, {_mark(source)}"
    card = replace(model.card, name=name, training=training, licence=licence, attribution=origin)
    trial = target.with_name(f".{target.name}")
    size = card.fixed_size or (3 * card.size_multiple + 96, 2 * card.size_multiple + 64)
    picture = texture(card, size, 0)
    try:
        save(model.proto, card, trial)
        with (
            open_engine(trial, "ort", precision="fp32") as reference,
            open_engine(trial, "openvino", precision="fp32") as other,
        ):
            parity = {"openvino": round(min(99.0, parity_db(reference, other, [picture])), 2)}
    finally:
        trial.unlink(missing_ok=True)
    return _kept(source, target, model.proto, card, "", parity, terms)


def _kept(
    source: Path,
    target: Path,
    graph: Any,
    card: ModelCard,
    architecture: str,
    parity: dict[str, float],
    terms: Terms,
) -> Imported:
    worst = min(parity, key=lambda backend: parity[backend])
    limit = MIN_PARITY_DB["fp16" if card.dtype == "float16" else "fp32"]
    if parity[worst] < limit and not terms.force:
        raise ModelError(
            f"{source} was not imported: on {worst} it agrees with its source to {parity[worst]:g} dB, "
            f"less than {limit:g} (--force keeps it all the same)"
        )
    measures = {f"parity_{backend}_db": db for backend, db in parity.items()}
    card = replace(card, measures={**card.measures, **measures})
    save(graph, card, target)
    return Imported(source=source, file=target, card=card, architecture=architecture, parity=parity)


def _mark(source: Path) -> str:
    """What the card says of the file that it was made of."""
    return f"imported from {source.name} (SHA-256 {digest_of(source.read_bytes())[:16]})"


def _training(path: Path) -> str:
    """What the card of one's own model says of its training; nothing where the file is no model."""
    try:
        return load_model(path, flags=CardFlags(), trial=trial_runner()).card.training
    except ModelError:
        return ""


def main(arguments: Sequence[str]) -> None:
    """Entry point of the runtime's command."""
    app(args=list(arguments), prog_name="velatura import")
