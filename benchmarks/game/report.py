"""`velatura bench --game`: the pacing of a game's frames with the stage, with it off, and without it.

The report's keys, durations in milliseconds:
`machine`: what it was measured on;
`models`, `size` (height, width), `mode`, `rate`, `budget_ms`, `seconds` (of each loop), `rounds`;
`without`, `off`, `on`: the three loops, each with the figures that `definitions` defines;
`cost_ms`: what the stage, `off` and `on`, adds to the time that the game is busy with a frame;
`added_latency`: what it adds to `latency_ms` on average, in `frames` of the rate and in `ms`;
`pictures`: how many of its pictures were `fresh`, `carried`, `repeated`, `passed`, as in `PostStats`;
`rungs`: how many were made on each rung;
`seen_by_mark`: the part of them whose frame was read from the picture, not taken from the stage's word;
`notes`: what the stage told.

The chart shows the three loops in one picture. Matplotlib (extra `game`) is imported to draw one.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import typer
from rich.console import Console
from rich.table import Column, Table

from ...runtime.backends.open import distributions
from ...runtime.errors import SinkError
from ...runtime.game.post import PostProcess
from ...runtime.jobs.bench import make_room, write_report
from ...runtime.jobs.options import usage
from ...runtime.jobs.progress import Reporter
from ...runtime.machine import facts
from .pacing import DEFINITIONS, Account, Bare, Clock, Pacing, Pass, Times, WallClock, cost, play
from .scene import SMALLEST, Picture, Pixels, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Loop = Literal["without", "off", "on"]

LOOPS: tuple[Loop, ...] = ("without", "off", "on")
KINDS = ("fresh", "carried", "repeated", "passed")
BLOCK = 2.0
"""Approximate seconds of one loop before the next one's turn."""
LEAST = 2
"""Rounds at least, however short they are: other load on the machine must affect all loops alike."""
SETTLE = 0.25
"""Seconds at the beginning of each block that are not counted."""
BEFORE = 1.0
"""Seconds for which the stage runs before anything is counted."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameJob:
    """The options of one report."""

    models: tuple[str, ...] = ("starry-night",)
    size: tuple[int, int] = (360, 640)
    """Height and width of the frames."""
    mode: Literal["inline", "pipelined"] = "inline"
    rate: float = 60.0
    """Refreshes of the display per second."""
    seconds: float = 10.0
    """Seconds of each loop."""
    budget_ms: float | None = None
    backend: str = "auto"
    out: Path | None = None
    plot: Path | None = None

    @property
    def rounds(self) -> int:
        """The number of turns of each loop."""
        return max(LEAST, round(self.seconds / BLOCK))


class Stage(Pass):
    """The stage in a game's loop."""

    def __init__(self, post: PostProcess) -> None:
        self.post = post

    def __call__(self, picture: Picture) -> Pixels:
        return self.post(
            picture.color, picture.motion, picture.depth, picture.reset, reactive=picture.reactive
        )

    def account(self) -> Account:
        last = self.post.last
        kinds = {"passed": last.passed, "repeated": last.repeated, "carried": last.carried}
        kind = next((kind for kind, so in kinds.items() if so), "fresh")
        return Account(last.latency_frames, kind, self.post.rung)


class Switch(Protocol):
    """A stage that can be turned off."""

    off: bool


def bench_game(given: Mapping[str, Any], *, as_json: bool) -> None:
    """Run with the options that the command line gave, by the fields of `GameJob`; the entry point.

    Raises typer.BadParameter for a size that no game can be drawn in, and what `run_game` raises.
    """
    job = GameJob(**given)
    height, width = job.size
    if width < SMALLEST[0] or height < SMALLEST[1]:
        usage(
            f"--size '{height}x{width}' is too small for a game: {SMALLEST[1]}x{SMALLEST[0]} at least"
        )
    run_game(job, as_json=as_json)


def run_game(job: GameJob, *, as_json: bool) -> None:
    """Measure, print a table or JSON, and write the requested files. Raises VelaturaError."""
    if job.plot is not None:
        require(job.plot)
    make_room(job.out, job.plot)  # nothing is refused after half a minute of measuring
    reporter = Reporter(silent=as_json)
    loops, report = measure_game(job, reporter.status)
    if job.out is not None:
        write_report(job.out, json.dumps(report, indent=2).encode() + b"\n")
    if job.plot is not None:
        write_report(job.plot, draw(loops, report))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print(report)


