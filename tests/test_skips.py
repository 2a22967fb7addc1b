"""The list of skips that are meant, and that no other passes."""

from pathlib import Path

import pytest

from .skips import OnlyListed

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["pytester"]
LISTED = OnlyListed.read(ROOT / "tests" / "skips.toml")


def test_every_entry_says_why_and_names_tests_that_exist() -> None:
    for one in LISTED.listed:
        assert one.why.endswith("."), one
        for pattern in one.tests:
            file, _, name = pattern.partition("::")
            if pattern == "*" or "*" in file:
                continue
            assert f"def {name.rstrip('*')}" in (ROOT / file).read_text(), pattern


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [("this CPU has no BF16", "failed"), ("an NVIDIA GPU is here", "skipped"), ("no time", "failed")],
)
def test_a_skip_that_is_not_listed_fails(
    reason: str, outcome: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        def test_left_out():
            pytest.skip({reason!r})

        @pytest.mark.xfail
        def test_known():
            raise AssertionError
        """
    )
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    done = pytester.inline_run(plugins=[LISTED])
    passed, skipped, failed = done.listoutcomes()
    assert (len(passed), len(skipped), len(failed)) == (0, 2, 0) if outcome == "skipped" else (0, 1, 1)
    assert all("not listed in tests/skips.toml" in str(report.longrepr) for report in failed)
