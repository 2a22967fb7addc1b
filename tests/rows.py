"""Rows of a parametrised test, of which `make test` runs some and `make soak` the others."""

from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import pytest


def soaking(values: Iterable[Any], *, but: Iterable[Any]) -> list[Any]:
    """All `values`, each a soak test except those of `but`, which must be among them."""
    found, quick = list(values), list(but)
    assert [value for value in quick if value not in found] == [], "a row that is not there"
    return [value if value in quick else _soaked(value) for value in found]


def _soaked(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is marked `quick_rows(N)`, N rows stay quick and the others become soak tests: the
    same ones each time, by the digest of their names, so that products of parameters are mixed."""
    tests: dict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("quick_rows")
        if marker is not None and item.get_closest_marker("soak") is None:
            tests[item.nodeid.partition("[")[0], marker.args[0]].append(item)
    for (_, quick), rows in tests.items():
        rows.sort(key=lambda row: sha256(row.name.encode()).digest())
        for row in rows[quick:]:
            row.add_marker(pytest.mark.soak)
