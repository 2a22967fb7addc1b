"""Renders: the queue of films to be made, one after another, each in a process and a folder of its own.

A folder holds what was asked, the state of a batch of one file, the journal while it is made, then the
output: so that the queue is there again when the studio, or the machine, was killed.
"""

import asyncio
import json
import re
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from ..cache import write_whole
from ..errors import SinkError, VelaturaError
from ..jobs.batch_state import NAME as BATCH
from ..jobs.batch_state import Entry, read_entries
from ..resume.journal import frames_left
from .child import RENDER
from .choices import Choices
from .films import Film, plain_name

State = Literal["waiting", "running", "stopping", "paused", "done", "failed"]

PATIENCE = 15.0
"""Seconds that a render may take to stop, before its process is killed."""
LOG = "log.txt"
VERIFIED = "verify.json"
FIGURES = ("frames_out", "fps", "seconds", "output_bytes", "output_seconds")
"""Of a run's report, what a page is told."""
LINE = 1 << 20
"""Bytes of a line that a process may write."""
PLANNING = 120.0
"""Seconds that a plan may take."""


@dataclass(slots=True, kw_only=True)
class Render:
    """One film, made with some choices."""

    id: str
    folder: Path
    film: str
    """The film's id; it may be gone by now."""
    name: str
    """The film's name."""
    source: Path
    sink: Path
    choices: Choices
    made: float
    """When it was asked for, in seconds since 1970."""
    paused: bool = False
    trouble: str = ""
    """The reason why its process ended without a state."""
    total: int | None = None
    """Frames of the film."""
    frames: int = 0
    """Frames made so far."""
    fps: float = 0.0
    left: float | None = None
    """Seconds that are left."""
    notes: tuple[str, ...] = ()
    entry: Entry | None = None
    verified: dict[str, Any] | None = None
    process: asyncio.subprocess.Process | None = None
    verifying: bool = False

    @property
    def state(self) -> State:
        """What is to be said of it."""
        if self.process is not None:
            return "stopping" if self.paused else "running"
        if self.trouble or (self.entry is not None and self.entry.state in ("failed", "skipped")):
            return "failed"
        if self.entry is not None and self.entry.state == "done":
            return "done"
        return "paused" if self.paused else "waiting"

    @property
    def has_output(self) -> bool:
        """Whether there is a file, which of a damaged film holds what could be decoded."""
        return self.process is None and self.state in ("done", "failed") and self.sink.is_file()

    def save(self) -> None:
        """Store what was asked. Raises SinkError."""
        held = {
            "film": self.film, "name": self.name, "source": str(self.source), "sink": self.sink.name,
            "choices": self.choices.to_json(), "made": self.made, "paused": self.paused,
            "trouble": self.trouble, "total": self.total,
        }  # fmt: skip
        try:
            write_whole(self.folder / RENDER, json.dumps(held).encode())
        except OSError as error:
            raise SinkError(f"the queue cannot be kept: {error.strerror or error}") from error

    @classmethod
    def load(cls, folder: Path) -> "Render | None":
        """Returns the render of a folder; None where it is not one."""
        try:
            held: Any = json.loads((folder / RENDER).read_bytes())
            render = cls(
                id=folder.name, folder=folder, film=held["film"], name=held["name"],
                source=Path(held["source"]), sink=folder / Path(held["sink"]).name,
                choices=Choices.from_json(held["choices"]), made=held["made"],
                paused=held["paused"], trouble=held["trouble"], total=held["total"],
            )  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        render.look()
        return render

    def look(self) -> None:
        """Read what its process has stored."""
        self.entry = read_entries(self.folder).get(self.sink.name)
        done = self.entry is not None and self.entry.state == "done"
        self.frames = (self.total or 0) if done else frames_left(self.sink)
        self.fps, self.left = 0.0, None
        try:
            self.verified = json.loads((self.folder / VERIFIED).read_bytes())
        except (OSError, ValueError):
            self.verified = None

    def to_json(self) -> dict[str, Any]:
        """Returns what a page is told."""
        entry, state = self.entry, self.state
        failed = state == "failed"
        report = None if entry is None else entry.report
        return {
            "id": self.id,
            "film": self.film,
            "name": self.name,
            "choices": {**self.choices.fields, "suffix": self.choices.suffix},
            "state": state,
            "made": self.made,
            "frames": self.frames,
            "total": self.total,
            "fps": self.fps,
            "left": self.left,
            "notes": list(self.notes),
            "error": (self.trouble or (entry.error if entry is not None else "")) if failed else "",
            "report": None if report is None else {name: report.get(name) for name in FIGURES},
            "output": str(self.sink) if self.has_output else None,
            "file": self.sink.name,
            "verified": None if self.verified is None else _verdict(self.verified),
            "verifying": self.verifying,
        }


