"""Checkpoints: everything a run needs to go on, written so that a crash never leaves half a file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


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

    def save(self, path: Path) -> None:
        """Write to a temporary name beside `path`, then rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        torch.save(asdict(self), partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint. Raises FileNotFoundError, or ValueError when it is not one."""
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        try:
            return cls(**state)
        except TypeError as error:
            raise ValueError(f"{path} is not a velatura checkpoint: {error}") from error
