"""Rows of a parametrised test, of which `make test` runs some and `make soak` the others."""

from collections.abc import Iterable
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
