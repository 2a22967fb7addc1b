"""`velatura live`: a live source through models into sinks, held to a deadline."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import typer

from ..adaptive.ladder_processor import LadderProcessor, open_processor
from ..adaptive.processor import StagesProcessor
from ..backends import Precision
from ..errors import SinkError, VelaturaError
from ..live.controls import Controls, Recorder
from ..live.open_outputs import Place, Sounds, close_all, open_output, record, undisturbed
from ..live.output import Drop, Output
from ..live.pump import LivePump
from ..live.stats import LiveStats
from ..sinks import Encoding, Sink
from ..sinks.window import WindowSink
from ..sources import open_live_source
from ..sources.live import LiveSource
from ..stages import Conform, Stabilize
from ..worker import DaemonThread
from .job import blending_of
from .progress import Reporter
from .run import terminable

EVERY = 1.0
"""Seconds between two reports."""

Statistics = Literal["text", "json", "prometheus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The options of one live run."""

    source: str
    sinks: tuple[str, ...]
    models: tuple[str, ...] = ()
    backend: str = "auto"
    precision: Precision = "auto"
    size: tuple[int, int] | None = None
    """The size to request from cameras and screens."""
    rate: Fraction | None = None
    """The rate to request from cameras and screens."""
    drop: Drop = "oldest"
    deadline: float | None = None
    """Seconds from capture to output; None is the time between two frames."""
    governed: bool = True
    rung: str | None = None
    stabilize: float | None = None
    """The weight of earlier results, 0..1; None is none."""
    strength: float | None = None
    """The part of results in the picture, 0..1; None is by the models' cards."""
    keep_colours: bool | None = None
    mask: str | None = None
    seconds: float | None = None
    audio: bool = True
    retries: int | None = None
    encoding: Encoding
    overwrite: bool = False
    record_to: Path | None = None
    statistics: Statistics = "text"
    metrics: tuple[str, int] = ("127.0.0.1", 9464)
    view: bool = False
    view_at: tuple[str, int] = ("127.0.0.1", 0)
    token: str | None = None


def run_live(session: Session, *, quiet: bool = False) -> int:
    """Runs the session and returns the exit code. Raises VelaturaError for whatever stops it."""
    say = Reporter(silent=quiet, aside="-" in session.sinks)
    if not session.sinks and not session.view:
        raise SinkError("name a sink: window:, a file, rtmp://..., null:, or give --view")
    failures: list[VelaturaError] = []
    with terminable(), ExitStack() as stack:
        source = stack.enter_context(
            open_live_source(
                session.source,
                size=session.size,
                rate=session.rate,
                retries=session.retries,
                keep=session.drop == "never",
            )
        )
        source.tell = say.note
        for line in source.info.notes:
            say.note(line)
        sounds = Sounds(source.audio) if session.audio and source.audio is not None else None
        if sounds is not None:
            stack.callback(sounds.close)
        place = Place(
            source=source,
            encoding=session.encoding,
            overwrite=session.overwrite,
            sounds=sounds,
            drop=session.drop,
            tell=say.note,
        )
        outputs: list[Output] = []
        # Whatever ends the run, recordings are finished.
        stack.callback(lambda: close_all(outputs, _heard(failures, say), tell=say.note))
        for uri in session.sinks:
            # One by one, so that outputs before one that cannot be opened are aborted, too.
            outputs.append(open_output(uri, place))
        processor = _processor(session, source)
        for line in processor.blending.notes if processor is not None else ():
            say.note(line)
        if processor is not None:
            stack.callback(processor.close)
        view = _view(session, processor, source) if session.view else None
        if view is not None:
            outputs.append(Output(view))
        for output in outputs:
            for line in output.sink.notes:
                say.note(line)
        pump = LivePump(source, processor or _without(session), outputs, drop=session.drop)
        pump.on_event(lambda event: say.note(f"{event.at:.1f} s: {event.text}"))
        source.tell = pump.tell
        current: list[Output] = []
        controls = _controls(session, pump, processor, place, current)
        pump.on_frame(controls.show)
        if view is not None:
            view.controls = controls
            _shown(view.url, say, needed=session.token is None)
        if session.statistics == "prometheus":
            from ..live.stats import Metrics

            host, port = session.metrics
            metrics = Metrics(pump.stats, host=host, port=port)
            stack.callback(metrics.close)
            say.note(f"figures for Prometheus: {metrics.url}")
        try:
            stats = _run(session, pump, outputs, controls, say)
        finally:
            # The recording in progress is finished with all else, and no other is begun any more.
            with undisturbed():
                controls.close()
                outputs += [o for o in (*pump.outputs, *current) if o not in outputs]
    failures += [output.failure for output in outputs if output.failure is not None]
    if session.statistics == "json":
        typer.echo(json.dumps({"summary": stats.to_json()}), err=say.aside)
    else:
        say.tell("\n".join(summary(stats)))
    if failures:
        raise failures[0]
    return 0


