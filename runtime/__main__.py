"""The command `velatura`. Subcommands import what they need when they are called."""

import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer

from .command import engines, serve, streams
from .command.options import (
    PRECISIONS,
    Channels,
    Debug,
    Fitting,
    Json,
    Overwrite,
    ValueRange,
    choice,
    fail,
    pair,
    part_of_one,
    reporting,
    usage,
    width_height,
)

app = typer.Typer(
    name="velatura",
    help="Restyle and upscale video with real-time neural networks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(
            help="Video file, frames/%05d.png, - (standard input), pattern:640x360@30, or for a batch "
            "a folder or 'glob'."
        ),
    ],
    sink: Annotated[
        str,
        typer.Argument(help="Video file, frames/%05d.png, - (standard output), null:, or a folder."),
    ],
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
        str,
        typer.Option(help="h264, hevc, av1, vp9, ffv1, prores, gif, or an FFmpeg encoder. [by SINK]"),
    ] = "auto",
    quality: Annotated[
        str, typer.Option(help="draft (fast), good, or archive (large, slow).")
    ] = "good",
    crf: Annotated[
        int | None, typer.Option(help="Constant quality; lower is better. [--quality]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Encoder speed. [--quality]")] = None,
    pix_fmt: Annotated[
        str | None, typer.Option(help="Pixel format of the output, e.g. yuv444p.")
    ] = None,
    enc: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the FFmpeg encoder; repeatable."),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(help="Convert to this frame rate; of an image sequence, its rate [25]."),
    ] = None,
    deinterlace: Annotated[
        str, typer.Option(help="auto, no, force (frames that do not say so), fields (double rate).")
    ] = "auto",
    stabilize: Annotated[
        float | None,
        typer.Option(metavar="STRENGTH", help="Keep results on what they show, 0 (off) to 1. [off]"),
    ] = None,
    bake: Annotated[
        bool, typer.Option("--bake", help="Turn pictures upright and make their pixels square.")
    ] = False,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    audio: Annotated[bool, typer.Option(help="Copy the audio.")] = True,
    overwrite: Overwrite = False,
    tolerate: Annotated[
        bool, typer.Option("--tolerate", help="Exit with 0 though frames of a damaged source are lost.")
    ] = False,
    value_range: ValueRange = None,
    channels: Channels = None,
    fit: Fitting = "tile",
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
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that work on one file side by side.")
    ] = 1,
    to: Annotated[
        str | None,
        typer.Option(metavar="SUFFIX", help="Of a batch: suffix of all outputs. [as the sources]"),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Of a batch: look into the folder's folders, too.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Of a batch: try again what failed in an earlier run.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Of a batch: go on with files that arrive, until Ctrl-C.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Try a short sample: time, size, room, what is kept, and three stills."
        ),
    ] = False,
    comparison: Annotated[
        Path | None,
        typer.Option(
            "--compare", metavar="FILE", help="Then put SOURCE and SINK side by side in FILE."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restyle and upscale SOURCE into SINK.

    A SOURCE that is a folder, or 'clips/*.mkv' in quotes, is a batch: each video into the folder SINK.
    """
    from .command.batch import BatchOptions, run_batch
    from .command.folder import names_videos
    from .command.job import Job
    from .command.run import run_job

    with reporting(debug, as_json and sink != "-"):
        job = Job(
            source=source,
            sink=sink,
            models=tuple(model or ()),
            size=width_height(size),
            backend=backend,
            precision=choice("--precision", precision, PRECISIONS),
            codec=codec,
            quality=choice("--quality", quality, ("draft", "good", "archive")),
            crf=crf,
            preset=preset,
            pix_fmt=pix_fmt,
            enc=tuple(pair("--enc", text) for text in enc or ()),
            fps=fps,
            deinterlace=choice("--deinterlace", deinterlace, ("auto", "no", "force", "fields")),
            stabilize=part_of_one("--stabilize", stabilize) or None,
            bake=bake,
            frames=frames,
            audio=audio,
            overwrite=overwrite,
            tolerate=tolerate,
            value_range=float(choice("--range", value_range, ("1", "255"))) if value_range else None,
            channels=choice("--channels", channels, ("rgb", "bgr")) if channels else None,
            fit=choice("--fit", fit, ("tile", "resize")),
            building=choice("--while-building", building, ("wait", "fallback", "pass")),
            journal=journal,
            restart=restart,
            workers=workers,
        )
        options = BatchOptions(to=to, recursive=recursive, retry=retry, watch=watch)
        if names_videos(source):
            if dry_run or comparison is not None:
                usage("--dry-run and --compare are for one file, not for a batch")
            raise SystemExit(run_batch(job, options, quiet=quiet, as_json=as_json, debug=debug))
        if options != BatchOptions():
            usage("--to, --recursive, --retry and --watch are for a folder, or 'clips/*.mkv'")
        if dry_run:
            from .command.preflight import run_preflight

            raise SystemExit(run_preflight(job, comparison, quiet=quiet, as_json=as_json))
        raise SystemExit(run_job(job, comparison, quiet=quiet, as_json=as_json))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Video file or image sequence.")],
    second: Annotated[str, typer.Argument(help="Another one, of any size and rate.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help=".png, .html (a page with sliders), or a video.")
    ] = Path("compare.html"),
    at: Annotated[list[float] | None, typer.Option(help="Seconds; repeatable for a page.")] = None,
    view: Annotated[str, typer.Option(help="wipe (half of each) or side (both whole).")] = "wipe",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Put two videos side by side: a still, a page with sliders, or a clip."""
    from .command.compare import compare as run_compare

    with reporting(debug, False):
        chosen = choice("--view", view, ("wipe", "side"))
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
    debug: Debug = False,
) -> None:
    """Say what a model eats and gives, or what a video holds."""
    from .command.show import show_info

    with reporting(debug, as_json):
        show_info(what, as_json=as_json)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(help="The video that was the input.")],
    output: Annotated[str, typer.Argument(help="The video that was made of it.")],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame of both.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that OUTPUT shows every frame of SOURCE at its time, beside its sound."""
    from .command.verify import verify as run_verify

    with reporting(debug, as_json):
        raise SystemExit(run_verify(source, output, deep=deep, as_json=as_json))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run: CPU, GPUs, backends, versions, and a two-second self-test."""
    from .command.doctor import examine

    raise SystemExit(examine(as_json=as_json))


@app.command("include-dir")
def include_dir() -> None:
    """Print the folder of velatura.h and velatura.hpp, for the compiler's -I."""
    typer.echo(Path(__file__).parent / "game" / "include")


for command in (
    engines.build, engines.cache, engines.bench, streams.live, streams.devices, serve.serve
):  # fmt: skip
    app.command()(command)


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
        fail(f"the command {name!r} is not installed: reinstall velatura", 1)
    try:
        command: Callable[[list[str]], None] = found[0].load()
    except ModuleNotFoundError as error:
        fail(
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


def main() -> None:
    """The entry point of the command."""
    # A path that is not UTF-8 must not end a run in an encoding error.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name=Path(sys.argv[0]).name if sys.argv[0].endswith("velatura") else "velatura")


if __name__ == "__main__":
    main()
