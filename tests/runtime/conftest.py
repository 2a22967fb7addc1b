"""A film to cut off, and what comes of it uncut."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from . import videos
from .cutting import FRAMES, contents, finish


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With B-frames and sound."""
    return videos.make(
        tmp_path_factory.mktemp("film") / "in.mp4", codec="libx264", tone=True, frames=FRAMES,
        size=(96, 64), seconds=3.0, options={"bf": "3"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def uncut(film: Path) -> dict[str, Any]:
    """What a run that nobody disturbs makes of it."""
    target = film.with_name("out.mp4")
    finish(film, target, "--journal")
    found = contents(target)
    target.unlink()
    assert len(found["frames"]) == FRAMES
    return found


@pytest.fixture
def source(film: Path, tmp_path: Path) -> Path:
    shutil.copy2(film, tmp_path / "in.mp4")
    return tmp_path / "in.mp4"
