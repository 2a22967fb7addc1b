"""`velatura evaluate`: what a model is worth, in the field's measures, beside its rivals."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

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
from ..training.lpips import HEADS, load_lpips
from ..training.metrics import (
    Flow,
    benchmark_pairs,
    border_difference,
    dis_flows,
    flicker,
    gradient_energy,
    halo,
    light_correlation,
    pan,
    psnr,
    ssim,
    warp_error,
)
from ..training.objectives import StyleObjective, centre_square
from ..training.perception import WeightPaths, perception
from ..training.recipe import Recipe, load_recipe, shipped_recipes
from .verify import grid_excess
from .vmaf import vmaf

SETS = ("set5", "set14")
VGG_LAYER = "relu2_2"
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


@app.command()
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
    """Y-PSNR and SSIM in the field's protocol, VGG distance, FLIP, LPIPS in colour, beside bicubic's.

    A luma model is measured on coded pictures, too. LPIPS is left out where its weights are not at
    hand. Raises FileNotFoundError without the evaluation pictures of the model's scale.
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
    distance = vgg_distance(root, weights)
    lpips = {kind: load_lpips(kind, root) for kind in HEADS if (root / HEADS[kind]).is_file()}
    for folder in folders:
        name = folder.parent.name
        for who, upscale in (("model", ours), ("bicubic", bicubic)):
            lumas = list(benchmark_pairs(upscale, folder, luma=luma))
            pairs = list(coloured(upscale, folder, luma=luma))
            row = {
                "psnr_y_db": np.mean([psnr(*pair, border=card.scale) for pair in lumas]),
                "ssim_y": np.mean([ssim(*pair, border=card.scale) for pair in lumas]),
                f"vgg_{VGG_LAYER}": np.mean([distance(output, truth) for output, truth in pairs]),
                "flip": np.mean([flip(output, truth) for output, truth in pairs]),
            }
            for kind, measure in lpips.items():
                both = [(to_tensor(output), to_tensor(truth)) for output, truth in pairs]
                row[f"lpips_{kind}"] = np.mean([float(measure(*pair)) for pair in both])
            for measure, value in row.items():
                found.setdefault(f"{name}_{measure}", {})[who] = round(float(value), 5)
    if luma:
        found |= coded(root, card.scale, {"model": ours, "bicubic": bicubic})
    return found


def coded(root: Path, scale: int, upscalers: Mapping[str, Callable[[Image], Image]]) -> Report:
    """Y-PSNR and VMAF of Kodak's photographs, reduced, through H.264 and back, and enlarged again.

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
            pairs = list(zip(outputs, truths, strict=True))
            db = [psnr(output, truth, border=scale) for output, truth in pairs]
            found.setdefault(f"kodak_crf{crf}_psnr_y_db", {})[who] = round(float(np.mean(db)), 3)
            if find_spec("imageio_ffmpeg") is not None:
                score = vmaf(outputs, [np.ascontiguousarray(truth) for truth in truths])
                found.setdefault(f"kodak_crf{crf}_vmaf", {})[who] = round(score, 2)
    return found


def _coded(truth: Image, scale: int, crf: int) -> Image:
    """A luma plane, reduced, as the second of two frames that H.264 coded."""
    plane = torch.from_numpy(np.ascontiguousarray(truth))[None, None].float() / 255.0
    low = bicubic_downscale(plane, scale)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    return np.ascontiguousarray(h264_frames([low, low], crf=crf)[-1][:, :, 0])


def coloured(
    upscale: Callable[[Image], Image], folder: Path, *, luma: bool
) -> Iterable[tuple[Image, Image]]:
    """RGB pictures, upscaled and true, of a folder's pairs; a luma model's chroma is bicubic's."""
    for path in sorted((folder / "lr").glob("*.png")):
        low, truth = read_image(path), read_image(folder / "hr" / path.name)
        if luma:
            y = upscale(limited_luma(low)[:, :, 0])
            size = (y.shape[1], y.shape[0])
            wide = np.asarray(cv2.cvtColor(low, cv2.COLOR_RGB2YCrCb), np.uint8)
            chroma = np.asarray(
                cv2.resize(wide[:, :, 1:], size, interpolation=cv2.INTER_CUBIC), np.uint8
            )
            full = np.clip(np.round((y.astype(np.float64) - 16.0) * 255.0 / 219.0), 0, 255)
            planes = np.dstack([full.astype(np.uint8), chroma])
            output = np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), np.uint8)
        else:
            output = upscale(low)
        height, width = (min(a, b) for a, b in zip(output.shape[:2], truth.shape[:2], strict=True))
        yield output[:height, :width], truth[:height, :width]


def matched(output: Image, picture: Image) -> Image:
    """The output with the histogram of the input, both uint8."""
    pair = [
        torch.from_numpy(np.atleast_3d(p)).permute(2, 0, 1)[None].float() for p in (output, picture)
    ]
    pixels = match_histogram(*pair)[0].permute(1, 2, 0).round().byte().numpy()
    return pixels[:, :, 0] if output.ndim == 2 else pixels


