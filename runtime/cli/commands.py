"""The commands beside `run`: about engines, frames that do not wait, and other processes' frames.

They import what they need when they are called.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..backends.nvidia.library import Hardware, Name
from ..errors import EngineError, SinkError
from ..jobs.options import (
    MASK,
    STRENGTH,
    Channels,
    Debug,
    Deviation,
    Fitting,
    InPrecision,
    Json,
    KeepColours,
    MaskFile,
    Mean,
    Models,
    OnBackend,
    Overwrite,
    Part,
    Quiet,
    ValueRange,
    capabilities,
    flags_of,
    height_width,
    pair,
    part_of_one,
    rate_of,
    reporting,
    sister,
    usage,
    width_height,
)
from ..media.options import Quality
from ..sinks import LIVE_SINKS
from ..sources import LIVE_SOURCES

PageHost = Annotated[str, typer.Option(help="Address of the page.")]
PagePort = Annotated[int, typer.Option(help="Its port; 0 takes a free one.")]
PageToken = Annotated[
    str | None,
    typer.Option(
        envvar="VELATURA_TOKEN",
        help="In the page's address; must be given beyond this machine. [a random one]",
    ),
]


def build(
    model: Annotated[str, typer.Argument(help="Zoo name or .onnx file.")],
    target: Annotated[
        Name, typer.Option(help="rtx (needs no GPU) or tensorrt (needs its GPU).")
    ] = "rtx",
    sm: Annotated[
        str, typer.Option(help="For rtx: compute capabilities, one engine each.")
    ] = "75,86,89,120",
    least: Annotated[str, typer.Option("--min", help="Smallest frame, HEIGHTxWIDTH.")] = "64x64",
    best: Annotated[str, typer.Option("--opt", help="Frame to be fastest at.")] = "720x1280",
    most: Annotated[str, typer.Option("--max", help="Largest frame.")] = "2160x3840",
    bits: Annotated[int, typer.Option(min=8, max=16, help="Of the frames' samples.")] = 8,
    precision: Annotated[Literal["fp16", "fp32"], typer.Option(help="fp16 or fp32.")] = "fp16",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the engines.")] = Path(),
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Builder optimisation level. [the library's own]")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For tensorrt: later versions load it, too.")
    ] = False,
    hardware: Annotated[
        Hardware | None, typer.Option(help="For tensorrt: ampere (and newer) or same (capability).")
    ] = None,
    value_range: ValueRange = None,
    mean: Mean = None,
    deviation: Deviation = None,
    channels: Channels = None,
    force: Annotated[bool, typer.Option("--force", help="Build it though FP16 fails parity.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build TensorRT-RTX engines for GPUs that need not be here, or a TensorRT engine for this one."""
    from ..backends.nvidia.builder import Profile
    from ..jobs.engines import BuildJob, run_build

    with reporting(debug, as_json):
        job = BuildJob(
            model=model,
            target=target,
            capabilities=capabilities(sm),
            profile=Profile(
                height_width("--min", least),
                height_width("--opt", best),
                height_width("--max", most),
            ),
            bits=bits,
            precision=precision,
            out=out,
            level=level,
            version_compatible=version_compatible,
            hardware=hardware,
            force=force,
            flags=flags_of(value_range, channels, mean, deviation),
        )
        run_build(job, as_json=as_json)


