"""The command `velatura`. Subcommands import what they need when they are called."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .cli import commands
from .cli.parsing import (
    CarefulCommand,
    Commands,
    in_terminal,
    offer_models,
    refuse_live,
    wants_json,
)
from .jobs.job import Job, takes_job
from .jobs.options import (
    Debug,
    Json,
    Overwrite,
    Quiet,
    check_moments,
    complete_model,
    fail,
    moment,
    reporting,
    sister,
    usage,
)
from .sinks import RUN_SINKS
from .sources import RUN_SOURCES

app = typer.Typer(
    name="velatura",
    cls=Commands,
    help="Restyle and upscale video with real-time neural networks.\n\n"
    "`velatura in.mp4 out.mp4 -m wave` is `velatura run` of the same.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(cls=CarefulCommand)
@takes_job
def run(
    source: Annotated[
        str,
        typer.Argument(help=f"{RUN_SOURCES}, or for a batch a folder or 'glob'."),
    ],
    sink: Annotated[
        str,
        typer.Argument(help=f"{RUN_SINKS}, or a folder."),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="SUFFIX", help="Suffix of all outputs. [as the sources]", rich_help_panel="Batch"
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", help="Look into the folder's folders, too.", rich_help_panel="Batch"
        ),
    ] = False,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", help="Try again what failed in an earlier run.", rich_help_panel="Batch"
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on with files that arrive, until Ctrl-C.", rich_help_panel="Batch"
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Try a short sample: time, size, room, what is kept, and three stills.",
            rich_help_panel="Output",
        ),
    ] = False,
    comparison: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="FILE",
            help="Then put SOURCE and SINK side by side in FILE.",
            rich_help_panel="Output",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Restyle and upscale SOURCE into SINK.

    A SOURCE that is a folder, or 'clips/*.mkv' in quotes, is a batch: each video into the folder SINK.
    """
    from .jobs.batch import BatchOptions, names_videos, run_batch
    from .jobs.run import run_job

    with reporting(debug, as_json and sink != "-"):
        job = Job.of_command(source, sink, given)
        refuse_live(source, sink, job.models)
        unasked = job.settings() == Job(source=source, sink=sink).settings()
        # Without a person to read it, a run without a model converts.
        if unasked and not (quiet or as_json) and in_terminal():
            offer_models(source, sink)
            raise SystemExit(2)
        options = BatchOptions(to=to, recursive=recursive, retry=retry, watch=watch)
        if names_videos(source):
            if dry_run or comparison is not None:
                usage("--dry-run and --compare are for one file, not for a batch")
            raise SystemExit(run_batch(job, options, quiet=quiet, as_json=as_json, debug=debug))
        if options != BatchOptions():
            usage("--to, --recursive, --retry and --watch are for a folder, or 'clips/*.mkv'")
        if dry_run:
            from .jobs.dry_run import run_preflight

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
    view: Annotated[
        Literal["wipe", "side"], typer.Option(help="wipe (half of each) or side (both whole).")
    ] = "wipe",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Put two videos side by side: a still, a page with sliders, or a clip."""
    from .jobs.compare import compare as run_compare

    with reporting(debug, False):
        run_compare(first, second, out, at=at or (), view=view, overwrite=overwrite)


@app.command()
def models(
    action: Annotated[
        Literal["list", "remove"], typer.Argument(help="list, or remove with names of your own.")
    ] = "list",
    names: Annotated[
        list[str] | None, typer.Argument(help="For remove: what `velatura import` has added.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure the speed of each on this machine, where unknown."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the shipped models and your own, or remove some of yours."""
    from .jobs.models import list_models, remove_models

    with reporting(debug, as_json):
        if action == "remove":
            if measure:
                usage("--measure is for the list")
            remove_models(names or usage("remove needs a name"), as_json=as_json)
        elif names:
            usage("list takes no names")
        else:
            list_models(as_json=as_json, measure=measure)


@app.command()
def info(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|VIDEO",
            help="A model's name, .onnx file or video.",
            autocompletion=complete_model,
        ),
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a model eats and gives, or what a video holds."""
    from .jobs.models import show_info

    with reporting(debug, as_json):
        show_info(what, as_json=as_json)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(help="The video that was the input.")],
    output: Annotated[str, typer.Argument(help="The video that was made of it.")],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame of both.")] = False,
    video_stream: Annotated[
        int | None, typer.Option(min=0, help="Which of several videos of SOURCE, as the run was told.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where the run was told to begin.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where the run was told to end.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that OUTPUT shows every frame of SOURCE at its time, beside its sound."""
    from .jobs.verify import verify as run_verify

    with reporting(debug, as_json):
        given = {"--start": start, "--end": end}
        begin, until = (moment(name, text) if text else None for name, text in given.items())
        check_moments(begin, until)
        raise SystemExit(
            run_verify(
                source,
                output,
                deep=deep,
                as_json=as_json,
                video_stream=video_stream,
                start=begin,
                end=until,
            )
        )


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can run: CPU, GPUs, backends, versions, and a two-second self-test."""
    from .jobs.doctor import examine

    raise SystemExit(examine(as_json=as_json))


@app.command("include-dir")
def include_dir() -> None:
    """Print the folder of velatura.h and velatura.hpp, for the compiler's -I."""
    typer.echo(Path(__file__).parent / "game" / "include")


for command in (
    commands.build, commands.cache, commands.bench, commands.live, commands.devices, commands.serve,
    commands.studio,
):  # fmt: skip
    app.command(cls=CarefulCommand)(command)


UsageError: Any = typer.BadParameter.__base__
"""What is wrong with a line of words: Typer gives its class no public name."""

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


@app.command("import", context_settings=_PASS_ON)
def import_model(context: typer.Context) -> None:
    """Make a model of your own of .pth, .safetensors or .onnx (extra: velatura[import])."""
    _plugin("import", context.args)


@app.command(context_settings=_PASS_ON)
def evaluate(context: typer.Context) -> None:
    """Measure what a model is worth (extra: velatura[export])."""
    _plugin("evaluate", context.args)


def _plugin(name: str, arguments: list[str]) -> None:
    """Call a sister package's command."""
    try:
        command = sister("commands", name)
    except ModuleNotFoundError as error:
        fail(
            f"`velatura {name}` needs {error.name}: pip install 'velatura[{_EXTRAS.get(name, name)}]'",
            7,
        )
    if command is None:
        fail(f"the command {name!r} is not installed: reinstall velatura", 1)
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
    name = Path(sys.argv[0]).name if sys.argv[0].endswith("velatura") else "velatura"
    words = sys.argv[1:]
    try:
        code: object = app(prog_name=name, standalone_mode=False)
    except UsageError as error:
        error.show()
        if wants_json(words):
            told: dict[str, Any] = {"error": error.format_message(), "kind": "UsageError", "notes": []}
            typer.echo(json.dumps({**told, "exit_code": error.exit_code}))
        raise SystemExit(error.exit_code) from None
    except typer.Abort:
        fail("stopped", 1)
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
