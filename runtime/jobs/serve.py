"""`velatura serve`: models for other processes' frames, through shared memory."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import PRECISIONS, Debug, choice, reporting, usage, width_height

if TYPE_CHECKING:
    from ..game.shm.server import ClientStats, ServerStats

EVERY = 1.0
"""Seconds between two reports."""


def serve(
    shm: Annotated[str, typer.Option("--shm", metavar="NAME", help="The name that clients ask for.")],
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="Zoo name or .onnx file; repeat to chain several."),
    ] = None,
    max_size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the largest frames.")] = "1920x1080",
    clients: Annotated[int, typer.Option(min=1, max=256, help="Clients at once.")] = 8,
    budget_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds of a frame, held by doing less. [by the client's deadline]"),
    ] = None,
    stabilize: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much history steadies frames with motion.")
    ] = 0.9,
    strength: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much of the models' work is seen.")
    ] = 1.0,
    backend: Annotated[str, typer.Option(help="auto, or one of `velatura doctor`'s.")] = "auto",
    precision: Annotated[str, typer.Option(help="As for `velatura run`.")] = "auto",
    stats: Annotated[str, typer.Option(help="text, or json (a line a second).")] = "text",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
    debug: Debug = False,
) -> None:
    """Serve models to games in other processes, through shared memory, until Ctrl-C.

    Games send frames with `velatura.h` (C, C++: `velatura include-dir`) or with
    `velatura.runtime.game.Client`. Frames pass unchanged without -m.
    """
    from ..game.shm.segment import check_name
    from ..game.shm.server import IDENTITY, Work

    with reporting(debug, stats == "json"):
        chosen = choice("--stats", stats, ("text", "json"))
        size = width_height(max_size, "--max-size") or (1, 1)
        if budget_ms is not None and not 0 < budget_ms < 1e4:
            usage(f"--budget-ms {budget_ms} is not within 0..10000")
        work = Work(
            models=tuple(model or (IDENTITY,)),
            budget_ms=budget_ms,
            stability=stabilize,
            strength=strength,
            backend=backend,
            precision=choice("--precision", precision, PRECISIONS),
        )
        try:
            check_name(shm)
        except ValueError as error:
            usage(f"--shm: {error}")
        code = _run(shm, work, size, clients, as_json=chosen == "json", quiet=quiet)
        _leave_behind(code)
        raise SystemExit(code)


def _run(
    name: str, work: Any, size: tuple[int, int], clients: int, *, as_json: bool, quiet: bool
) -> int:
    """Serve until stopped. Raises VelaturaError for whatever prevents the start."""
    from ..game.shm.server import Server
    from .progress import Reporter
    from .run import terminable

    say = Reporter(silent=quiet)
    last, shown = time.monotonic(), ""

    def turn() -> None:
        nonlocal last, shown
        if time.monotonic() - last < EVERY:
            return
        last = time.monotonic()
        if as_json:
            typer.echo(json.dumps({"stats": to_json(server.stats())}))
        elif (line := line_of(server.stats())) != shown:
            # A log is not to grow while nothing happens.
            shown = line
            say.status(line)

    with terminable():
        try:
            server = Server(name, work, max_size=size, clients=clients, tell=say.note)
        except ValueError as error:
            usage(str(error))
        with _ended_by_signals(server.stop), server:
            header = server.segment.header
            if as_json:
                ready = {"name": name, "path": str(server.segment.path), "title": header.title}
                ready |= {"pid": header.pid, "max_size": list(size), "clients": clients}
                typer.echo(json.dumps({"ready": ready}))
            else:
                say.tell(
                    f"serving {name}: {header.title}, {clients} clients, frames of up to "
                    f"{size[0]}x{size[1]}; Ctrl-C ends it"
                )
            server.serve(turn)
        found = server.stats()
    if as_json:
        typer.echo(json.dumps({"summary": to_json(found)}))
    else:
        say.tell(f"clients: {found.served} in {found.elapsed:.1f} s: {found.done} frames done, "
                 f"{found.passed} passed, {found.refused} refused")  # fmt: skip
    return 0


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Generator[None]:
    """SIGINT and SIGTERM request the end, and interrupt nothing, not even a client's connection."""

    def handler(number: int, frame: object) -> None:
        del number, frame
        stop()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _leave_behind(code: int) -> None:
    """Exit at once where threads are still at work.

    All is closed by now. But nothing interrupts a library that is opening a model, and one that does
    so while the process takes itself down aborts it.
    """
    if any(thread.daemon and thread.name.startswith("velatura-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def line_of(stats: "ServerStats") -> str:
    """Returns a line such as `2 clients: 0 1280x720 60.0 fps p50 8.1 p99 12.0 ms, ...`."""
    parts = [_client(client) for client in stats.clients]
    count = f"{len(parts)} client{'' if len(parts) == 1 else 's'}"
    return f"{count}: {'; '.join(parts)}" if parts else count


def to_json(stats: "ServerStats") -> dict[str, Any]:
    """Returns the figures, durations in milliseconds except `elapsed`."""
    return {
        "elapsed": round(stats.elapsed, 3),
        "served": stats.served,
        "done": stats.done,
        "passed": stats.passed,
        "refused": stats.refused,
        "clients": [
            {
                "slot": client.slot,
                "pid": client.pid,
                "size": client.size and list(client.size),
                "done": client.done,
                "passed": client.passed,
                "refused": client.refused,
                "rung": client.rung,
                "work": client.work.to_json(),
                "message": client.message,
            }
            for client in stats.clients
        ],
    }


def _client(client: "ClientStats") -> str:
    size = "no frames" if client.size is None else f"{client.size[0]}x{client.size[1]}"
    text = f"{client.pid} {size}, {client.done} done"
    if client.rung:
        text += f", {client.rung}"
    if client.work.count:
        text += f", p50 {client.work.p50 * 1e3:.1f} p99 {client.work.p99 * 1e3:.1f} ms"
    for count, what in ((client.passed, "passed"), (client.refused, "refused")):
        text += f", {count} {what}" if count else ""
    return text
