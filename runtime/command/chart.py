"""Chart: a game's three loops in one picture. Matplotlib (extra `game`) is imported to draw one."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SinkError
from .game import LOOPS, Loop, lines_of, rows_of, title_of
from .pacing import Pacing, Times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (15.0, 10.0)
"""Inches."""
DPI = 110
NAMES: dict[Loop, str] = {"without": "without", "off": "OFF", "on": "ON"}
COLOURS: dict[Loop, str] = {"without": "#4d4d4d", "off": "#0072b2", "on": "#d55e00"}
"""Of Okabe and Ito's palette, which the colour-blind tell apart, and of different lightness."""
MARKS: dict[Loop, str] = {"without": "s", "off": "x", "on": "."}
STYLES: dict[Loop, Any] = {"without": "-", "off": (0, (4, 2)), "on": "-"}
SLOWEST = (0.0, 50.0, 90.0, 99.0, 99.9)
"""Percentiles that the axis of a distribution names."""


def require(path: Path) -> None:
    """Raise SinkError where no chart can be written there."""
    if path.suffix.lower() != ".png":
        raise SinkError(f"the plot {path} is not written: name it .png")
    try:
        import matplotlib  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise SinkError("a plot needs matplotlib: pip install 'velatura[game]'") from error


def draw(loops: dict[Loop, Pacing], report: dict[str, Any]) -> bytes:
    """The PNG file: frame times, animation errors, both's distributions, and the figures."""
    # The classes of their own, not pyplot: that would choose a backend for the whole process.
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
    """Frame times over the seconds of the loop; breaks where it was another one's turn."""
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
    """How long so many in a hundred take at most; the axis is stretched towards the slowest ones."""
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
    """The table, whose heads are the legend of all the curves, too."""
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