def cache(
    action: Annotated[
        Literal["list", "clear", "prebuild"],
        typer.Argument(help="list, clear, or prebuild with models."),
    ] = "list",
    models: Annotated[
        list[str] | None, typer.Argument(help="For prebuild: zoo names or files.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(help="For prebuild: frame size HEIGHTxWIDTH; repeatable.")
    ] = None,
    backend: OnBackend = "auto",
    precision: InPrecision = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List, clear or fill the cache of built engines and measured precisions."""
    from ..jobs.engines import clear, list_entries, prebuild

    with reporting(debug, as_json):
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
            prebuild(models, sizes, backend=backend, precision=precision, as_json=as_json)


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
        Literal["inline", "pipelined"] | None,
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
    mean: Mean = None,
    deviation: Deviation = None,
    channels: Channels = None,
    fit: Fitting = "tile",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on every backend and precision, or with --game what it does to a game."""
    with reporting(debug, as_json):
        given: dict[str, Any] = {"backend": backend, "seconds": seconds, "out": out}
        given["size"] = height_width("--size", size) if size else None
        if game:
            if value_range or mean or deviation or channels or fit != "tile":
                usage("--range, --mean, --deviation, --channels and --fit are not for --game")
            bench_game = sister("bench", "game")
            if bench_game is None:
                raise EngineError("the game of --game is not installed: reinstall velatura")
            given |= {"models": tuple(models or ()), "mode": mode, "rate": rate}
            given |= {"budget_ms": budget_ms, "plot": plot}
            if backend == "all":
                del given["backend"]
            bench_game({name: value for name, value in given.items() if value}, as_json=as_json)
            return
        if not models or len(models) > 1:
            usage("name one model; several, in a chain, are for --game")
        if mode or rate or budget_ms or plot:
            usage("--mode, --rate, --budget-ms and --plot are for --game")
        from ..jobs.bench import BenchJob, run_bench

        given |= {"flags": flags_of(value_range, channels, mean, deviation), "fit": fit}
        job = BenchJob(model=models[0], **{name: value for name, value in given.items() if value})
        run_bench(job, as_json=as_json)


def live(
    source: Annotated[
        str,
        typer.Argument(help=f"{LIVE_SOURCES}."),
    ],
    sinks: Annotated[
        list[str] | None,
        typer.Argument(help=f"{LIVE_SINKS}."),
    ] = None,
    model: Models = None,
    backend: OnBackend = "auto",
    precision: InPrecision = "auto",
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT to ask a camera or screen for.")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Rate to ask a camera or screen for.")] = None,
    drop: Annotated[
        Literal["oldest", "newest", "never"],
        typer.Option(help="Which frame goes when late: oldest, newest, or never (a queue)."),
    ] = "oldest",
    deadline: Annotated[
        float | None, typer.Option(help="Milliseconds from capture to output. [a frame's time]")
    ] = None,
    governor: Annotated[
        bool, typer.Option(help="Do less to a frame while the deadline cannot be held.")
    ] = True,
    rung: Annotated[str | None, typer.Option(help="Stay at this rung of the ladder.")] = None,
    stabilize: Annotated[
        float | None,
        typer.Option(metavar="STRENGTH", help=STRENGTH),
    ] = None,
    strength: Part = None,
    keep_colours: KeepColours = None,
    mask: MaskFile = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    retries: Annotated[
        int | None, typer.Option(help="Attempts to reconnect in a row. [no end]")
    ] = None,
    audio: Annotated[bool, typer.Option(help="Carry the sound on.")] = True,
    codec: Annotated[str, typer.Option(help="As for `velatura run`.")] = "auto",
    quality: Annotated[Quality, typer.Option(help="draft, good, or archive.")] = "draft",
    crf: Annotated[int | None, typer.Option(help="Constant quality; lower is better.")] = None,
    preset: Annotated[str | None, typer.Option(help="Encoder speed.")] = None,
    enc: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the FFmpeg encoder; repeatable."),
    ] = None,
    record_to: Annotated[
        Path | None, typer.Option(help="Folder for recordings begun by key or page.")
    ] = None,
    stats: Annotated[
        Literal["text", "json", "prometheus"],
        typer.Option(help="text, json (a line a second), or prometheus (HTTP)."),
    ] = "text",
    metrics_port: Annotated[int, typer.Option(help="Where Prometheus asks.")] = 9464,
    view: Annotated[
        bool, typer.Option("--view", help="Serve a page with picture and switches.")
    ] = False,
    view_host: PageHost = "127.0.0.1",
    view_port: PagePort = 0,
    view_token: PageToken = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restyle SOURCE as it comes, held to a deadline, into SINKS. Keys of a window: space (on, off),
    n (next model), b (before/after), i (figures), r (record), q (quit)."""
    if "window:" in (sinks or ()):
        # PyAV and OpenCV each bring X11's libraries; the first that is loaded serves both, and OpenCV's
        # windows never open with PyAV's.
        import cv2

        cv2.setUseOptimized(True)
    from ..jobs.live import Session, run_live
    from ..sinks import Encoding

    with reporting(debug, False):
        session = Session(
            source=source,
            sinks=tuple(sinks or ()),
            models=tuple(model or ()),
            backend=backend,
            precision=precision,
            size=width_height("--size", size) if size is not None else None,
            rate=rate_of(fps),
            drop=drop,
            deadline=deadline / 1e3 if deadline is not None else None,
            governed=governor,
            rung=rung,
            stabilize=part_of_one("--stabilize", stabilize),
            strength=strength,
            keep_colours=keep_colours,
            mask=mask,
            seconds=seconds,
            audio=audio,
            retries=retries,
            encoding=Encoding(
                codec=codec,
                quality=quality,
                crf=crf,
                preset=preset,
                options=tuple(pair("--enc", text) for text in enc or ()),
            ),
            overwrite=overwrite,
            record_to=record_to,
            statistics=stats,
            metrics=("127.0.0.1", metrics_port),
            view=view,
            view_at=(view_host, view_port),
            token=view_token,
        )
        raise SystemExit(run_live(session, quiet=quiet))


def devices(as_json: Json = False) -> None:
    """List the cameras, screens and windows that can be captured."""
    from ..jobs.devices import show_devices

    show_devices(as_json=as_json)


def serve(
    shm: Annotated[str, typer.Option("--shm", metavar="NAME", help="The name that clients ask for.")],
    model: Models = None,
    max_size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the largest frames.")] = "1920x1080",
    clients: Annotated[int, typer.Option(min=1, max=256, help="Clients at once.")] = 8,
    budget_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds of a frame, held by doing less. [by the client's deadline]"),
    ] = None,
    stabilize: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much history steadies frames with motion.")
    ] = 0.9,
    strength: Part = None,
    keep_colours: KeepColours = None,
    mask: Annotated[
        str | None,
        typer.Option(metavar="FILE.png", help=f"{MASK} alpha: each frame's own, 0 as black."),
    ] = None,
    backend: OnBackend = "auto",
    precision: InPrecision = "auto",
    stats: Annotated[
        Literal["text", "json"], typer.Option(help="text, or json (a line a second).")
    ] = "text",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve models to games in other processes, through shared memory, until Ctrl-C.

    Games send frames with `velatura.h` (C, C++: `velatura include-dir`) or with
    `velatura.runtime.game.Client`. Frames pass unchanged without -m.
    """
    from ..jobs.serve import IDENTITY, Work, run_serve

    with reporting(debug, stats == "json"):
        size = width_height("--max-size", max_size)
        if budget_ms is not None and not 0 < budget_ms < 1e4:
            usage(f"--budget-ms {budget_ms} is not within 0..10000")
        work = Work(
            models=tuple(model or (IDENTITY,)),
            budget_ms=budget_ms,
            stability=stabilize,
            strength=strength,
            keep_colours=keep_colours,
            mask=mask,
            backend=backend,
            precision=precision,
        )
        raise SystemExit(run_serve(shm, work, size, clients, as_json=stats == "json", quiet=quiet))


def studio(
    folder: Annotated[
        Path | None,
        typer.Option(help="A folder of videos that the page may look into. [uploads only]"),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Where uploads, queue and results are kept. [the user's data folder]"),
    ] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, help="Gigabytes of an upload at most.")] = 20,
    host: PageHost = "127.0.0.1",
    port: PagePort = 0,
    token: PageToken = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve a page to choose videos and models and to render a queue of them, until Ctrl-C."""
    with reporting(debug, False):
        try:
            from ..studio.server import run_studio
        except ImportError as error:
            raise SinkError(f"the studio needs {error.name}: pip install 'velatura[live]'") from error
        raise SystemExit(
            run_studio(
                workspace, host=host, port=port, token=token, folder=folder,
                limit=round(max_upload * 1e9), quiet=quiet,
            )
        )  # fmt: skip