def vgg_distance(
    root: Path, weights: WeightPaths | None = None, *, layer: str = VGG_LAYER
) -> Callable[[Image, Image], float]:
    """A measure of two RGB pictures: squared distance at a layer over the reference's own energy."""
    recipe = Recipe.from_mapping(
        {**load_recipe("upscale-2x-sharp").to_mapping(), "content": {layer: 1.0}, "precision": "fp32"},
        origin="evaluation",
    )
    features = perception(recipe, root, weights)

    @torch.no_grad()
    def measure(output: Image, reference: Image) -> float:
        a, b = (features(to_tensor(image))[layer] for image in (output, reference))
        return float((a - b).square().mean() / b.square().mean())

    return measure


def flip(output: Image, reference: Image) -> float:
    """Mean FLIP of two RGB pictures (Andersson et al. 2020), by NVIDIA's `flip-evaluator`; 0 is equal.

    Raises ValueError when that package is missing.
    """
    try:
        import flip_evaluator
    except ModuleNotFoundError as error:
        raise ValueError("FLIP needs the package flip-evaluator: pip install it") from error
    evaluator: Any = flip_evaluator
    pair = [image.astype(np.float32) / 255.0 for image in (reference, output)]
    return float(evaluator.evaluate(*pair, "LDR", applyMagma=False)[1])


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
    for period in (2, 4):
        excess = grid_excess(engine, photos, period)
        found[f"grid_{period}px"] = {"model_over_input": round(excess, 4)}
    found |= pans(engine, landscape[:PAN_PICTURES])
    usual = [path for name in CLIPS if (path := root / "clips" / name).is_file()]
    found |= clip_stability(engine, usual if clips is None else clips)
    return found


def scene(engine: Engine, photos: Sequence[Image]) -> Report:
    """What is left of the scene: its light, black beside bright dots, and the border.

    Light correlation and the border's difference are means over the photographs.
    """

    def style(image: Image) -> Image:
        return run(engine, image)

    found: Report = {
        "light_correlation": {},
        "halo_on_black": {"model": round(halo(style), 3)},
        "border_difference": {},
    }
    if photos:
        light = [light_correlation(style(photo), photo) for photo in photos]
        outer, inner = np.mean([border_difference(style, photo) for photo in photos], axis=0)
        found["light_correlation"] = {"model": round(float(np.mean(light)), 4)}
        found["border_difference"] = {
            "model": round(float(outer), 3),
            "inside": round(float(inner), 3),
        }
    return found


def pans(engine: Engine, photos: Sequence[Image]) -> Report:
    """E_warp on synthetic pans with their true flow, and flicker on a still with sensor noise."""
    rows: dict[str, dict[str, list[float]]] = {}
    draw = np.random.default_rng(1)
    for photo in photos:
        frames, flows = pan(photo, count=PAN_FRAMES, velocity=PAN_VELOCITY, size=PAN_SIZE)
        _stability(rows, "ewarp_pan", engine, frames, flows)
        noisy = [
            np.clip(np.round(frames[0] + draw.normal(0, NOISE_LEVELS, frames[0].shape)), 0, 255)
            for _ in range(4)
        ]
        still = [frame.astype(np.uint8) for frame in noisy]
        output = [run(engine, frame) for frame in still]
        for who, sequence in (("model", output), ("input", still), ("blurred", blurred(output))):
            rows.setdefault("flicker_static", {}).setdefault(who, []).append(flicker(sequence))
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
        _stability(rows, "ewarp_dis", engine, frames, dis_flows(frames))
    return _means(rows)


def _stability(
    rows: dict[str, dict[str, list[float]]],
    measure: str,
    engine: Engine,
    frames: Sequence[Image],
    flows: Sequence[tuple[Flow, Flow]],
) -> None:
    output = [run(engine, frame) for frame in frames]
    for who, sequence in (("model", output), ("input", frames), ("blurred", blurred(output))):
        rows.setdefault(measure, {}).setdefault(who, []).append(warp_error(sequence, flows))
        energy = float(np.mean([gradient_energy(frame) for frame in sequence]))
        rows.setdefault(f"{measure}_gradient_energy", {}).setdefault(who, []).append(energy)


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
        output = to_tensor(run(engine, to_image(square)))
        for who, picture in (("model", output), ("input", square)):
            with torch.no_grad():
                terms = {
                    k: float(v) for k, v in objective.picture_terms(picture, square, content).items()
                }
            rows.setdefault("objective", {}).setdefault(who, []).append(sum(terms.values()))
            for name, term in terms.items():
                rows.setdefault(f"objective_{name}", {}).setdefault(who, []).append(term)
    return _means(rows)


def run(engine: Engine, image: Image) -> Image:
    """The engine's output for an RGB picture, a copy."""
    return np.array(engine.run(np.ascontiguousarray(image)), np.uint8)


def blurred(frames: Sequence[Image]) -> list[Image]:
    """The frames after a Gaussian blur: the control that no stable model may be mistaken for."""
    return [np.asarray(cv2.GaussianBlur(frame, (0, 0), BLUR_SIGMA), np.uint8) for frame in frames]


def to_tensor(image: Image) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255.0


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
