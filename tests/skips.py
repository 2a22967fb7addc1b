"""Skips that nobody meant: a test that is left out where it should run is no passed test."""

import re
import tomllib
from collections.abc import Generator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A skip that is meant."""

    reason: re.Pattern[str]
    """What pytest says of it, anywhere in the text."""
    tests: tuple[str, ...]
    """Globs of the node ids that may give it."""
    why: str


class OnlyListed:
    """A plugin of pytest that turns every other skip into a failure."""

    def __init__(self, listed: tuple[Listed, ...]) -> None:
        self.listed = listed

    @classmethod
    def read(cls, path: Path) -> "OnlyListed":
        """From a TOML file with one `[[skip]]` for each."""
        return cls(
            tuple(
                Listed(
                    reason=re.compile(one["reason"]),
                    tests=tuple(one.get("tests", ("*",))),
                    why=one["why"],
                )
                for one in tomllib.loads(path.read_text())["skip"]
            )
        )

    def meant(self, node: str, reason: str) -> bool:
        return any(
            one.reason.search(reason) and any(fnmatchcase(node, pattern) for pattern in one.tests)
            for one in self.listed
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._check(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self,
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        self._check(report)
        return report

    def _check(self, report: Any) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not self.meant(report.nodeid, reason):
            report.outcome = "failed"
            report.longrepr = (
                f"{reason}\nthis skip is not listed in tests/skips.toml: make the test run, "
                "or list it there with the reason"
            )