def measure_game(job: GameJob, progress: Progress) -> tuple[dict[Loop, Pacing], dict[str, Any]]:
    """Returns the measurements of the three loops, and the report on them."""
    height, width = job.size
    scene = Scene(width, height)
    progress("opening the models")
    notes: list[str] = []
    with PostProcess(
        job.models,
        (width, height),
        mode=job.mode,
        budget_ms=job.budget_ms,
        rate=job.rate,
        backend=job.backend,
    ) as post:
        post.listen(notes.append)
        loops = interleave(job, scene, Stage(post), post, WallClock(), progress)
    return loops, {**report_of(job, loops), "notes": notes}


def interleave(
    job: GameJob, scene: Scene, stage: Pass, switch: Switch, clock: Clock, progress: Progress
) -> dict[Loop, Pacing]:
    """Plays the loops in turn, each round in another order: the machine's varying load affects all
    alike."""
    period = 1 / job.rate
    skip = max(2, round(SETTLE * job.rate))
    seconds = job.seconds / job.rounds
    passes: dict[Loop, Pass] = {"without": Bare(), "off": stage, "on": stage}
    found: dict[Loop, list[Any]] = {name: [] for name in LOOPS}
    progress("settling")
    play(scene, stage, skip=skip, seconds=BEFORE, period=period, clock=clock)
    for turn in range(job.rounds):
        for k in range(len(LOOPS)):
            name = LOOPS[(turn + k) % len(LOOPS)]
            progress(f"round {turn + 1} of {job.rounds}: {name}")
            switch.off = name == "off"
            block = play(
                scene,
                passes[name],
                skip=skip,
                seconds=seconds,
                period=period,
                clock=clock,
                # All loops of a round see the same part of the scene.
                since=turn * (seconds + skip * period),
            )
            found[name].append(block)
    switch.off = False
    return {name: Pacing(tuple(blocks)) for name, blocks in found.items()}


def report_of(job: GameJob, loops: dict[Loop, Pacing]) -> dict[str, Any]:
    """Returns the figures, as the module's docstring describes them, without the notes."""
    without, on = loops["without"], loops["on"]
    later = float(on.all("latency").mean() - without.all("latency").mean())
    return {
        "machine": facts(distributions()),
        "models": list(job.models),
        "size": list(job.size),
        "mode": job.mode,
        "rate": job.rate,
        "budget_ms": job.budget_ms,
        "seconds": job.seconds,
        "rounds": job.rounds,
        **{name: pacing.to_json() for name, pacing in loops.items()},
        "cost_ms": {name: cost(loops[name].blocks, without.blocks) for name in ("off", "on")},
        "added_latency": {"frames": round(later * job.rate, 3), "ms": round(later * 1e3, 3)},
        "pictures": {kind: on.count("kinds").get(kind, 0) for kind in KINDS},
        "rungs": on.count("rungs"),
        "seen_by_mark": round(float(on.counted("read").mean()), 4),
        "definitions": DEFINITIONS,
    }