def _run(
    session: Session, pump: LivePump, outputs: list[Output], controls: Controls, say: Reporter
) -> LiveStats:
    """Run until the end; a window gets the first thread to itself, as desktops require."""
    last = time.monotonic()

    def progress(stats: LiveStats) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            if session.statistics == "json":
                typer.echo(json.dumps({"stats": stats.to_json()}), err=say.aside)
            else:
                say.status(line_of(stats))

    window = next((o.sink for o in outputs if isinstance(o.sink, WindowSink)), None)
    if window is None:
        return pump.run(seconds=session.seconds, progress=progress)
    ended: list[LiveStats | BaseException] = []

    def run() -> None:
        try:
            ended.append(pump.run(seconds=session.seconds, progress=progress))
        except BaseException as error:
            ended.append(error)

    thread = DaemonThread(run, "velatura-live")
    window.bind(_keys(controls, say), lambda: overlay(controls))
    try:
        thread.start()
        window.serve(lambda: thread.at_work)
        if window.failed and any(o.alive for o in outputs if o.sink is not window):
            # The user has not closed it: the others go on.
            while thread.at_work:
                thread.wait(EVERY)
    except KeyboardInterrupt:
        pump.tell("stopped")
    hurried = False
    while True:
        try:
            pump.stop(drop=hurried)
            while thread.at_work:
                thread.wait(EVERY)
            break
        except KeyboardInterrupt:
            # For example where there is no window: waiting frames are dropped, and no thread is left at
            # work.
            hurried = True
    if hurried or not ended:
        raise KeyboardInterrupt
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


def _processor(session: Session, source: LiveSource) -> LadderProcessor | None:
    if not session.models:
        return None
    blending = blending_of(session, source.info)
    processor = open_processor(
        session.models,
        info=source.info,
        backend=session.backend,
        precision=session.precision,
        deadline=session.deadline,
        governed=session.governed,
        rung=session.rung,
    )
    processor.steady.strength = session.stabilize or 0.0
    processor.blending = blending
    return processor


def _without(session: Session) -> StagesProcessor:
    """Returns the processor of a run without models."""
    steady = [Stabilize([], session.stabilize)] if session.stabilize else []
    return StagesProcessor([*steady, Conform()])


def _view(session: Session, processor: LadderProcessor | None, source: LiveSource) -> Any:
    from ..web import ViewSink

    period = float(1 / source.info.rate)
    host, port = session.view_at
    return ViewSink(
        host=host,
        port=port,
        token=session.token,
        deadline=session.deadline or period,
        ladder=lambda: tuple((r.name, r.cost) for r in processor.rungs) if processor else (),
    )


def _controls(
    session: Session,
    pump: LivePump,
    processor: LadderProcessor | None,
    place: Place,
    current: list[Output],
) -> Controls:
    """Returns the controls; `current` holds the recording in progress."""
    from ..zoo import named_models

    def begin(path: Path) -> None:
        output = record(path, pump.source.info, place)
        try:
            current.append(pump.add(output))
        except SinkError:
            output.sink.abort()
            raise

    def end() -> None:
        output = current[-1]
        if not pump.remove(output):
            raise SinkError(f"{output.sink.uri} is stuck: it is ended with the run, if it can be")
        current.pop()
        output.sink.close()
        if output.failure is not None:
            raise output.failure

    folder = session.record_to
    if folder is not None and not folder.is_dir():
        raise SinkError(f"no folder {folder} for recordings: create it first")
    available = tuple(dict.fromkeys((*session.models, *named_models())))
    return Controls(
        adjustable=processor,
        available=available,
        stats=pump.stats,
        stop=pump.stop,
        recorder=Recorder(begin=begin, end=end) if folder is not None else None,
        folder=folder,
        tell=pump.tell,
    )


