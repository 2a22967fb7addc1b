"""`velatura export`: a checkpoint or a model becomes ONNX in the precision asked for, or is refused."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ..runtime.backends import open_engine
from ..runtime.backends.model import Model, find_model, load_model
from ..runtime.backends.open import trial_runner
from ..runtime.card import CardFlags, ModelCard
from ..runtime.errors import VelaturaError
from ..runtime.jobs.options import usage
from ..training.checkpoint import Checkpoint
from ..training.data import Image, PhotoCrops, data_root, limited_luma, read_image
from ..training.loop import averaged_net
from ..training.metrics.grid import PERIODS, grid_excess
from .game_command import Wish, check_model, export_model, target_of
from .precision import Batch, half_precision, quantise
from .targets import DEFAULT_OPSET
from .to_onnx import save, to_onnx, with_frame_io
from .verify import (
    network_parity_db,
    open_measured,
    parity_db,
    refuse_overflow,
    runner,
    upscaler_psnr,
)

if TYPE_CHECKING:
    from onnx import ModelProto

INT8_MAX_LOSS_DB = 0.15
"""An INT8 upscaler may lose this much Y-PSNR on Set5 and Set14, each."""

INT8_MIN_PARITY_DB = 38.0
"""An INT8 style must agree with FP32 this well. Chosen by us, not by a viewing test."""

CALIBRATION_PICTURES = 64

PERCENTILE: dict[str, float | None] = {"style": 99.99, "upscale": None}
"""Of the activations that INT8 represents. A style's rare peaks cost the rest its steps: with them it
agreed with FP32 to 35.4 dB, without to 38.9."""

MIN_PARITY_DB = {"fp32": 60.0, "fp16": 45.0}
"""What a graph in float must agree with PyTorch by, in 8-bit output."""

PARITY_PICTURES = 6

FOR_GAMES = frozenset({"size", "opset", "as_json"})
"""Options that say nothing without `--for`."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def export(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|MODEL", help="checkpoint.pt of a training run, a zoo name, or .onnx."
        ),
    ],
    model: Annotated[
        Path | None, typer.Argument(metavar="[OUT.onnx]", help="The file to write. [NAME.onnx]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Instead: a folder for NAME.onnx and NAME.int8.onnx, as in the zoo."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    io: Annotated[
        str,
        typer.Option(
            help="frames: uint8 NHWC RGB or planar luma in and out; tensor: float NCHW in 0..1."
        ),
    ] = "frames",
    bits: Annotated[int, typer.Option(help="8, or 10 for float16 samples in 0..1 at both ends.")] = 8,
    data: Annotated[
        Path | None, typer.Option(help="Data folder with photos and eval. [$VELATURA_DATA]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write it though it fails parity.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="unity|unreal",
            help="For a game engine's runtime: float32 NCHW RGB in 0..1 at both ends, plain operators.",
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="With --for: WIDTHxHEIGHT, or free for any that the model takes.")
    ] = "free",
    opset: Annotated[
        int | None, typer.Option(help=f"With --for: ONNX's operator set. [{DEFAULT_OPSET}]")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --for: write nothing, list what stands in the way."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --for: print one JSON object.")] = False,
) -> None:
    """Export a checkpoint or a model to ONNX with its card, and measure what the conversion costs."""
    given = _given(context)
    if engine is not None or check:
        if given & {"out", "io", "bits", "data"}:
            usage("--for decides itself what --io, --bits, --out and --data would: leave them out")
        target = target_of(engine)
        if check:
            if model is not None or given - {"source", "engine", "check", "as_json"}:
                usage("--check takes a model, --for and --json, nothing else")
            return check_model(source, target, as_json=as_json)
        if precision not in ("fp32", "fp16", "int8"):
            usage(f"--precision {precision!r} is not fp32, fp16 or int8")
        if model is not None and model.suffix != ".onnx":
            usage(f"{model} does not end in .onnx")
        wish = Wish(engine=target.name, size=size, opset=opset, precision=precision, force=force)
        return export_model(source, model, wish, read=_read, minimum=MIN_PARITY_DB, as_json=as_json)
    if given & FOR_GAMES:
        usage("--size, --opset and --json go with --for unity or --for unreal")
    try:
        if precision not in ("fp32", "fp16", "int8"):
            raise ValueError(f"--precision {precision!r} is not fp32, fp16 or int8")
        if io not in ("frames", "tensor"):
            raise ValueError(f"--io {io!r} is neither frames nor tensor")
        if model is not None and (out is not None or model.suffix != ".onnx"):
            raise ValueError("give either OUT.onnx or --out FOLDER")
        trained = _read(source)
        root = data or data_root()
        if out is None:
            name = trained.card.name if isinstance(trained, Model) else trained.recipe["name"]
            target = model or Path(f"{name}.onnx")
            _export_one(trained, target, precision=precision, io=io, bits=bits, root=root, force=force)
        elif isinstance(trained, Model):
            raise ValueError("--out FOLDER takes a checkpoint")
        else:
            _export_zoo(trained, out, root)
    except (OSError, ValueError, VelaturaError) as error:
        typer.echo(f"velatura: {error}", err=True)
        raise typer.Exit(3) from error


