"""Checkpoints: everything a run needs to go on, written so that a crash never leaves half a file."""

import io
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch


def _no_sums() -> dict[str, float]:
    return {}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training run after `step` steps."""

    recipe: dict[str, Any]
    """The recipe as a plain mapping: a run resumes only under the recipe that it began with."""
    step: int
    elapsed: float
    """Seconds spent training, over all sessions."""
    net: dict[str, Any]
    average: dict[str, Any]
    """The exponential moving average of the weights, which is what gets exported."""
    optimizer: dict[str, Any]
    sums: dict[str, float] = field(default_factory=_no_sums)
    """Losses added up since the last line of the log."""
    machine: str = ""
    """What it was trained on, in words."""
    started_from: str = ""
    """The model whose weights it began with, in words; empty for random ones."""

    def save(self, path: Path) -> None:
        """Write to a temporary name beside `path`, then rename, both down to the disk.

        Raises OSError when it cannot be written, a full disk for one; the file at `path` is then still
        the one before.
        """
        buffer = io.BytesIO()
        torch.save(asdict(self), buffer)
        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A file system may carry out the renaming before the writing: after a power cut the name
            # would stand for an empty file, and the checkpoint of before would be gone.
            with partial.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            if partial.parent.is_dir():
                partial.unlink(missing_ok=True)
            kept = f"the checkpoint of before is still at {path}" if path.exists() else "none was saved"
            raise OSError(
                error.errno, f"cannot write a checkpoint ({error.strerror}); {kept}", str(path)
            ) from error

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint. Raises FileNotFoundError, or ValueError when it is not one."""
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        try:
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
            return cls(**state)
        except (TypeError, RuntimeError, EOFError, UnpicklingError) as error:
            raise ValueError(f"{path} is not a velatura checkpoint: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a renaming last, where folders can be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
