"""The commands about engines: `build`, `cache` and `bench`; they import what they need when called."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
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
    from ..backends.builder import Profile
    from .build import BuildJob, run_build

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
    from .cache import clear, list_entries, prebuild

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
    model: Annotated[str, typer.Argument(help="Zoo name or .onnx file.")],
    size: Annotated[str, typer.Option(help="Frame size, HEIGHTxWIDTH.")] = "720x1280",
    backend: Annotated[str, typer.Option(help="all, or one of `velatura doctor`'s.")] = "all",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each measurement.")] = 2.0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the JSON there, too.")] = None,
    value_range: ValueRange = None,
    channels: Channels = None,
    fit: Fitting = "tile",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on every backend and precision, against this machine's own peak."""
    from .bench import BenchJob, run_bench

    with reporting(debug, as_json):
        job = BenchJob(
            model=model,
            size=height_width("--size", size),
            backend=backend,
            seconds=seconds,
            out=out,
            flags=flags_of(value_range, channels),
            fit=choice("--fit", fit, ("tile", "resize")),
        )
        run_bench(job, as_json=as_json)
