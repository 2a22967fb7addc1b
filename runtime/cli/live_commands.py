"""The commands for what does not wait: `live` and `devices`."""

from pathlib import Path
from typing import Annotated

import typer

from ..jobs.options import (
    PRECISIONS,
    Debug,
    Json,
    Overwrite,
    choice,
    pair,
    part_of_one,
    rate_of,
    reporting,
    width_height,
)
from ..sinks import LIVE_SINKS, Encoding
from ..sources import LIVE_SOURCES


def live(
    source: Annotated[
        str,
        typer.Argument(help=f"{LIVE_SOURCES}."),
    ],
    sinks: Annotated[
        list[str] | None,
        typer.Argument(help=f"{LIVE_SINKS}."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Zoo name or .onnx file; repeat to chain several."),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, or one of `velatura doctor`'s.")] = "auto",
    precision: Annotated[str, typer.Option(help="As for `velatura run`.")] = "auto",
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT to ask a camera or screen for.")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Rate to ask a camera or screen for.")] = None,
    drop: Annotated[
        str, typer.Option(help="Which frame goes when late: oldest, newest, or never (a queue).")
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
        typer.Option(metavar="STRENGTH", help="Keep results on what they show, 0 (off) to 1. [off]"),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    retries: Annotated[
        int | None, typer.Option(help="Attempts to reconnect in a row. [no end]")
    ] = None,
    audio: Annotated[bool, typer.Option(help="Carry the sound on.")] = True,
    codec: Annotated[str, typer.Option(help="As for `velatura run`.")] = "auto",
    quality: Annotated[str, typer.Option(help="draft, good, or archive.")] = "draft",
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
        str, typer.Option(help="text, json (a line a second), or prometheus (HTTP).")
    ] = "text",
    metrics_port: Annotated[int, typer.Option(help="Where Prometheus asks.")] = 9464,
    view: Annotated[
        bool, typer.Option("--view", help="Serve a page with picture and switches.")
    ] = False,
    view_host: Annotated[str, typer.Option(help="Address of the page.")] = "127.0.0.1",
    view_port: Annotated[int, typer.Option(help="Its port; 0 takes a free one.")] = 0,
    view_token: Annotated[
        str | None,
        typer.Option(
            envvar="VELATURA_TOKEN",
            help="In the page's address; must be given beyond this machine. [a random one]",
        ),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
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

    with reporting(debug, False):
        session = Session(
            source=source,
            sinks=tuple(sinks or ()),
            models=tuple(model or ()),
            backend=backend,
            precision=choice("--precision", precision, PRECISIONS),
            size=width_height(size),
            rate=rate_of(fps),
            drop=choice("--drop", drop, ("oldest", "newest", "never")),
            deadline=deadline / 1e3 if deadline is not None else None,
            governed=governor,
            rung=rung,
            stabilize=part_of_one("--stabilize", stabilize),
            seconds=seconds,
            audio=audio,
            retries=retries,
            encoding=Encoding(
                codec=codec,
                quality=choice("--quality", quality, ("draft", "good", "archive")),
                crf=crf,
                preset=preset,
                options=tuple(pair("--enc", text) for text in enc or ()),
            ),
            overwrite=overwrite,
            record_to=record_to,
            statistics=choice("--stats", stats, ("text", "json", "prometheus")),
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
