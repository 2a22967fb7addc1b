"""`velatura train`: a recipe becomes a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from .data import data_root
from .loop import Progress, averaged_net, build_objective, fit
from .recipe import load_recipe, shipped_recipes

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_UNITS = {"s": 1, "m": 60, "h": 3600}


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help=f"{', '.join(shipped_recipes())}, or a .toml file.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the run. [runs/RECIPE]")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder. [$VELATURA_DATA]")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's steps.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Finish within this time, e.g. 90s, 30m, 2h.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [all cores]")] = None,
) -> None:
    """Train a model. Called again with the same folder, it goes on from the last checkpoint."""
    try:
        chosen = load_recipe(recipe)
        if steps is not None:
            chosen = replace(chosen, steps=steps)
        root = data or data_root()
        folder = out or Path("runs") / chosen.name
        if threads is not None:
            torch.set_num_threads(threads)
        checkpoint = fit(
            chosen, root=root, folder=folder, time_budget=_seconds(time_budget), report=_report
        )
        net = averaged_net(checkpoint)
        measures = build_objective(chosen, root).validate(net)
    except (FileNotFoundError, ValueError) as error:
        typer.echo(f"velatura: {error}", err=True)
        raise typer.Exit(3) from error
    figures = "".join(f", {name} {value:.2f}" for name, value in measures.items())
    typer.echo(f"{checkpoint.step} steps in {checkpoint.elapsed:.0f} s{figures}")
    typer.echo(f"next: velatura export {folder / 'checkpoint.pt'}")


def _report(progress: Progress) -> None:
    losses = " ".join(f"{name} {value:.5f}" for name, value in progress.loss.items())
    typer.echo(
        f"step {progress.step}/{progress.steps} {losses} "
        f"rate {progress.learning_rate:.2e}, {progress.remaining / 60:.0f} min left"
    )


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * _UNITS[unit]
    except (KeyError, ValueError) as error:
        raise ValueError(f"--time-budget {text!r} is not a time; write 90s, 30m or 2h") from error


def main(arguments: list[str]) -> None:
    """The entry point behind `velatura train`."""
    app(arguments, prog_name="velatura train")