class Renders:
    """The queue. All calls are made in the server's event loop."""

    def __init__(self, place: Path, changed: Callable[[], None]) -> None:
        """`changed` is called when a page should be told. Raises SinkError."""
        self._place, self._changed = place, changed
        self._renders: dict[str, Render] = {}
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._planning: asyncio.subprocess.Process | None = None
        self._ending = False
        try:
            place.mkdir(parents=True, exist_ok=True)
            for left in place.glob(".plan-*"):
                shutil.rmtree(left, ignore_errors=True)
            found = [Render.load(folder) for folder in place.iterdir() if folder.is_dir()]
        except OSError as error:
            raise SinkError(f"{place} cannot be used: {error.strerror or error}") from error
        for render in sorted((one for one in found if one is not None), key=lambda one: one.made):
            self._renders[render.id] = render

    def __iter__(self) -> Iterator[Render]:
        return iter(tuple(self._renders.values()))

    def get(self, id: str) -> Render | None:
        """Returns the render of that name, if there is one."""
        return self._renders.get(id)

    def uses(self, film: Film) -> bool:
        """Returns whether a render that is not done needs a film."""
        return any(render.film == film.id and render.state != "done" for render in self)

    def start(self) -> None:
        """Begin with what waits."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the process at work; the same queue goes on there next time."""
        self._ending = True
        planning = self._planning
        self._end_plan()
        if planning is not None:
            await planning.wait()
        for render in self:
            if render.process is not None:
                await self._halt(render)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def add(self, film: Film, choices: Choices) -> Render:
        """Returns a new render, which waits for its turn. Raises SinkError."""
        id = secrets.token_hex(8)
        folder = self._place / id
        try:
            folder.mkdir()
        except OSError as error:
            raise SinkError(f"{folder} cannot be made: {error.strerror or error}") from error
        render = _render(id, folder, film, choices)
        render.save()
        self._renders[id] = render
        self._tell()
        return render

    async def pause(self, render: Render) -> None:
        """Stop a render, or leave it out; what is whole is kept in its journal."""
        if render.state in ("waiting", "running"):
            render.paused = True
            render.save()
            self._changed()
            if render.process is not None:
                await self._halt(render)

    def resume(self, render: Render) -> None:
        """Go on with a render that is paused, or try one that failed again."""
        if render.state == "failed":
            (render.folder / BATCH).unlink(missing_ok=True)
        if render.state in ("paused", "failed"):
            render.paused, render.trouble, render.entry = False, "", None
            render.save()
            self._tell()

    async def remove(self, render: Render) -> None:
        """Stop a render and throw away all that was made of it."""
        render.paused = True
        if render.process is not None:
            render.save()  # not to be taken up again, should the studio be killed meanwhile
            self._changed()
            await self._halt(render)
        self._renders.pop(render.id, None)
        await asyncio.to_thread(shutil.rmtree, render.folder, ignore_errors=True)
        self._tell()

    async def plan(self, film: Film, choices: Choices) -> dict[str, Any]:
        """Returns the report of a dry run, or its error; an earlier plan at work is given up. Raises
        SinkError where the process fails."""
        self._end_plan()
        folder = self._place / f".plan-{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            _render(folder.name, folder, film, choices).save()
            process = await _spawn("plan", folder)
            self._planning = process
            assert process.stdout is not None
            try:
                async with asyncio.timeout(PLANNING):
                    said = await process.stdout.read()
                    await process.wait()
            except TimeoutError:
                raise SinkError("the plan took too long") from None
            finally:
                _kill(process)
                await process.wait()
            try:
                report: dict[str, Any] = json.loads(said)
            except ValueError:
                gone = self._planning is not process
                told = "another plan was asked for" if gone else _last_words(folder, process)
                raise SinkError(told) from None
            else:
                if any(render.process is not None for render in self):
                    report.get("notes", []).append("tried beside a render: alone it takes less time")
                return report
            finally:
                if self._planning is process:
                    self._planning = None
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _end_plan(self) -> None:
        process, self._planning = self._planning, None
        if process is not None:
            _kill(process)

    def _tell(self) -> None:
        self._wake.set()
        self._changed()

    async def _halt(self, render: Render) -> None:
        process = render.process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(2.0 if self._ending else PATIENCE):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()
        while render.process is process:  # until the queue has read its state
            await asyncio.sleep(0.02)

    async def _run(self) -> None:
        while not self._ending:
            self._wake.clear()
            unchecked = (one for one in self if one.state == "done" and one.verified is None)
            render = next(unchecked, None) or next(
                (one for one in self if one.state == "waiting"), None
            )
            if render is None:
                await self._wake.wait()
                continue
            try:
                await (self._make if render.state == "waiting" else self._verify)(render)
            except (OSError, ValueError, VelaturaError) as error:
                # No process, no file, a full disk: the queue goes on with the next.
                render.trouble = f"it could not be made: {error}"
            self._changed()

    async def _make(self, render: Render) -> None:
        (render.folder / VERIFIED).unlink(missing_ok=True)
        render.notes, render.verified = (), None
        process = await _spawn("render", render.folder)
        render.process = process
        if render.paused or self._ending:  # since it was begun
            _kill(process)
        self._changed()
        try:
            await self._hear(render, process)
            code = await process.wait()
        finally:
            _kill(process)
            render.process = None
        render.look()
        stopped = render.paused or self._ending
        unsettled = render.entry is None or render.entry.state in ("waiting", "running")
        if unsettled and not stopped and render.id in self._renders:
            render.trouble = f"{_last_words(render.folder, process)} (exit code {code})"
            render.save()

    async def _hear(self, render: Render, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            told = _told(line)
            if "note" in told:
                render.notes = (*render.notes[-19:], str(told["note"]))
            elif "frames" in told:
                render.frames, render.fps, render.left = told["frames"], told["fps"], told["left"]
                if told["total"] not in (None, render.total):
                    render.total = told["total"]
                    render.save()
            self._changed()

    async def _verify(self, render: Render) -> None:
        """Compare the output with its source, as `velatura verify` does, and keep the report."""
        render.verifying = True
        self._changed()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "velatura.runtime", "verify", str(render.source), str(render.sink),
            "--json", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            said, _ = await process.communicate()
            if render.id in self._renders:
                render.verified = json.loads(said)
                write_whole(render.folder / VERIFIED, said)
        except ValueError:
            render.verified = {"error": f"verify ended with exit code {process.returncode}"}
        finally:
            _kill(process)
            await process.wait()
            render.verifying = False


def _render(id: str, folder: Path, film: Film, choices: Choices) -> Render:
    stem = film.name.rpartition(".")[0] or film.name
    called = plain_name(f"{'-'.join((stem, *choices.models))}{choices.suffix}")
    return Render(
        id=id, folder=folder, film=film.id, name=film.name, source=film.path, sink=folder / called,
        choices=choices, made=time.time(), total=film.facts["frames"],
    )  # fmt: skip


async def _spawn(what: str, folder: Path) -> asyncio.subprocess.Process:
    """Returns the process of a render or a plan; its errors go into the folder."""
    with (folder / LOG).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "velatura.runtime.studio.child", what, str(folder),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=LINE,
        )  # fmt: skip


def _verdict(report: dict[str, Any]) -> dict[str, Any]:
    """Returns verify's report in a few figures; the whole has an address of its own."""
    checks = report.get("checks", [])
    wrong = sum(not check["holds"] for check in checks)
    return {"checks": len(checks), "wrong": wrong, "error": report.get("error", "")}


def _told(line: bytes) -> dict[str, Any]:
    """Returns what a line of a process tells; nothing for a library's own words, and for the last ones
    of a process that was killed."""
    try:
        found: Any = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


def _last_words(folder: Path, process: asyncio.subprocess.Process) -> str:
    """Returns why a process ended: the last line that it wrote, else what its exit code tells."""
    try:
        said = (folder / LOG).read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        said = ""
    lines = [line for line in said.splitlines() if line.strip()]
    code = process.returncode or 0
    if code < 0 or not lines:
        memory = ": often a lack of memory" if code == -9 else ""
        return f"its process died{memory}; what is whole is kept, and a new try goes on there"
    return re.sub(r"^velatura: ", "", lines[-1])
