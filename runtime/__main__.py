"""The command `velatura`. Subcommands import what they need when they are called."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .card import CardFlags
from .errors import VelaturaError

app = typer.Typer(
    name="velatura",
    help="Restyle and upscale video with real-time neural networks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8", "int8-bf16")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.command()
def run(
    source: Annotated[str, typer.Argument(help="Video file, frames/%05d.png, or pattern:640x360@30.")],
    sink: Annotated[str, typer.Argument(help="Video file, frames/%05d.png, or null:")],
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Zoo name or .onnx file; repeat to chain several."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Resize to WIDTHxHEIGHT after the models.")] = None,
    backend: Annotated[
        str, typer.Option(help="auto, or one of `velatura doctor`'s, or identity.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto (measured, remembered), fp32, fp16 (GPUs), bf16, int8 or int8-bf16 (CPUs)."
        ),
    ] = "auto",
    codec: Annotated[
        str, typer.Option(help="h264, hevc, av1, vp9, ffv1, or an FFmpeg encoder.")
    ] = "h264",
    crf: Annotated[
        int | None, typer.Option(help="Constant quality; lower is better. [H.264: 18]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Encoder speed. [H.264: veryfast]")] = None,
    pix_fmt: Annotated[
        str | None, typer.Option(help="Pixel format of the output, e.g. yuv444p.")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Frame rate of an image sequence. [25]")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    audio: Annotated[bool, typer.Option(help="Copy the audio.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    tolerate: Annotated[
        bool, typer.Option("--tolerate", help="Exit with 0 though frames of a damaged source are lost.")
    ] = False,
    value_range: Annotated[
        str | None, typer.Option("--range", help="For a foreign model: 1 or 255.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="For a foreign model: rgb or bgr.")] = None,
    fit: Annotated[
        str, typer.Option(help="For a model of one size: tile the frames to it, or resize them.")
    ] = "tile",
    building: Annotated[
        str,
        typer.Option(
            "--while-building",
            help="While an engine is built, frames: wait, fallback (to the CPU) or pass (unchanged).",
        ),
    ] = "wait",
    journal: Annotated[
        bool | None,
        typer.Option(
            "--journal/--no-journal",
            help="Keep what is done beside SINK, so that a run cut off goes on there. [long videos]",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what a run that was cut off left.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
    as_json: Json = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Restyle and upscale SOURCE into SINK."""
    from .command.run import Job, run_job

    with _reporting(debug, as_json):
        job = Job(
            source=source,
            sink=sink,
            models=tuple(model or ()),
            size=_size(size),
            backend=backend,
            precision=_choice("--precision", precision, PRECISIONS),
            codec=codec,
            crf=crf,
            preset=preset,
            pix_fmt=pix_fmt,
            fps=fps,
            frames=frames,
            audio=audio,
            overwrite=overwrite,
            tolerate=tolerate,
            value_range=float(_choice("--range", value_range, ("1", "255"))) if value_range else None,
            channels=_choice("--channels", channels, ("rgb", "bgr")) if channels else None,
            fit=_choice("--fit", fit, ("tile", "resize")),
            building=_choice("--while-building", building, ("wait", "fallback", "pass")),
            journal=journal,
            restart=restart,
        )
        raise SystemExit(run_job(job, quiet=quiet, as_json=as_json))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Video file or image sequence.")],
    second: Annotated[str, typer.Argument(help="Another one, of any size and rate.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help=".png, .html (a page with sliders), or a video.")
    ] = Path("compare.html"),
    at: Annotated[list[float] | None, typer.Option(help="Seconds; repeatable for a page.")] = None,
    view: Annotated[str, typer.Option(help="wipe (half of each) or side (both whole).")] = "wipe",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Put two videos side by side: a still, a page with sliders, or a clip."""
    from .command.compare import compare as run_compare

    with _reporting(debug, False):
        chosen = _choice("--view", view, ("wipe", "side"))
        run_compare(first, second, out, at=at or (), view=chosen, overwrite=overwrite)


@app.command()
def models(as_json: Json = False) -> None:
    """List the shipped models."""
    from .command.show import list_models

    list_models(as_json=as_json)


@app.command()
def info(
    what: Annotated[
        str, typer.Argument(metavar="MODEL|VIDEO", help="A zoo name, .onnx file or video.")
    ],
    as_json: Json = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Say what a model eats and gives, or what a video holds."""
    from .command.show import show_info

    with _reporting(debug, as_json):
        show_info(what, as_json=as_json)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(help="The video that was the input.")],
    output: Annotated[str, typer.Argument(help="The video that was made of it.")],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame of both.")] = False,
    as_json: Json = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Check that OUTPUT shows every frame of SOURCE at its time, beside its sound."""
    from .command.verify import verify as run_verify

    with _reporting(debug, as_json):
        raise SystemExit(run_verify(source, output, deep=deep, as_json=as_json))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run: CPU, GPUs, backends, versions, and a two-second self-test."""
    from .command.doctor import examine

    raise SystemExit(examine(as_json=as_json))


