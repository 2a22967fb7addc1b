"""`velatura bench --game`: how a game's frames are paced with the stage, with it off, and without it.

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
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import typer
from rich.console import Console
from rich.table import Column, Table

from ..game.post import PostProcess
from ..machine import facts
from .pacing import DEFINITIONS, Pacing, cost
from .play import Account, Bare, Clock, Pass, WallClock, play
from .reports import make_room, write_report
from .scene import Picture, Pixels, Scene
from .view import Reporter

Loop = Literal["without", "off", "on"]

LOOPS: tuple[Loop, ...] = ("without", "off", "on")
KINDS = ("fresh", "carried", "repeated", "passed")
BLOCK = 2.0
"""Seconds of one loop, about, before it is the next one's turn."""
LEAST = 2
"""Rounds, however short they are: what a machine does meanwhile must meet all loops."""
SETTLE = 0.25
"""Seconds at the beginning of each block that do not count."""
BEFORE = 1.0
"""Seconds of the stage at work before anything counts."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameJob:
    """The options of one report."""

    models: tuple[str, ...]
    size: tuple[int, int]
    """Height and width."""
    mode: Literal["inline", "pipelined"] = "inline"
    rate: float = 60.0
    """Refreshes of the display per second."""
    seconds: float = 10.0
    """Of each loop."""
    budget_ms: float | None = None
    backend: str = "auto"
    out: Path | None = None
    plot: Path | None = None

    @property
    def rounds(self) -> int:
        """How often each loop has its turn."""
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


def run_game(job: GameJob, *, as_json: bool) -> None:
    """Measure, print a table or JSON, and write what is asked for. Raises VelaturaError."""
    if job.plot is not None:
        from .chart import require

        require(job.plot)
    make_room(job.out, job.plot)  # nothing is refused after half a minute of measuring
    reporter = Reporter(silent=as_json)
    loops, report = measure_game(job, reporter.status)
    if job.out is not None:
        write_report(job.out, json.dumps(report, indent=2).encode() + b"\n")
    if job.plot is not None:
        from .chart import draw

        write_report(job.plot, draw(loops, report))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print(report)


def measure_game(job: GameJob, progress: Progress) -> tuple[dict[Loop, Pacing], dict[str, Any]]:
    """The three loops, and the report on them."""
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
    """Play the loops in turn, each round in another order: the machine's moods meet all alike."""
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
    """The figures, as the module's text describes them, but for the notes."""
    without, on = loops["without"], loops["on"]
    later = float(on.all("latency").mean() - without.all("latency").mean())
    return {
        "machine": facts(),
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
    """What a person compares: a name with its unit, and the figure of each loop."""

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
    """What is said of the stage as a whole, a line each."""
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
    """What was measured."""
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