def rows_of(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Returns the rows of the table: a name with its unit, and the figure of each loop."""

    def row(name: str, figure: Callable[[dict[str, Any]], str]) -> tuple[str, list[str]]:
        return name, [figure(report[loop]) for loop in LOOPS]

    def several(key: str, *which: str) -> Callable[[dict[str, Any]], str]:
        return lambda loop: " / ".join(_brief(loop[key][one]) for one in which)

    return [
        row("frames per second", lambda loop: f"{loop['fps']:.1f}"),
        row(
            "1 % / 0.1 % low, fps",
            lambda loop: f"{loop['low_1_percent_fps']:.1f} / {loop['low_01_percent_fps']:.1f}",
        ),
        row("frame time p50 / p95 / p99, ms", several("frame_ms", "p50", "p95", "p99")),
        row("frame time p99.9 / max, ms", several("frame_ms", "p999", "max")),
        row("busy p50 / p95 / p99, ms", several("busy_ms", "p50", "p95", "p99")),
        row("the stage's call p50 / p99, ms", lambda loop: _call(loop["call_ms"])),
        row("missed refreshes", lambda loop: str(loop["missed_refreshes"])),
        row("stutters", lambda loop: str(loop["stutters"])),
        row("animation error, mean / p99, ms", several("animation_error_ms", "mean", "p99")),
        row("behind, mean, frames", lambda loop: f"{loop['behind_frames']['mean']:.2f}"),
        row("latency p50 / p99, ms", several("latency_ms", "p50", "p99")),
    ]


def lines_of(report: dict[str, Any]) -> list[str]:
    """Returns the lines about the stage as a whole."""
    added, pictures = report["added_latency"], report["pictures"]
    costs = (
        f"{name.upper()} adds {_spread(report['cost_ms'][name]['busy_p50'])} ms to the game's busy time"
        for name in ("on", "off")
    )
    rungs = ", ".join(f"{name} ({count})" for name, count in report["rungs"].items())
    return [
        "; ".join(costs),
        f"ON shows things {added['frames']:z.2f} frames ({added['ms']:z.1f} ms) later",
        f"pictures: {', '.join(f'{count} {name}' for name, count in pictures.items())}; rungs: {rungs}",
    ]


def title_of(report: dict[str, Any]) -> str:
    """Returns a line that says what was measured."""
    height, width = report["size"]
    budget = "" if report["budget_ms"] is None else f", budget {report['budget_ms']:g} ms"
    models = " + ".join(report["models"])
    return f"{models}, {report['mode']}, {height}x{width} at {report['rate']:g} Hz{budget}"


def _brief(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _call(found: dict[str, float]) -> str:
    return f"{found['p50']:.3f} / {found['p99']:.3f}"


def _spread(found: dict[str, float]) -> str:
    return f"{found['median']:.3f} ({found['lowest']:.3f}..{found['highest']:.3f})"


def _print(report: dict[str, Any]) -> None:
    typer.echo(title_of(report))
    table = Table(
        Column("", no_wrap=True),
        *(Column(name, no_wrap=True, justify="right") for name in ("without", "OFF", "ON")),
    )
    for name, figures in rows_of(report):
        table.add_row(name, *figures)
    console = Console()
    # A table cut to the 80 columns of a pipe says nothing.
    console.width = max(console.width, 100)
    console.print(table)
    for line in lines_of(report):
        typer.echo(line)
    for note in report["notes"]:
        typer.echo(f"note: {note}", err=True)


SIZE = (15.0, 10.0)
"""Width and height in inches."""
DPI = 110
NAMES: dict[Loop, str] = {"without": "without", "off": "OFF", "on": "ON"}
COLOURS: dict[Loop, str] = {"without": "#4d4d4d", "off": "#0072b2", "on": "#d55e00"}
"""Colours of Okabe and Ito's palette, which the colour-blind can tell apart, and of different
lightness."""
MARKS: dict[Loop, str] = {"without": "s", "off": "x", "on": "."}
STYLES: dict[Loop, Any] = {"without": "-", "off": (0, (4, 2)), "on": "-"}
SLOWEST = (0.0, 50.0, 90.0, 99.0, 99.9)
"""Percentiles that are labelled on a distribution's axis."""


def require(path: Path) -> None:
    """Raise SinkError where no chart can be written there."""
    if path.suffix.lower() != ".png":
        raise SinkError(f"the plot {path} is not written: name it .png")
    try:
        import matplotlib  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise SinkError("a plot needs matplotlib: pip install 'velatura[game]'") from error


def draw(loops: dict[Loop, Pacing], report: dict[str, Any]) -> bytes:
    """Returns the PNG file: frame times, animation errors, both's distributions, and the figures."""
    # Matplotlib's own classes, not pyplot, which would choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    _head(figure, report)
    grid = figure.add_gridspec(4, 2, width_ratios=(1.2, 1), height_ratios=(1, 1, 1, 1.25))
    period = 1e3 / report["rate"]
    first: Axes | None = None
    for row, name in enumerate(LOOPS):
        axes = figure.add_subplot(grid[row, 0], sharex=first, sharey=first)
        first = first or axes
        _course(axes, loops[name], name, period)
    assert first is not None
    top = max(float(np.percentile(pacing.all("frame_times"), 99.9)) for pacing in loops.values())
    first.set_ylim(0, max(2.2 * period, 1.1e3 * top))
    first.text(0.005, period, f"one refresh, {period:.1f} ms", va="bottom", fontsize=8,
               transform=first.get_yaxis_transform())  # fmt: skip
    _errors(figure.add_subplot(grid[3, 0], sharex=first), loops)
    right = grid[:, 1].subgridspec(3, 1, height_ratios=(1, 1, 1.05))
    title = "frame time, from the fastest frame to the slowest"
    _distribution(figure.add_subplot(right[0]), loops, "frame_times", title, period)
    title = "busy time: the game's thread at work on a frame"
    _distribution(figure.add_subplot(right[1]), loops, "busy", title, period)
    _figures(figure.add_subplot(right[2]), report)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _head(figure: "Figure", report: dict[str, Any]) -> None:
    machine = report["machine"]
    where = f"{machine['cpu'].split('(')[0].strip()}, {machine['cores']} cores, {machine['date']}"
    lines = "\n".join(lines_of(report))
    figure.suptitle(f"{title_of(report)}  –  {where}\n{lines}", fontsize=11.5, linespacing=1.4)


def _course(axes: "Axes", pacing: Pacing, name: Loop, period: float) -> None:
    """Draw frame times over the seconds of the loop, with breaks where it was another loop's turn."""
    at = 0.0
    for block in pacing.blocks:
        times = block.frame_times
        since = at + np.cumsum(times)
        axes.plot(since, times * 1e3, color=COLOURS[name], linewidth=0.8)
        at = float(since[-1])
    axes.axhline(period, color="black", linewidth=0.6, linestyle=":")
    axes.set_ylabel("ms")
    axes.set_title(
        f"frame time {NAMES[name]}", loc="left", fontsize=10, color=COLOURS[name], fontweight="bold"
    )
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.25)


