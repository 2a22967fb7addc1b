"""Watch: files of a folder are done as they arrive."""

import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError
from ..sources import open_source
from .batch import Batch
from .folder import Selection, Suffixes, clashes
from .queue import Stamp, stamp_of

PERIOD = 2.0
"""Seconds between two looks. No event tells of a file that another machine puts on a share."""

SETTLE = 5.0
"""Seconds for which a complete file stays as it is."""

PATIENCE = 60.0
"""Seconds after which a file that stays as it is, and cannot be opened, counts as complete, too."""


@dataclass(slots=True)
class _Seen:
    """How a file was seen."""

    stamp: Stamp
    since: float
    """When it was first seen so."""
    look: float
    """When it is next tried to be opened."""


class Watch:
    """Looks at a folder again and again, until somebody stops it."""

    def __init__(self, batch: Batch, selection: Selection, suffixes: Suffixes) -> None:
        self._batch = batch
        self._selection = selection
        self._suffixes = suffixes
        self._seen: dict[Path, _Seen] = {}
        self._settled: dict[Path, Stamp] = {}
        self._problem = ""

    def run(self) -> None:
        """Do what is complete, and wait for more. Ends by KeyboardInterrupt only."""
        self._batch.say.note(f"watching {self._selection.source}; Ctrl-C ends it")
        while True:
            self.look()
            time.sleep(PERIOD)

    def look(self) -> None:
        """Do all files that are complete and were not done as they are now."""
        pairs = self._pairs()
        ready = [(source, target) for source, target in pairs if self._is_ready(source)]
        wrong = clashes(pairs) if ready else {}
        for source, target in ready:
            stamp = self._seen[source].stamp
            if source in wrong:
                self._batch.refuse(source, target, wrong[source])
            elif stamp_of(source) != stamp:
                continue  # it came to change while others were made
            elif self._batch.one(source, target, watching=True).state != "waiting":
                self._settled[source] = stamp

    def _pairs(self) -> list[tuple[Path, Path]]:
        try:
            files = self._selection.files(self._batch.queue.outputs)
        except SourceError as error:
            # A share may come back.
            if str(error) != self._problem:
                self._batch.say.note(f"{error}; waiting for it")
            self._problem = str(error)
            return []
        self._problem = ""
        self._seen = {file: self._seen[file] for file in files if file in self._seen}
        return [(file, self._selection.target(file, self._suffixes.of(file))) for file in files]

    def _is_ready(self, file: Path) -> bool:
        stamp, now = stamp_of(file), time.monotonic()
        if stamp is None or self._settled.get(file) == stamp:
            return False
        seen = self._seen.get(file)
        if seen is None or seen.stamp != stamp:
            self._seen[file] = _Seen(stamp, now, now + SETTLE)
            return False
        if now < seen.look:
            return False
        if now - seen.since >= PATIENCE or _opens(file):
            return True
        seen.look = now + max(now - seen.since, SETTLE)
        return False


def _opens(file: Path) -> bool:
    """Whether it is a video that can be read, as one that lacks its end often is not."""
    try:
        open_source(file).close()
    except SourceError:
        return False
    return True
