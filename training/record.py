"""What a training run leaves to read: the log, TensorBoard's files, the preview."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports every `report_every` steps."""

    step: int
    steps: int
    loss: dict[str, float]
    """Means since the last report, by the loss's name."""
    learning_rate: float
    elapsed: float
    """Seconds over all sessions."""
    remaining: float
    """Estimated seconds left."""
    images_per_second: float = 0.0
    """Of this process's own steps since it began."""
    floor: float = 0.0
    """Images per second of the loss network's forward and backward alone; 0 without one."""


class Record:
    """`log.jsonl`, `preview.png` and, where asked for, `tensorboard/` in a run's folder."""

    def __init__(self, folder: Path, *, step: int, writes: bool, tensorboard: bool) -> None:
        """Go on after `step`: what a killed run wrote beyond its last checkpoint is dropped.

        Only the process that `writes` touches the folder. Raises ValueError when TensorBoard is asked
        for and not installed.
        """
        self.folder = folder
        self.log = folder / "log.jsonl"
        self.board: Any = None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self._cut(step)
        if tensorboard:
            self.board = _board(folder / "tensorboard", step)

    def _cut(self, step: int) -> None:
        lines = [line for line in self.log.read_text().splitlines() if _step_of(line) <= step]
        partial = self.log.with_name(self.log.name + ".partial")
        partial.write_text("".join(f"{line}\n" for line in lines))
        partial.replace(self.log)

    def progress(self, progress: Progress) -> None:
        """One line, one point per curve."""
        curves = {f"loss/{name}": value for name, value in progress.loss.items()}
        curves |= {"rate": progress.learning_rate, "images_per_second": progress.images_per_second}
        line = {"rate": progress.learning_rate, "elapsed": progress.elapsed, **progress.loss}
        self._add(progress.step, line, curves)

    def validation(self, step: int, found: Mapping[str, float]) -> None:
        """The measures of the averaged weights."""
        curves = {f"validation/{name}": value for name, value in found.items()}
        self._add(step, {"validation": dict(found)}, curves)

    def _add(self, step: int, line: Mapping[str, Any], curves: Mapping[str, float]) -> None:
        with self.log.open("a") as log:
            log.write(json.dumps({"step": step, **line}) + "\n")
        if self.board is not None:
            for name, value in curves.items():
                self.board.add_scalar(name, value, step)

    def preview(self, step: int, pictures: Tensor) -> None:
        """(N, C, H, W) in 0..1, one below the other."""
        column = torch.cat(list(pictures.float().cpu()), 1).permute(1, 2, 0)
        pixels = column.mul(255).round().byte().numpy()
        cv2.imwrite(str(self.folder / "preview.png"), np.ascontiguousarray(pixels[:, :, ::-1]))
        if self.board is not None:
            self.board.add_image("preview", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard's files."""
        if self.board is not None:
            self.board.close()


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ValueError("--tensorboard needs the package tensorboard: pip install it") from error
    writer: Any = SummaryWriter
    return writer(str(folder), purge_step=step)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        # A line that the kill cut off.
        return math.inf
