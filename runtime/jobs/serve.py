"""`velatura serve`: models for other processes' frames, through shared memory."""

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import typer

from ..game.shm.segment import check_name
from ..game.shm.server import IDENTITY, ClientStats, Server, ServerStats, Work
from ..stages import Mask
from .options import usage
from .progress import Reporter
from .run import terminable

__all__ = ["IDENTITY", "Work", "line_of", "run_serve", "to_json"]

EVERY = 1.0
"""Seconds between two reports."""


def run_serve(
    name: str, work: Work, size: tuple[int, int], clients: int, *, as_json: bool, quiet: bool
) -> int:
    """Serves until stopped and returns the exit code. Raises VelaturaError for whatever prevents the
    start."""
    try:
        check_name(name)
    except ValueError as error:
        usage(f"--shm: {error}")
    if work.mask not in (None, "alpha"):
        Mask.load(work.mask)  # before clients come: each would be told, and its frames pass
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
        with terminable(server.stop), server:
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
    _leave_behind()
    return 0


def _leave_behind() -> None:
    """Exit at once, with 0, where threads are still at work.

    All is closed by now. But nothing interrupts a library that is opening a model, and one that does
    so while the process takes itself down aborts it.
    """
    if any(thread.daemon and thread.name.startswith("velatura-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def line_of(stats: ServerStats) -> str:
    """Returns a line such as `2 clients: 0 1280x720 60.0 fps p50 8.1 p99 12.0 ms, ...`."""
    parts = [_client(client) for client in stats.clients]
    count = f"{len(parts)} client{'' if len(parts) == 1 else 's'}"
    return f"{count}: {'; '.join(parts)}" if parts else count


def to_json(stats: ServerStats) -> dict[str, Any]:
    """Returns the figures, durations in milliseconds except `elapsed`."""
    return {
        "elapsed": round(stats.elapsed, 3),
        "served": stats.served,
        "done": stats.done,
        "passed": stats.passed,
        "refused": stats.refused,
        "clients": [{**asdict(client), "work": client.work.to_json()} for client in stats.clients],
    }


def _client(client: ClientStats) -> str:
    size = "no frames" if client.size is None else f"{client.size[0]}x{client.size[1]}"
    text = f"{client.pid} {size}, {client.done} done"
    if client.rung:
        text += f", {client.rung}"
    if client.work.count:
        text += f", p50 {client.work.p50 * 1e3:.1f} p99 {client.work.p99 * 1e3:.1f} ms"
    for count, what in ((client.passed, "passed"), (client.refused, "refused")):
        text += f", {count} {what}" if count else ""
    return text
