"""Where the tests find real photographs, clips and weights."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The data folder: `$VELATURA_DATA`, else `../shared/data` beside the checkout."""
    root = Path(os.environ.get("VELATURA_DATA") or ROOT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no data folder at {root}: set VELATURA_DATA to run this test")
    return root


@pytest.fixture(scope="session")
def clips(data_root: Path) -> Path:
    """Real video clips."""
    return data_root / "clips"