def _errors(axes: "Axes", loops: dict[Loop, Pacing]) -> None:
    for name in LOOPS:
        at = np.cumsum(loops[name].all("frame_times"))
        errors = loops[name].all("animation_errors") * 1e3
        axes.plot(at, errors, MARKS[name], color=COLOURS[name], markersize=3, alpha=0.7)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")
    axes.set_xlabel("seconds of each loop")
    axes.grid(alpha=0.25)
    axes.set_title("animation error", loc="left", fontsize=10, fontweight="bold")


def _distribution(
    axes: "Axes", loops: dict[Loop, Pacing], what: str, title: str, period: float | None
) -> None:
    """Draw the distribution of a loop's times by percentile; the axis is stretched towards the slowest
    frames."""
    for name in LOOPS:
        times: Times = np.sort(loops[name].all(what)) * 1e3
        part = np.arange(len(times)) / len(times)
        axes.plot(
            -np.log10(1 - part),
            times,
            color=COLOURS[name],
            linestyle=STYLES[name],
            linewidth=1.8,
        )
    if period is not None:
        axes.axhline(period, color="black", linewidth=0.6, linestyle=":")
    axes.set_xticks([-np.log10(1 - at / 100) for at in SLOWEST], [f"{at:g} %" for at in SLOWEST])
    axes.set_xlim(-0.05, 3.15)
    axes.set_xlabel("percentile of frames")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.grid(alpha=0.25)


def _figures(axes: "Axes", report: dict[str, Any]) -> None:
    """Draw the table, whose head is the legend of all the curves, too."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    rows, columns = rows_of(report), (0.56, 0.78, 1.0)
    height = 1 / (len(rows) + 1)
    for name, right in zip(LOOPS, columns, strict=True):
        axes.text(
            right,
            1 - height / 2,
            NAMES[name],
            color=COLOURS[name],
            fontweight="bold",
            ha="right",
            va="center",
        )
        line = [right - 0.2, right - (0.14 if name == "without" else 0.08)]
        axes.plot(
            line, [1 - height / 2] * 2, color=COLOURS[name], linestyle=STYLES[name], linewidth=1.8
        )
    for number, (name, figures) in enumerate(rows):
        y = 1 - (number + 1.5) * height
        if number % 2 == 0:
            axes.axhspan(y - height / 2, y + height / 2, color="#f0f0f0", linewidth=0)
        axes.text(0, y, name, fontsize=9, va="center")
        for figure, right in zip(figures, columns, strict=True):
            axes.text(right, y, figure, fontsize=9, ha="right", va="center")
