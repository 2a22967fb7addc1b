"""The switches by which `make test` runs several files of tests at a time."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"

DIES = "import os\ndef test_a(): os._exit(1)\n"
HANGS = "import time\ndef test_a(): time.sleep(1000)\n"


def switches(timeout: int) -> list[str]:
    """Those of the Makefile, with another time for a test that hangs."""
    found = re.search(r"^SIDE_BY_SIDE = ((?:.*\\\n)*.*)\n", MAKEFILE.read_text(), re.MULTILINE)
    assert found is not None
    text = found[1].replace("\\\n", "").replace("$(WORKERS)", "1")
    text, count = re.subn(r"(faulthandler_timeout)=\d+", rf"\1={timeout}", text)
    assert count == 1
    return shlex.split(text)


@pytest.mark.parametrize(("code", "timeout"), [(DIES, 60), (HANGS, 1)], ids=["dies", "hangs"])
def test_a_process_that_is_lost_fails_the_run_and_does_not_hang_it(
    code: str, timeout: int, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_1.py").write_text(code)
    (tmp_path / "test_2.py").write_text("def test_b(): pass\n")
    names = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *switches(timeout), "test_1.py", "test_2.py"],
        cwd=tmp_path, env=names, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "crashed while running 'test_1.py::test_a'" in done.stdout
