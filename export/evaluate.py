"""`velatura evaluate`: what a model is worth, in the field's measures, beside its rivals."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import typer
from torch import Tensor

from ..runtime.backends import Engine, open_engine
from ..runtime.colour import to_rgb
from ..runtime.errors import VelaturaError
from ..runtime.sources import open_source
from ..training.data import Image, data_root, limited_luma, read_image
from ..training.degrade import bicubic_downscale, h264_frames
from ..training.losses import match_histogram
from ..training.metrics import METRICS
from ..training.metrics.base import Flow
from ..training.metrics.pairs import benchmark_pairs
from ..training.metrics.stability import dis_flows, pan
from ..training.metrics.vgg_distance import to_tensor
from ..training.objectives import StyleObjective, centre_square
from ..training.perception import WeightPaths
from ..training.recipe import Recipe, load_recipe, shipped_recipes
from .verify import runner

SETS = ("set5", "set14")
OBJECTIVE_PICTURES = 10
LIGHT_PICTURES = tuple(f"kodim{number:02d}" for number in (1, 5, 8, 15, 19, 23))
PAN_PICTURES = 5
PAN_FRAMES = 6
PAN_VELOCITY = (1.3, 0.7)
PAN_SIZE = (320, 480)
CODED_CRF = (23, 30)
"""Of x264 on what an upscaler for videos is measured: its default, and a thrifty one."""
CLIP_FRAMES = 16
CLIPS = ("crystal.mp4", "elf.mp4", "shooter_gameplay.mp4")
"""Of the data folder, where no others are given: live action twice and a game."""
NOISE_LEVELS = 2.5
"""Deviation of the sensor noise on the static scene, in levels of 255."""
BLUR_SIGMA = 2.0
"""Of the blurred control: a model that beats it only by blurring has won nothing."""

Report = dict[str, dict[str, float]]
"""Measure -> who (`model`, `input`, `bicubic`, `blurred`) -> value."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=f"Measures: {'; '.join(metric.title for metric in METRICS)}.")
def evaluate(
    model: Annotated[str, typer.Argument(help="Zoo name or .onnx file.")],
    data: Annotated[
        Path | None, typer.Option(help="Data folder with eval and weights. [$VELATURA_DATA]")
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(help="Video for E_warp with DIS flow; repeatable. [data's clips]"),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose objective to compute. [the card's own]")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or int8.")] = "fp32",
    histogram: Annotated[
        bool,
        typer.Option(
            "--match-histogram", help="Match an upscaler's output to its input, as the paper does."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model: fidelity and perceptual distance, or style objective, grid and stability."""
    try:
        root = data or data_root()
        with open_engine(model, precision=_precision(precision)) as engine:
            if engine.card.task == "upscale":
                found = upscaling(engine, root, histogram=histogram)
            else:
                found = style(engine, root, recipe=recipe, clips=clip)
            name = engine.card.name
    except VelaturaError as error:
        typer.echo(f"velatura: {error}", err=True)
        raise typer.Exit(5) from error
    except (OSError, ValueError) as error:
        typer.echo(f"velatura: {error}", err=True)
        raise typer.Exit(3) from error
    if as_json:
        typer.echo(json.dumps({"model": name, "precision": precision, "measures": found}))
        return
    for measure, values in found.items():
        line = "   ".join(f"{who} {value:.5g}" for who, value in values.items())
        typer.echo(f"{measure:<28} {line}")


def _precision(text: str) -> Literal["fp32", "bf16", "int8"]:
    if text not in ("fp32", "bf16", "int8"):
        raise ValueError(f"--precision {text!r} is not fp32, bf16 or int8")
    return text


def upscaling(
    engine: Engine, root: Path, *, histogram: bool = False, weights: WeightPaths | None = None
) -> Report:
    """Every measure of a pair on the standard ones, in the field's protocol, beside bicubic's.

    A luma model is measured on coded pictures, too. A measure whose weights are not at hand is left
    out. Raises FileNotFoundError without the evaluation pictures of the model's scale.
    """
    card = engine.card
    luma = card.input_colour == "luma"

    def ours(picture: Image) -> Image:
        output = engine.run(picture).astype(np.uint8, copy=False)
        return matched(output, picture) if histogram else output

    def bicubic(picture: Image) -> Image:
        size = (picture.shape[1] * card.scale, picture.shape[0] * card.scale)
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)

    found: Report = {}
    folders = [folder for name in SETS if (folder := root / "eval" / name / f"x{card.scale}").is_dir()]
    # A restorer has scale 1, at which there are no standard pairs.
    if not folders and card.scale > 1:
        raise FileNotFoundError(f"no evaluation pictures at {root / 'eval'}/*/x{card.scale}")
    opened = {metric.key: metric.pair(root, weights) for metric in METRICS if metric.pair is not None}
    for folder in folders:
        for who, upscale in (("model", ours), ("bicubic", bicubic)):
            pairs = list(benchmark_pairs(upscale, folder, card.scale, luma=luma))
            for key, measure in opened.items():
                if measure is not None:
                    value = round(float(np.mean([measure(pair) for pair in pairs])), 5)
                    found.setdefault(key.format(folder.parent.name), {})[who] = value
    if luma:
        found |= coded(root, card.scale, {"model": ours, "bicubic": bicubic})
    return found


def coded(root: Path, scale: int, upscalers: Mapping[str, Callable[[Image], Image]]) -> Report:
    """Kodak's photographs, reduced, through H.264 and back, and enlarged again, by every measure of
    luma planes.

    That is what videos are; the standard pairs were never coded. VMAF is left out without the package
    imageio-ffmpeg, all of it without the photographs.
    """
    found: Report = {}
    paths = sorted((root / "eval" / "kodak24").glob("*.png"))
    whole = [limited_luma(read_image(path))[:, :, 0] for path in paths]
    # A portrait lies down: VMAF takes pictures of one size.
    truths = [plane if plane.shape[1] > plane.shape[0] else np.rot90(plane) for plane in whole]
    for crf in CODED_CRF if truths else ():
        lows = [_coded(truth, scale, crf) for truth in truths]
        for who, upscale in upscalers.items():
            outputs = [upscale(low) for low in lows]
            for metric in METRICS:
                if metric.planes is not None:
                    value = metric.planes(outputs, truths, scale)
                    if value is not None:
                        found.setdefault(metric.key.format(f"kodak_crf{crf}"), {})[who] = value
    return found


def _coded(truth: Image, scale: int, crf: int) -> Image:
    """A luma plane, reduced, as the second of two frames that H.264 coded."""
    plane = torch.from_numpy(np.ascontiguousarray(truth))[None, None].float() / 255.0
    low = bicubic_downscale(plane, scale)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    return np.ascontiguousarray(h264_frames([low, low], crf=crf)[-1][:, :, 0])


def matched(output: Image, picture: Image) -> Image:
    """The output with the histogram of the input, both uint8."""
    pair = [
        torch.from_numpy(np.atleast_3d(p)).permute(2, 0, 1)[None].float() for p in (output, picture)
    ]
    pixels = match_histogram(*pair)[0].permute(1, 2, 0).round().byte().numpy()
    return pixels[:, :, 0] if output.ndim == 2 else pixels


def style(
    engine: Engine,
    root: Path,
    *,
    recipe: str | None = None,
    clips: Sequence[Path] | None = None,
    weights: WeightPaths | None = None,
) -> Report:
    """The paper's objective, what is left of the scene, grid energy, and stability over time.

    That is measured on pans, on clips and on a noisy static scene.

    Raises FileNotFoundError without the data, ValueError when the recipe makes no style.
    """
    kodak = sorted((root / "eval" / "kodak24").glob("*.png"))
    if not kodak:
        raise FileNotFoundError(f"no pictures in {root / 'eval' / 'kodak24'}")
    photos = [read_image(path) for path in kodak[:OBJECTIVE_PICTURES]]
    found: Report = {}
    # The recipe of a model of one's own is not among the shipped; its objective needs --recipe.
    name = recipe or (engine.card.recipe if engine.card.recipe in shipped_recipes() else None)
    if name is not None:
        found |= objective_of(engine, style_objective(name, root, weights), photos)
    found |= scene(engine, [read_image(path) for path in kodak if path.stem in LIGHT_PICTURES])
    landscape = [photo for photo in photos if photo.shape[1] > photo.shape[0]]
    for metric in METRICS:
        if metric.photos is not None:
            found[metric.key] = metric.photos(runner(engine), photos)
    found |= pans(engine, landscape[:PAN_PICTURES])
    usual = [path for name in CLIPS if (path := root / "clips" / name).is_file()]
    found |= clip_stability(engine, usual if clips is None else clips)
    return found


def scene(engine: Engine, photos: Sequence[Image]) -> Report:
    """What is left of the scene: its light, black beside bright dots, and the border."""
    style = runner(engine)
    return {m.key: m.scene(style, photos) for m in METRICS if m.scene is not None}


def pans(engine: Engine, photos: Sequence[Image]) -> Report:
    """E_warp on synthetic pans with their true flow, and flicker on a still with sensor noise."""
    rows: dict[str, dict[str, list[float]]] = {}
    draw = np.random.default_rng(1)
    for photo in photos:
        frames, flows = pan(photo, count=PAN_FRAMES, velocity=PAN_VELOCITY, size=PAN_SIZE)
        _moving(rows, "pan", engine, frames, flows)
        noisy = [
            np.clip(np.round(frames[0] + draw.normal(0, NOISE_LEVELS, frames[0].shape)), 0, 255)
            for _ in range(4)
        ]
        still = [frame.astype(np.uint8) for frame in noisy]
        for who, sequence in _beside(engine, still):
            for metric in METRICS:
                if metric.static is not None:
                    key = metric.key.format("static")
                    rows.setdefault(key, {}).setdefault(who, []).append(metric.static(sequence))
    return _means(rows)


def clip_stability(engine: Engine, clips: Sequence[Path]) -> Report:
    """E_warp on real clips, with the flow that OpenCV's DIS estimates on the source."""
    rows: dict[str, dict[str, list[float]]] = {}
    for path in clips:
        with open_source(str(path)) as source:
            frames = [
                _small(to_rgb(frame).planes[0].astype(np.uint8, copy=False))
                for frame in islice(source, CLIP_FRAMES)
            ]
        if len(frames) < 2:
            continue
        _moving(rows, "dis", engine, frames, dis_flows(frames))
    return _means(rows)


def _moving(
    rows: dict[str, dict[str, list[float]]],
    name: str,
    engine: Engine,
    frames: Sequence[Image],
    flows: Sequence[tuple[Flow, Flow]],
) -> None:
    for who, sequence in _beside(engine, frames):
        for metric in METRICS:
            if metric.moving is not None:
                key = metric.key.format(name)
                rows.setdefault(key, {}).setdefault(who, []).append(metric.moving(sequence, flows))


def _beside(engine: Engine, frames: Sequence[Image]) -> tuple[tuple[str, Sequence[Image]], ...]:
    """The model's sequence, the one that it was given, and the control."""
    output = [runner(engine)(frame) for frame in frames]
    return ("model", output), ("input", frames), ("blurred", blurred(output))


def _means(rows: dict[str, dict[str, list[float]]]) -> Report:
    return {
        measure: {who: float(f"{np.mean(values):.5g}") for who, values in found.items()}
        for measure, found in rows.items()
    }


def style_objective(name: str, root: Path, weights: WeightPaths | None = None) -> StyleObjective:
    """The objective of a style recipe, in float32. Raises ValueError for an upscaler's."""
    recipe = load_recipe(name)
    if recipe.task != "style":
        raise ValueError(f"recipe {name} makes no style")
    precise = Recipe.from_mapping({**recipe.to_mapping(), "precision": "fp32"}, origin=name)
    return StyleObjective(precise, root, weights, torch.device("cpu"))


def objective_of(engine: Engine, objective: StyleObjective, photos: Sequence[Image]) -> Report:
    """The content, style and TV terms at 256 pixels and their sum, mean over the photographs.

    The sum is given for the photograph itself, too: what a model that did nothing would have.
    """
    rows: dict[str, dict[str, list[float]]] = {}
    for photo in photos:
        square = centre_square(photo, 256)
        content = objective.content(square)
        output = to_tensor(runner(engine)(to_image(square)))
        for who, picture in (("model", output), ("input", square)):
            with torch.no_grad():
                terms = {
                    k: float(v) for k, v in objective.picture_terms(picture, square, content).items()
                }
            rows.setdefault("objective", {}).setdefault(who, []).append(sum(terms.values()))
            for name, term in terms.items():
                rows.setdefault(f"objective_{name}", {}).setdefault(who, []).append(term)
    return _means(rows)


def blurred(frames: Sequence[Image]) -> list[Image]:
    """The frames after a Gaussian blur: the control that no stable model may be mistaken for."""
    return [np.asarray(cv2.GaussianBlur(frame, (0, 0), BLUR_SIGMA), np.uint8) for frame in frames]


def to_image(tensor: Tensor) -> Image:
    """(1, 3, H, W) in 0..1 -> (H, W, 3) uint8."""
    return tensor[0].permute(1, 2, 0).mul(255).round().byte().numpy()


def _small(image: Image) -> Image:
    """At most 480 pixels wide: DIS and the network at full size would only take longer."""
    factor = min(1.0, 480 / image.shape[1])
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def main(arguments: list[str]) -> None:
    """The entry point behind `velatura evaluate`."""
    app(arguments, prog_name="velatura evaluate")
