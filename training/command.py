"""`velatura train`: a recipe becomes a checkpoint, or, with `--method optimize`, one picture."""

import errno
import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer

from .checkpoint import Checkpoint
from .data import data_root, read_image
from .device import keep_freed_memory, processes
from .loop import Options, averaged_net, fit
from .objectives import StyleObjective, build_objective
from .optimize import optimise
from .recipe import Recipe, load_recipe, shipped_recipes
from .record import Progress
from .weights import TORCHVISION_FILES, download

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_UNITS = {"s": 1, "m": 60, "h": 3600}


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help=f"{', '.join(shipped_recipes())}, or a .toml file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder of the run [runs/NAME]; with --method optimize, the picture."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder. [$VELATURA_DATA]")] = None,
    style: Annotated[
        list[Path] | None,
        typer.Option(help="Painting in place of the recipe's; repeat to blend several."),
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of photographs in place of the recipe's; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in place of the recipe's.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe, as in TOML; repeatable.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's steps.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Finish within this time, e.g. 90s, 30m, 2h.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Begin with the weights of this checkpoint.pt or, for a style, .onnx file."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="NETWORK=PATH of a loss network: vgg16, vgg19; repeatable."),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option("--download", help="Fetch the loss network's full weights into torch's cache."),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [all cores]")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that prepare batches. [CPU: 0, GPU: cores, up to 8]"),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's files into the folder.")
    ] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    preview_every: Annotated[int, typer.Option(min=1, help="Steps between previews.")] = 500,
    validate_every: Annotated[
        int, typer.Option(min=0, help="Steps between validations; 0: the end.")
    ] = 0,
    method: Annotated[
        str, typer.Option(help="train, or optimize: restyle one picture by L-BFGS, as Gatys et al. do.")
    ] = "train",
    content: Annotated[
        Path | None, typer.Option(help="With --method optimize: the photograph to restyle.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="With --method optimize.")] = 500,
    short_side: Annotated[
        int, typer.Option(min=32, help="With --method optimize: the photograph's short side in pixels.")
    ] = 512,
    start: Annotated[str, typer.Option(help="With --method optimize: noise or photo.")] = "noise",
) -> None:
    """Train a model. Called again with the same folder, it goes on from the last checkpoint."""
    try:
        chosen = _changed(load_recipe(recipe), style, photos, name, change, steps)
        root = _root(chosen, data)
        keep_freed_memory()
        if threads is not None:
            torch.set_num_threads(threads)
        given = _weights(weights)
        if fetch:
            download(chosen.loss_network)
        if method == "optimize":
            _optimize(chosen, root, given, content, out, iterations, short_side, start)
            return
        if method != "train":
            raise ValueError(f"--method {method!r} is neither train nor optimize")
        on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        folder = out or Path("runs") / chosen.name
        base = folder.parent / chosen.begin_with / "checkpoint.pt"
        if init is None and chosen.begin_with and base.is_file():
            init = base
        options = Options(
            time_budget=_seconds(time_budget),
            device=device,
            workers=(min(8, os.cpu_count() or 1) if on_gpu else 0) if workers is None else workers,
            compile=compiled,
            tensorboard=tensorboard,
            save_every=save_every,
            preview_every=preview_every,
            validate_every=validate_every,
            weights=given,
            init=init if init is None or init.suffix == ".onnx" else Checkpoint.load(init),
        )
        checkpoint = fit(chosen, root=root, folder=folder, options=options, report=_report)
        if int(os.environ.get("RANK", "0")) == 0:
            _finish(checkpoint, folder, root, options)
    except KeyboardInterrupt:
        typer.echo("velatura: stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    except OSError as error:
        hint = (
            ": free some space, then call the same command again" if error.errno == errno.ENOSPC else ""
        )
        typer.echo(f"velatura: {error}{hint}", err=True)
        raise typer.Exit(
            4 if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else 3
        ) from error
    except ValueError as error:
        typer.echo(f"velatura: {error}", err=True)
        raise typer.Exit(3) from error


def _changed(
    recipe: Recipe,
    style: Sequence[Path] | None,
    photos: Sequence[Path] | None,
    name: str | None,
    change: Sequence[str] | None,
    steps: int | None,
) -> Recipe:
    """The recipe with what the command line says. Raises ValueError for what makes no sense."""
    values = recipe.to_mapping()
    if style:
        values |= {"style_images": [str(path.resolve()) for path in style], "style_blend": []}
        values["title"] = f"Real-time style after {', '.join(path.stem for path in style)}"
        values["attribution"] = f"Style: {', '.join(path.name for path in style)}"
    if photos:
        values["photos"] = [str(path.resolve()) for path in photos]
    if name:
        values["name"] = name
    for text in change or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text!r} is not KEY=VALUE")
        try:
            values |= tomllib.loads(f"{key.strip()} = {value}")
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value.strip()
    if steps is not None:
        values["steps"] = steps
    return Recipe.from_mapping(values, origin=f"recipe {recipe.name}")


def _root(recipe: Recipe, data: Path | None) -> Path:
    """The data folder; none is needed where the recipe names everything by its full path."""
    if data is not None:
        if not data.is_dir():
            raise FileNotFoundError(f"no data folder at {data}")
        return data
    try:
        return data_root()
    except FileNotFoundError:
        if all(
            Path(path).is_absolute() for path in (*recipe.photos, *recipe.style_images, *recipe.videos)
        ):
            return Path.cwd()
        raise


def _weights(given: Sequence[str] | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in given or ():
        network, equals, path = text.partition("=")
        if not equals or network not in TORCHVISION_FILES:
            raise ValueError(
                f"--weights {text!r} is not NETWORK=PATH with one of {', '.join(TORCHVISION_FILES)}"
            )
        found[network] = Path(path)
    return found


def _finish(checkpoint: Checkpoint, folder: Path, root: Path, options: Options) -> None:
    recipe = Recipe.from_mapping(checkpoint.recipe, origin="checkpoint")
    with_no_group = torch.device(
        "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    )
    net = averaged_net(checkpoint).to(with_no_group)
    measures = build_objective(recipe, root, options.weights, with_no_group).validate(net)
    figures = "".join(f", {name} {value:.3f}" for name, value in measures.items())
    typer.echo(f"{checkpoint.step} steps in {checkpoint.elapsed:.0f} s{figures}")
    typer.echo(f"next: velatura export {folder / 'checkpoint.pt'} {recipe.name}.onnx")


def _report(progress: Progress) -> None:
    losses = " ".join(f"{name} {value:.5f}" for name, value in progress.loss.items())
    speed = f"{progress.images_per_second:.1f} images/s"
    if progress.floor:
        share = progress.images_per_second / progress.floor
        speed += f" ({share:.0%} of the loss network's own {progress.floor:.1f})"
    typer.echo(
        f"step {progress.step}/{progress.steps} {losses} "
        f"rate {progress.learning_rate:.2e}, {speed}, {progress.remaining / 60:.0f} min left"
    )


def _optimize(
    recipe: Recipe,
    root: Path,
    given: dict[str, Path],
    content: Path | None,
    out: Path | None,
    iterations: int,
    short_side: int,
    start: str,
) -> None:
    """Restyle one photograph by optimisation, and write it."""
    if recipe.task != "style" or content is None:
        raise ValueError("--method optimize needs a style recipe and --content PHOTOGRAPH")
    if recipe.quantisation_aware:
        raise ValueError("--method optimize trains no network: leave quantisation_aware out")
    if start not in ("noise", "photo"):
        raise ValueError(f"--start {start!r} is neither noise nor photo")
    target = out or Path(f"{content.stem}.{recipe.name}.png")
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(
            f"-o {target} is no picture's name; with --method optimize it ends in .png or .jpg"
        )
    image = read_image(content)
    scale = short_side / min(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.ascontiguousarray(cv2.resize(image, size, interpolation=way))
    with processes("auto") as (device, _, _):
        # L-BFGS compares gradients: BF16 would blur them.
        precise = replace(recipe, precision="fp32")
        objective: Any = build_objective(precise, root, given, device)
        assert isinstance(objective, StyleObjective)
        photo = torch.from_numpy(resized).permute(2, 0, 1)[None].float().to(device) / 255.0
        done = optimise(
            photo,
            objective,
            iterations=iterations,
            start="photo" if start == "photo" else "noise",
            report=lambda step, value: typer.echo(
                f"iteration {step}/{iterations} objective {value:.4f}"
            ),
        )[-1]
    pixels = done.picture[0].permute(1, 2, 0).mul(255).round().byte().cpu().numpy()[:, :, ::-1]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}{target.suffix}")
    if not cv2.imwrite(str(partial), np.ascontiguousarray(pixels)):
        raise OSError(errno.EIO, "cannot write the picture", str(target))
    partial.replace(target)
    typer.echo(
        f"{target}: objective {done.objective:.4f} after {iterations} iterations, {done.seconds:.0f} s"
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
