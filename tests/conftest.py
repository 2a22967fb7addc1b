"""Where the tests find real photographs, clips and weights."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from velatura.runtime.cache import FOLDER_VARIABLE

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the commands that they start, neither read nor fill the user's engine cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


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
