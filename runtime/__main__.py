"""The command `velatura`. Subcommands import what they need when they are called."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

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
    backend: Annotated[str, typer.Option(help="auto, openvino, ort or identity.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or int8.")] = "auto",
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
            precision=_choice("--precision", precision, ("auto", "fp32", "bf16", "int8")),
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
        )
        raise SystemExit(run_job(job, quiet=quiet, as_json=as_json))


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
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run: CPU, GPUs, backends, versions, and a two-second self-test."""
    from .command.doctor import examine

    raise SystemExit(examine(as_json=as_json))


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
