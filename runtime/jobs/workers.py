"""Several processes that make segments of one output side by side."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from ..errors import SinkError, StageError, VelaturaError
from ..meter import peak_memory
from ..pump import Pump, Snapshot, Stats
from ..resume.journal import Share
from ..sinks.segmented_file import JournalSink
from ..sinks.worker_share import OnlySink, ShareSink
from ..sources.segment_part import PartSource
from ..stages import Stage
from .chain import Job, lead_of, open_engines, open_input, stages_of


def run_shares(job: Job, sink: JournalSink, progress: Callable[[Snapshot], None]) -> Stats:
    """Make all missing segments in `job.workers` processes; then `sink.close` joins them.

    Every process reads the whole source and makes every n-th segment, which comes out as if one process
    had made them all. Ctrl-C stops them and raises KeyboardInterrupt; whole segments stay. Raises the
    first error of any process.
    """
    start = time.perf_counter()
    # Not forked: inference libraries and decoders have threads, which a forked process would lack.
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[Any, Connection]] = []
    before = sink.kept
    done = [0] * job.workers
    ends: list[tuple[int, Stats]] = []
    try:
        for share in sink.share(of=job.workers):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, share, theirs), daemon=True)
            process.start()
            theirs.close()
            workers.append((process, ours))
        talking = [ours for _, ours in workers]
        while talking:
            for ready in wait(talking, timeout=0.25):
                heard = cast(Connection, ready)
                number = next(n for n, (_, ours) in enumerate(workers) if ours is heard)
                try:
                    told = heard.recv()
                except EOFError:
                    talking.remove(heard)
                    continue
                if isinstance(told, BaseException):
                    raise told
                if isinstance(told, int):
                    done[number] = told
                    continue
                ends.append(cast("tuple[int, Stats]", told))
                done[number] = ends[-1][1].frames_out
            progress(Snapshot(sum(done), time.perf_counter() - start, ()))
        for process, _ in workers:
            process.join()
    finally:
        _end([process for process, _ in workers])
        for _, ours in workers:
            ours.close()
        # Finished segments count, however this ended.
        sink.collect()
    if len(ends) < job.workers:
        codes = ", ".join(str(process.exitcode) for process, _ in workers)
        raise SinkError(
            f"a worker process died (exit codes {codes}; -9 is often a lack of memory): what is whole "
            f"is kept beside {job.sink}; the same command, perhaps with fewer --workers, goes on"
        )
    total = ends[0][0]
    sink.collect(total)
    elapsed = time.perf_counter() - start
    stats = [one for _, one in ends]
    return Stats(
        frames_in=total - before,
        frames_out=total - before,
        elapsed=elapsed,
        first_frame=min((one.first_frame for one in stats if one.frames_out), default=0.0),
        timings=max(stats, key=lambda one: one.frames_out).timings,
        damage=stats[0].damage,
        interrupted=False,
        memory_elsewhere=sum(one.memory_elsewhere for one in stats),
        notes=tuple(dict.fromkeys(note for one in stats for note in one.notes)),
    )


def prime(stages: list[Stage], source: PartSource) -> "Any":
    """Returns the result for the film's first frame; stages with memory have then seen it."""
    frame = source.first
    for stage in stages:
        frame = stage(frame)
    return frame


def _work(job: Job, share: Share, talk: Connection) -> None:
    """Run in a worker's process."""
    import signal

    # The terminal's Ctrl-C reaches every process; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with ExitStack() as stack:
            source = stack.enter_context(open_input(job))
            engines = open_engines(job, stack, _unheard, share.choices)
            stages = stages_of(job, engines, segment=share.state.length)
            lead = lead_of(stages)
            part = PartSource(
                source, lambda n: share.takes(n) or share.leads(n, lead), limit=job.frames
            )
            prime(stages, part)
            first = part.first.index
            with ShareSink(share) as sink:
                only = OnlySink(sink, lambda frame: share.takes(frame.index - first))
                stats = Pump(part, stages, only).run(
                    progress=lambda _: talk.send(only.frames), every=0.5
                )
            memory = peak_memory() or 0
            stats = replace(stats, frames_out=only.frames, damage=part.damage, memory_elsewhere=memory)
            talk.send((part.seen, stats))
    except VelaturaError as error:
        talk.send(error)
    except Exception as error:
        talk.send(StageError(f"a worker failed: {type(error).__name__}: {error}"))
    finally:
        talk.close()


def _unheard(what: str, done: float) -> None:
    """Ignore a builder's progress: the first process has built and stored what the models need."""
    del what, done


def _die_with_parent() -> None:
    """Exit when the process that handed out the shares is gone: another may start with them."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end(processes: list[Any]) -> None:
    """Kill all processes; finished segments survive it."""
    for process in processes:
        if process.is_alive():
            with suppress(OSError):
                process.kill()
        process.join()
