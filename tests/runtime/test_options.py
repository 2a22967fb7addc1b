"""The options of `run`: one field each, from which the command line and journals follow."""

from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from velatura.runtime.jobs.job import FLAGS, Job, settings_of

from .commands import velatura

JOB = Job(source="in.mp4", sink="out.mp4")
OTHER: dict[str, Any] = {
    "models": ("identity",), "size": (64, 48), "enc": (("tune", "grain"),), "value_range": 255.0,
    "background": (0, 255, 0), "mean": (0.5,) * 3, "deviation": (0.2,) * 3,
    "mask": "mask.png",
}  # fmt: skip
"""Another value than the usual one, where its type does not tell."""


def other(name: str) -> Any:
    usual, flag = getattr(JOB, name), FLAGS[name]
    if name in OTHER:
        return OTHER[name]
    if isinstance(usual, bool):
        return not usual
    choices = [value for part in (flag.given, *get_args(flag.given)) for value in get_args(part)]
    if isinstance(next(iter(choices), None), str):
        return next(value for value in choices if value != usual)
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


@pytest.mark.parametrize(
    "words",
    ["run a b --quality best", "run a b --fit squeeze", "compare a b --view over",
     "live screen: null: --drop all", "live screen: null: --stats xml", "serve --shm n --stats xml",
     "build wave --target vulkan", "build wave --hardware turing", "build wave --precision int8",
     "cache empty", "cache prebuild wave --precision fp8", "bench wave --game --mode beside",
     "bench wave --channels luma"],
)  # fmt: skip
def test_a_word_that_is_no_choice_is_refused_before_anything_is_done(words: str) -> None:
    done = velatura(*words.split())
    assert done.returncode == 2
    assert "is not one of" in " ".join(done.stderr.split())
