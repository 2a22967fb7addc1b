"""The error classes, grouped by what a caller catches; each has the command's exit code for it."""

from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import ClassVar, Self


def missing(path: Path) -> str:
    """Returns that there is no such file, and the names near it that there are."""
    if not path.parent.is_dir():
        return f"no file at {path}: there is no folder {path.parent}"
    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), 10_000)]
    except OSError:  # a folder that may not be listed
        names = []
    near = [str(path.with_name(name)) for name in get_close_matches(path.name, names, n=2)]
    return f"no file at {path}" + (f"; did you mean {' or '.join(near)}?" if near else "")


class VelaturaError(Exception):
    """Base of every error that velatura raises on purpose; its text says what to do."""

    exit_code: ClassVar[int] = 1

    def with_text(self, text: str) -> Self:
        """Returns a copy with another text and all attributes, however its class is constructed."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.args = (text,)
        return copied


class SourceError(VelaturaError):
    """The input is missing, is not a video, or cannot be decoded."""

    exit_code = 3


class TruncatedSourceError(SourceError):
    """The input ended early or was damaged: what could be decoded was processed and kept."""

    exit_code = 8


class SinkError(VelaturaError):
    """The output cannot be written: it exists, the disk is full, the container refuses it."""

    exit_code = 4


class ModelError(VelaturaError):
    """The model is unknown, corrupt, or of a shape that cannot be run on frames."""

    exit_code = 5


class EngineError(VelaturaError):
    """A model could not be compiled, or failed while running."""

    exit_code = 6


class BackendUnavailableError(EngineError):
    """An inference library is missing or has no device here."""

    exit_code = 7


class OutOfMemoryError(EngineError):
    """A device has too little memory for frames of this size; smaller ones may fit."""


class ContractError(VelaturaError):
    """A written file does not have the expected contents."""

    exit_code = 10


class BatchError(VelaturaError):
    """Several files of a batch failed, for different reasons."""

    exit_code = 11


class StageError(VelaturaError):
    """A stage raised something that is not a `VelaturaError`; `__cause__` holds it."""

    exit_code = 9