@app.command()
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
    value_range: Annotated[
        str | None, typer.Option("--range", help="For a foreign model: 1 or 255.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="For a foreign model: rgb or bgr.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build it though FP16 fails parity.")] = False,
    as_json: Json = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Build TensorRT-RTX engines for GPUs that need not be here, or a TensorRT engine for this one."""
    from .backends.builder import Profile
    from .command.build import BuildJob, run_build

    with _reporting(debug, as_json):
        job = BuildJob(
            model=model,
            target=_choice("--target", target, ("rtx", "tensorrt")),
            capabilities=_capabilities(sm),
            profile=Profile(
                _height_width("--min", least),
                _height_width("--opt", best),
                _height_width("--max", most),
            ),
            bits=bits,
            precision=_choice("--precision", precision, ("fp16", "fp32")),
            out=out,
            level=level,
            version_compatible=version_compatible,
            hardware=_choice("--hardware", hardware, ("ampere", "same")) if hardware else None,
            force=force,
            flags=_flags(value_range, channels),
        )
        run_build(job, as_json=as_json)


@app.command()
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
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List, clear or fill the cache of built engines and measured precisions."""
    from .command.cache import clear, list_entries, prebuild

    with _reporting(debug, as_json):
        action = _choice("the action", action, ("list", "clear", "prebuild"))
        if models and action != "prebuild":
            _usage(f"{action} takes no models")
        if action == "list":
            list_entries(as_json=as_json)
        elif action == "clear":
            clear(as_json=as_json)
        else:
            if not models:
                _usage("prebuild needs at least one model")
            sizes = [_height_width("--size", text) for text in size or ["720x1280"]]
            chosen = _choice("--precision", precision, PRECISIONS)
            prebuild(models, sizes, backend=backend, precision=chosen, as_json=as_json)


@app.command()
def bench(
    model: Annotated[str, typer.Argument(help="Zoo name or .onnx file.")],
    size: Annotated[str, typer.Option(help="Frame size, HEIGHTxWIDTH.")] = "720x1280",
    backend: Annotated[str, typer.Option(help="all, or one of `velatura doctor`'s.")] = "all",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each measurement.")] = 2.0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the JSON there, too.")] = None,
    value_range: Annotated[
        str | None, typer.Option("--range", help="For a foreign model: 1 or 255.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="For a foreign model: rgb or bgr.")] = None,
    fit: Annotated[
        str, typer.Option(help="For a model of one size: tile the frames to it, or resize them.")
    ] = "tile",
    as_json: Json = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure a model on every backend and precision, against this machine's own peak."""
    from .command.bench import BenchJob, run_bench

    with _reporting(debug, as_json):
        job = BenchJob(
            model=model,
            size=_height_width("--size", size),
            backend=backend,
            seconds=seconds,
            out=out,
            flags=_flags(value_range, channels),
            fit=_choice("--fit", fit, ("tile", "resize")),
        )
        run_bench(job, as_json=as_json)


_EXTRAS = {"evaluate": "export"}
"""Extras of commands that are not named after them."""

_PASS_ON: dict[str, Any] = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


@app.command(context_settings=_PASS_ON)
def train(context: typer.Context) -> None:
    """Train a model from a recipe (extra: velatura[train])."""
    _plugin("train", context.args)


@app.command(context_settings=_PASS_ON)
def export(context: typer.Context) -> None:
    """Export a checkpoint to ONNX (extra: velatura[export])."""
    _plugin("export", context.args)


@app.command(context_settings=_PASS_ON)
def evaluate(context: typer.Context) -> None:
    """Measure what a model is worth (extra: velatura[export])."""
    _plugin("evaluate", context.args)


def _plugin(name: str, arguments: list[str]) -> None:
    """Call a sister package's command, which is found by its entry point: no import leads there."""
    found = list(entry_points(group="velatura.commands", name=name))
    if not found:
        _fail(f"the command {name!r} is not installed: reinstall velatura", 1)
    try:
        command: Callable[[list[str]], None] = found[0].load()
    except ModuleNotFoundError as error:
        _fail(
            f"`velatura {name}` needs {error.name}: pip install 'velatura[{_EXTRAS.get(name, name)}]'",
            7,
        )
    command(arguments)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("velatura"))
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the subcommand."""
    del show


class _reporting:  # noqa: N801 - reads as a verb
    """Errors made on purpose become one line and their exit code; bugs keep their traceback."""

    def __init__(self, debug: bool, as_json: bool) -> None:
        self.debug = debug
        self.as_json = as_json

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            _fail("stopped; nothing was written", 130)
        if not isinstance(error, VelaturaError) or self.debug:
            return
        if self.as_json:
            fields = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
            typer.echo(json.dumps(fields))
        _fail(str(error), error.exit_code)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"velatura: {text}", err=True)
    raise SystemExit(code)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        _usage(f"--size {text!r} is not WIDTHxHEIGHT")
    return int(parts[0]), int(parts[1])


def _height_width(option: str, text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        _usage(f"{option} {text!r} is not HEIGHTxWIDTH")
    return int(parts[0]), int(parts[1])


def _capabilities(text: str) -> tuple[int, ...]:
    parts = [part.strip().removeprefix("sm") for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        _usage(f"--sm {text!r} is no list of compute capabilities such as 86,89")
    return tuple(int(part) for part in parts)


def _flags(value_range: str | None, channels: str | None) -> CardFlags:
    return CardFlags(
        value_range=float(_choice("--range", value_range, ("1", "255"))) if value_range else None,
        colour_order=_choice("--channels", channels, ("rgb", "bgr")) if channels else None,
    )


def _choice(option: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        _usage(f"{option} is {value!r}, not {' or '.join(choices)}")
    return value


def _usage(text: str) -> NoReturn:
    raise typer.BadParameter(text)


def main() -> None:
    """The entry point of the command."""
    # A path that is not UTF-8 must not end a run in an encoding error.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name=Path(sys.argv[0]).name if sys.argv[0].endswith("velatura") else "velatura")


if __name__ == "__main__":
    main()
