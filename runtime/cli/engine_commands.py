"""The commands about engines: `build`, `cache` and `bench`; they import what they need when called."""

from pathlib import Path
from typing import Annotated

import typer

from ..jobs.options import (
    PRECISIONS,
    Channels,
    Debug,
    Fitting,
    Json,
    ValueRange,
    capabilities,
    choice,
    flags_of,
    height_width,
    reporting,
    usage,
)


def build(
    model: Annotated[str, typer.Argument(help="Zoo name or .onnx file.")],
    target: Annotated[
        str, typer.Option(help="rtx (needs no GPU) or tensorrt (needs its GPU).")
    ] = "rtx",
    sm: Annotated[
        str, typer.Option(help="For rtx: compute capabilities, one engine each.")
    ] = "75,86,89,120",
    least: Annotated[str, typer.Option("--min", help="Smallest frame, HEIGHTxWIDTH.")] = "64x64",
    best: Annotated[str, typer.Option("--opt", help="Frame to be fastest at.")] = "720x1280",
    most: Annotated[str, typer.Option("--max", help="Largest frame.")] = "2160x3840",
    bits: Annotated[int, typer.Option(min=8, max=16, help="Of the frames' samples.")] = 8,
    precision: Annotated[str, typer.Option(help="fp16 or fp32.")] = "fp16",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the engines.")] = Path(),
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Builder optimisation level. [the library's own]")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For tensorrt: later versions load it, too.")
    ] = False,
    hardware: Annotated[
        str | None, typer.Option(help="For tensorrt: ampere (and newer) or same (capability).")
    ] = None,
    value_range: ValueRange = None,
    channels: Channels = None,
    force: Annotated[bool, typer.Option("--force", help="Build it though FP16 fails parity.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build TensorRT-RTX engines for GPUs that need not be here, or a TensorRT engine for this one."""
    from ..backends.nvidia.builder import Profile
    from ..jobs.build import BuildJob, run_build

    with reporting(debug, as_json):
        job = BuildJob(
            model=model,
            target=choice("--target", target, ("rtx", "tensorrt")),
            capabilities=capabilities(sm),
            profile=Profile(
                height_width("--min", least),
                height_width("--opt", best),
                height_width("--max", most),
            ),
            bits=bits,
            precision=choice("--precision", precision, ("fp16", "fp32")),
            out=out,
            level=level,
            version_compatible=version_compatible,
            hardware=choice("--hardware", hardware, ("ampere", "same")) if hardware else None,
            force=force,
            flags=flags_of(value_range, channels),
        )
        run_build(job, as_json=as_json)


def cache(
    action: Annotated[str, typer.Argument(help="list, clear, or prebuild with models.")] = "list",
    models: Annotated[
        list[str] | None, typer.Argument(help="For prebuild: zoo names or files.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(help="For prebuild: frame size HEIGHTxWIDTH; repeatable.")
    ] = None,
    backend: Annotated[str, typer.Option(help="For prebuild.")] = "auto",
    precision: Annotated[str, typer.Option(help="For prebuild.")] = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List, clear or fill the cache of built engines and measured precisions."""
    from ..jobs.engine_cache import clear, list_entries, prebuild

    with reporting(debug, as_json):
        action = choice("the action", action, ("list", "clear", "prebuild"))
        if models and action != "prebuild":
            usage(f"{action} takes no models")
        if action == "list":
            list_entries(as_json=as_json)
        elif action == "clear":
            clear(as_json=as_json)
        else:
            if not models:
                usage("prebuild needs at least one model")
            sizes = [height_width("--size", text) for text in size or ["720x1280"]]
            chosen = choice("--precision", precision, PRECISIONS)
            prebuild(models, sizes, backend=backend, precision=chosen, as_json=as_json)


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Zoo name or .onnx file; with --game one or several in a chain [starry-night].",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Frame size, HEIGHTxWIDTH. [720x1280; with --game 360x640]"),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="all, or one of `velatura doctor`'s. [all; with --game auto]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="For each measurement. [2; with --game 10]")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the JSON there, too.")] = None,
    game: Annotated[
        bool,
        typer.Option(
            "--game", help="Play a game with the models as its last pass: how its frames are paced."
        ),
    ] = False,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Of --game: inline (this frame's result) or pipelined (an earlier one's). [inline]"
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=1, max=1000, help="Of --game: the display's, in Hz. [60]")
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(min=0.1, max=9999, help="Of --game: milliseconds that a frame may take."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Of --game: draw the report there, a .png file.")
    ] = None,
    value_range: ValueRange = None,
    channels: Channels = None,
    fit: Fitting = "tile",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on every backend and precision, or with --game what it does to a game."""
    with reporting(debug, as_json):
        if game:
            from ..jobs.bench_game import GameJob, run_game
            from ..jobs.rendered_game import SMALLEST

            if value_range or channels or fit != "tile":
                usage("--range, --channels and --fit are not for --game")
            height, width = height_width("--size", size or "360x640")
            if width < SMALLEST[0] or height < SMALLEST[1]:
                usage(f"--size {size!r} is too small for a game: {SMALLEST[1]}x{SMALLEST[0]} at least")
            run_game(
                GameJob(
                    models=tuple(models or ("starry-night",)),
                    size=(height, width),
                    mode=choice("--mode", mode or "inline", ("inline", "pipelined")),
                    rate=rate or 60.0,
                    seconds=seconds or 10.0,
                    budget_ms=budget_ms,
                    backend="auto" if backend in (None, "all") else backend,
                    out=out,
                    plot=plot,
                ),
                as_json=as_json,
            )
            return
        if not models or len(models) > 1:
            usage("name one model; several, in a chain, are for --game")
        if mode or rate or budget_ms or plot:
            usage("--mode, --rate, --budget-ms and --plot are for --game")
        from ..jobs.bench import BenchJob, run_bench

        job = BenchJob(
            model=models[0],
            size=height_width("--size", size or "720x1280"),
            backend=backend or "all",
            seconds=seconds or 2.0,
            out=out,
            flags=flags_of(value_range, channels),
            fit=choice("--fit", fit, ("tile", "resize")),
        )
        run_bench(job, as_json=as_json)
