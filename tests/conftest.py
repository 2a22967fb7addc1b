"""Where the tests find photographs, clips and weights, and what every test may rely on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from velatura.runtime import zoo
from velatura.runtime.cache import FOLDER_VARIABLE

from . import own_data as data
from . import rows
from .skips import OnlyListed

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-listed-skips",
        action="store_true",
        help="a test that is skipped for a reason that tests/skips.toml does not list fails",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(rows)
    if config.getoption("--only-listed-skips"):
        config.pluginmanager.register(OnlyListed.read(ROOT / "tests" / "skips.toml"))
    # A shell's background job is given an ignored SIGINT, and gives it to every process that it starts:
    # none of those that the tests interrupt would hear it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the commands that they start, neither read nor fill the user's engine cache and
    models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        patch.setenv(zoo.FOLDER_VARIABLE, str(tmp_path_factory.mktemp("models")))
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
    """Video clips by the cameras and encoders of others."""
    return data_root / "clips"


@pytest.fixture(scope="session")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, laid out as the data folder is, that are there in any clone."""
    return data.pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def small_data(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with less to measure agreement on."""
    return data.small_pictures(own_data, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def own_pictures(own_data: Path) -> list[Path]:
    """Five of them, of 640x360."""
    return sorted((own_data / "eval" / "kodak24").glob("*.png"))


@pytest.fixture(scope="session")
def own_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small clips that are there in any clone: `own_data.CLIPS`."""
    return data.clips(tmp_path_factory.mktemp("clips"))