def _given(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _read(source: str) -> "Checkpoint | Model":
    """A training run's checkpoint, or a model with its card."""
    if Path(source).suffix == ".pt":
        return Checkpoint.load(Path(source))
    found = load_model(find_model(source), flags=CardFlags(), trial=trial_runner())
    if found.card.precision != "fp32" or found.card.dtype != "float32":
        raise ValueError(f"{source} is not in float32: give the model that it was made from")
    return found


def _export_one(
    trained: "Checkpoint | Model",
    target: Path,
    *,
    precision: str,
    io: str,
    bits: int,
    root: Path,
    force: bool,
) -> None:
    """One graph, kept at `target` only if it passes parity."""
    if isinstance(trained, Model):
        graph, card = trained.proto, trained.card
    else:
        graph, card = to_onnx(trained)
    plain, reference = graph, card
    if precision == "fp16":
        graph, card, worst = half_precision(graph, card)
        typer.echo(f"largest activation on extreme pictures: {worst.value:.4g} ({worst.tensor})")
    elif precision == "int8":
        full = target.with_name(f".{target.stem}.fp32.onnx")
        try:
            save(graph, card, full)
            reference = replace(card, measures=measure(full, root))
        finally:
            full.unlink(missing_ok=True)
        keep = kept_in_float(card, graph)[-1]
        graph = quantise(graph, calibration(card, root), keep=keep, percentile=PERCENTILE[card.task])
        card = replace(card, precision="int8")
    if io == "frames":
        graph, card = with_frame_io(graph, card, bits=bits)
    trial = target.with_name(f".{target.stem}.{'int8.' if precision == 'int8' else ''}onnx")
    try:
        save(graph, card, trial)
        if isinstance(trained, Model):
            parity = _onnx_parity(plain, reference, trial, root, precision=precision)
        else:
            parity = torch_parity(trained, trial, root, precision=precision)
        found = {"parity_db": parity, **measure(trial, root)}
        card = replace(card, measures=found)
        if precision == "int8":
            reason = refusal(reference, card)
        else:
            low = found["parity_db"] < MIN_PARITY_DB[precision]
            reason = f"it agrees with FP32 to {found['parity_db']} dB only" if low else None
        if reason is not None and not force:
            raise ValueError(f"{precision} fails parity: {reason} (--force writes it all the same)")
        save(graph, card, target)
    finally:
        trial.unlink(missing_ok=True)
    typer.echo(f"{target}: {target.stat().st_size / 1e3:.0f} kB, {_figures(card)}")


def _onnx_parity(
    plain: "ModelProto", card: ModelCard, path: Path, root: Path, *, precision: str
) -> float:
    """PSNR in dB of the file's 8-bit output against the float32 graph's, on Kodak's pictures."""
    full = path.with_name(f".full{path.name}")
    try:
        save(plain, card, full)
        with (
            open_engine(full, "ort", precision="fp32") as reference,
            open_measured(path, precision, "ort") as other,
        ):
            photos = [p[:256, :384].copy() for p in pictures(card, root)[:PARITY_PICTURES]]
            parity = round(min(99.0, parity_db(reference, other, photos)), 2)
            refuse_overflow(other)
            return parity
    finally:
        full.unlink(missing_ok=True)


def _export_zoo(trained: Checkpoint, out: Path, root: Path) -> None:
    """`NAME.onnx` and, where it passes parity, `NAME.int8.onnx`, with float tensors in and out.

    The zoo's graphs leave the samples' type to the runtime, which feeds 8 bits or 10.
    """
    model, card = to_onnx(trained)
    path = out / f"{card.name}.onnx"
    save(model, card, path)
    card = replace(
        card, measures={"parity_db": torch_parity(trained, path, root), **measure(path, root)}
    )
    save(model, card, path)
    typer.echo(f"{path}: {path.stat().st_size / 1e3:.0f} kB, {_figures(card)}")
    _export_int8(path, card, root)


def torch_parity(trained: Checkpoint, path: Path, root: Path, *, precision: str = "fp32") -> float:
    """PSNR in dB of the engine's 8-bit output against PyTorch's, on Kodak's pictures; 99 if equal."""
    net = averaged_net(trained)
    with open_measured(path, precision) as engine:
        images = [image[:256, :384].copy() for image in pictures(engine.card, root)[:PARITY_PICTURES]]
        found = network_parity_db(net, engine, images)
        refuse_overflow(engine)
    return found


def _export_int8(path: Path, card: ModelCard, root: Path) -> None:
    """Quantise the model at `path`, measure, and keep the first result that passes."""
    import onnx

    model = onnx.load(str(path))
    target = path.with_suffix(".int8.onnx")
    trial = target.with_name(f".{target.name}")
    samples, photos = calibration(card, root), pictures(card, root)
    reason = None
    try:
        for keep in kept_in_float(card, model):
            quantised = quantise(model, samples, keep=keep, percentile=PERCENTILE[card.task])
            small = replace(card, precision="int8", measures={})
            save(quantised, small, trial)
            found = measure(trial, root)
            with (
                open_engine(path, precision="fp32") as full,
                open_engine(trial, precision="int8") as low,
            ):
                found["parity_db"] = round(parity_db(full, low, photos), 2)
            small = replace(small, measures=found)
            reason = refusal(card, small)
            if reason is None:
                save(quantised, small, target)
                typer.echo(f"{target}: {target.stat().st_size / 1e3:.0f} kB, {_figures(small)}")
                return
        target.unlink(missing_ok=True)
        typer.echo(f"no INT8 variant: {reason}")
    finally:
        trial.unlink(missing_ok=True)


def kept_in_float(card: ModelCard, model: "ModelProto") -> list[list[str]]:
    """The layers that are worth keeping in float, in the order in which to try, cheapest first.

    Found by trying layers one by one. An upscaler's first layer: 0.13 dB lost on Set5 becomes 0.08 for
    a tenth of the time; its skip and its filter, which make the picture itself, stay with it. A style's
    last layer: 36.0 dB of agreement became 38.1, on an early checkpoint; where that is not enough, its
    first layers and the one before the last.
    """
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    convolutions = [node.name for node in nodes]
    if card.task == "upscale":
        # What reads the picture, or another convolution without a ReLU between: head, skip and filter.
        linear = {model.graph.input[0].name, *(output for node in nodes for output in node.output)}
        plain = [node.name for node in nodes if node is nodes[0] or node.input[0] in linear]
        tail = [node.name for node in nodes if node.name not in plain][-1:]
        return [plain, plain + tail]
    last, first = convolutions[-1:], convolutions[:1]
    return [last, first + last, [*convolutions[:2], *convolutions[-3:]]]


def refusal(full: ModelCard, low: ModelCard) -> str | None:
    """Why an INT8 variant does not pass parity, or None when it does."""
    for name, value in full.measures.items():
        if name.endswith("psnr_y_db") and value - low.measures[name] > INT8_MAX_LOSS_DB:
            return f"{name} falls from {value} to {low.measures[name]} dB"
    if full.task == "style" and low.measures["parity_db"] < INT8_MIN_PARITY_DB:
        return f"it agrees with FP32 to {low.measures['parity_db']} dB only"
    return None


def measure(path: Path, root: Path) -> dict[str, float]:
    """The figures of a card, for the data that is at hand."""
    found: dict[str, float] = {}
    with open_engine(path, precision="int8" if ".int8" in path.name else "fp32") as engine:
        card = engine.card
        if card.task == "style":
            photos = pictures(card, root)
            for period in PERIODS:
                found[f"grid_{period}px"] = round(grid_excess(runner(engine), photos, period), 2)
            return found
        for name in ("set5", "set14"):
            folder = root / "eval" / name / f"x{card.scale}"
            if folder.is_dir():
                found[f"{name}_psnr_y_db"] = round(upscaler_psnr(engine, folder), 2)
    return found


def pictures(card: ModelCard, root: Path) -> list[Image]:
    """Kodak's photographs, which no recipe trains on, as the engine takes them."""
    paths = sorted((root / "eval" / "kodak24").glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"no pictures in {root / 'eval' / 'kodak24'} to measure on")
    images = [read_image(path) for path in paths]
    return [limited_luma(i)[:, :, 0] for i in images] if card.input_colour == "luma" else images


def calibration(card: ModelCard, root: Path) -> list[Batch]:
    """Crops of real photographs in the card's range, (1, C, 256, 256)."""
    photos = PhotoCrops(
        [root / "photos" / "bsds500"], crop=256, seed=7, luma=card.input_colour == "luma"
    )
    return [
        photos.batch(i, 1).numpy().astype(np.float32, copy=False) for i in range(CALIBRATION_PICTURES)
    ]


def _figures(card: ModelCard) -> str:
    return ", ".join(f"{name} {value}" for name, value in card.measures.items())


def main(arguments: list[str]) -> None:
    """The entry point behind `velatura export`."""
    app(arguments, prog_name="velatura export")
