"""The options of `run`: one field each, from which the command line and journals follow."""

from dataclasses import fields, replace
from typing import Any

import pytest
from velatura.runtime.jobs.chain import settings_of
from velatura.runtime.jobs.options import FLAGS, Job

JOB = Job(source="in.mp4", sink="out.mp4")
OTHER: dict[str, Any] = {
    "models": ("identity",), "size": (64, 48), "enc": (("tune", "grain"),), "value_range": 255.0,
    "background": (0, 255, 0),
}  # fmt: skip
"""Another value than the usual one, where its type does not tell."""


def other(name: str) -> Any:
    usual, flag = getattr(JOB, name), FLAGS[name]
    if name in OTHER:
        return OTHER[name]
    if isinstance(usual, bool):
        return not usual
    if flag.choices:
        return next(value for value in flag.choices if value != usual)
    return {str: "other", int: 7, float: 0.5}.get(type(usual), 7)


def test_every_option_has_a_flag() -> None:
    assert {part.name for part in fields(Job)} == {"source", "sink", *FLAGS}
    assert len({flag.name for flag in FLAGS.values()}) == len(FLAGS)


@pytest.mark.parametrize("name", list(FLAGS))
def test_journals_and_batches_know_what_decides(name: str) -> None:
    before, after = settings_of(JOB), settings_of(replace(JOB, **{name: other(name)}))
    told = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    free = {"overwrite", "tolerate", "journal", "restart", "workers"}
    assert told == (set() if name in free else {FLAGS[name].name})
