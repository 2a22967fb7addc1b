"""`velatura export`: a checkpoint becomes `NAME.onnx` and, where it passes parity, `NAME.int8.onnx`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ..runtime.backends import open_engine
from ..runtime.card import ModelCard
from ..training.checkpoint import Checkpoint
from ..training.data import Image, PhotoCrops, data_root, limited_luma, read_image
from .precision import Batch, quantise
from .to_onnx import save, to_onnx
from .verify import grid_excess, parity_db, upscaler_psnr

if TYPE_CHECKING:
    from onnx import ModelProto

INT8_MAX_LOSS_DB = 0.15
"""An INT8 upscaler may lose this much Y-PSNR on Set5 and Set14, each."""

INT8_MIN_PARITY_DB = 38.0
"""An INT8 style must agree with FP32 this well. Chosen by us, not by a viewing test."""

CALIBRATION_PICTURES = 64

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of a training run.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the models.")] = Path(),
    data: Annotated[
        Path | None, typer.Option(help="Data folder with photos and eval. [$VELATURA_DATA]")
    ] = None,
    int8: Annotated[bool, typer.Option(help="Also quantise to INT8.")] = True,
) -> None:
    """Export a checkpoint to ONNX with its card, quantise it, and measure both."""
    try:
        trained = Checkpoint.load(checkpoint)
        root = data or data_root()
        model, card = to_onnx(trained)
        path = out / f"{card.name}.onnx"
        save(model, card, path)
        card = replace(card, measures=measure(path, root))
        save(model, card, path)
        typer.echo(f"{path}: {path.stat().st_size / 1e3:.0f} kB, {_figures(card)}")
        if int8:
            _export_int8(path, card, root)
    except (FileNotFoundError, ValueError) as error:
        typer.echo(f"velatura: {error}", err=True)
        raise typer.Exit(3) from error


def _export_int8(path: Path, card: ModelCard, root: Path) -> None:
    """Quantise the model at `path`, measure, and keep the result only when it passes."""
    import onnx

    model = onnx.load(str(path))
    quantised = quantise(model, calibration(card, root), keep=kept_in_float(card, model))
    target = path.with_suffix(".int8.onnx")
    trial = target.with_name(f".{target.name}")
    small = replace(card, precision="int8", measures={})
    try:
        save(quantised, small, trial)
        found = measure(trial, root)
        with open_engine(path, precision="fp32") as full, open_engine(trial, precision="int8") as low:
            found["parity_db"] = round(parity_db(full, low, pictures(card, root)), 2)
        small = replace(small, measures=found)
        reason = refusal(card, small)
        if reason is not None:
            target.unlink(missing_ok=True)
            typer.echo(f"no INT8 variant: {reason}")
            return
        save(quantised, small, target)
        typer.echo(f"{target}: {target.stat().st_size / 1e3:.0f} kB, {_figures(small)}")
    finally:
        trial.unlink(missing_ok=True)


def kept_in_float(card: ModelCard, model: "ModelProto") -> list[str]:
    """The layer that is worth keeping in float, found by trying layers of the two networks one by one.

    An upscaler's first layer: 0.13 dB lost on Set5 becomes 0.08 for a tenth of the time. A style's last
    layer: 36.0 dB of agreement became 38.1, on an early checkpoint.
    """
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    return convolutions[:1] if card.task == "upscale" else convolutions[-1:]


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
            found["grid_2px"] = round(grid_excess(engine, pictures(card, root), 2), 2)
            found["grid_4px"] = round(grid_excess(engine, pictures(card, root), 4), 2)
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