def _keys(controls: Controls, say: Reporter) -> dict[str, Callable[[], object]]:
    """Returns the functions of a window's keys."""

    def safely(action: Callable[[], object]) -> Callable[[], object]:
        def act() -> None:
            try:
                action()
            except VelaturaError as error:
                say.note(str(error))

        return act

    def toggle() -> None:
        controls.off = not controls.off

    def part() -> None:
        controls.split = 0.5 if controls.split is None else None

    def figures() -> None:
        controls.statistics = not controls.statistics

    actions: dict[str, Callable[[], object]] = {
        " ": toggle,
        "n": controls.next_model,
        "b": part,
        "i": figures,
        "r": lambda: _beside(safely(lambda: controls.record(controls.recording is None))),
        "q": controls.stop,
        "esc": controls.stop,
    }
    return {key: safely(action) for key, action in actions.items()}


def _beside(action: Callable[[], object]) -> None:
    """Run in a thread of its own: a recording is verified at its end, and no window should wait."""
    threading.Thread(target=action, name="velatura-record").start()


def overlay(controls: Controls) -> list[str]:
    """Returns the lines that are drawn over a window's picture."""
    if not controls.statistics:
        return []
    stats = controls.stats()
    latency = stats.latency
    output = stats.leading
    return [
        f"{output.rate:.1f} fps  1% low {output.low1:.1f}",
        f"latency p50 {latency.p50 * 1e3:.1f}  p99 {latency.p99 * 1e3:.1f} ms",
        f"dropped {stats.dropped}  late {stats.late}  passed {stats.passed}",
        f"{' + '.join(controls.models) or 'no model'}: {stats.rung or 'off'}",
    ]


def line_of(stats: LiveStats) -> str:
    """Returns a line such as `30.0 fps, latency p50 12.1 p99 18.3 ms, dropped 0, full`."""
    output, latency = stats.leading, stats.latency
    text = f"{output.rate:.1f} fps, latency p50 {latency.p50 * 1e3:.1f} p99 {latency.p99 * 1e3:.1f} ms"
    text += f", dropped {stats.dropped}, late {stats.late}"
    return f"{text}, {stats.rung}" if stats.rung else text


def summary(stats: LiveStats) -> list[str]:
    """Returns the closing lines."""
    lines = [
        f"{stats.captured} frames in {stats.elapsed:.1f} s: {stats.processed} processed, "
        f"{stats.passed} passed, {stats.repeated} repeated, {stats.dropped} dropped, {stats.late} late"
    ]
    for output in stats.outputs:
        latency = output.latency
        lines.append(
            f"  {output.name:<24} {output.shown} frames, {output.rate:.1f} fps, 1% low "
            f"{output.low1:.1f}, 0.1% low {output.low01:.1f}; latency p50 {latency.p50 * 1e3:.1f} "
            f"p95 {latency.p95 * 1e3:.1f} p99 {latency.p99 * 1e3:.1f} p99.9 {latency.p999 * 1e3:.1f} ms"
        )
        if output.failure:
            lines.append(f"    given up: {output.failure}")
    for name, times in stats.stages.items():
        lines.append(f"  {name:<24} p50 {times.p50 * 1e3:8.2f} ms   p99 {times.p99 * 1e3:8.2f} ms")
    return lines


def _shown(url: str, say: Reporter, *, needed: bool) -> None:
    """Print the page's address; where it is `needed` to open the page, even when quiet."""
    text = f"the picture and its switches: {url}"
    if needed and say.silent:
        typer.echo(text, err=True)
    say.note(text)


def _heard(failures: list[VelaturaError], say: Reporter) -> Callable[[Sink, Exception], None]:
    """Returns the handler for a sink that cannot be finished: it reports the error and keeps it for the
    exit code."""

    def heard(sink: Sink, error: Exception) -> None:
        if not isinstance(error, VelaturaError):
            error = SinkError(f"{sink.uri} was not finished: {type(error).__name__}: {error}")
        say.note(str(error))
        failures.append(error)

    return heard
