"""One place knows what differs between PyAV's majors."""

import re
from fractions import Fraction
from pathlib import Path

import av
import pytest
from velatura.runtime import open_source
from velatura.runtime.media.pyav import ratio

RUNTIME = Path(__file__).parents[2] / "runtime"
CLIP = Path(__file__).parents[2] / "samples" / "clip.mp4"


def test_only_one_module_asks_which_pyav_it_is() -> None:
    for path in RUNTIME.rglob("*.py"):
        if path.name != "pyav.py":
            assert not re.search(r"metadata_errors|AVRational", path.read_text()), path


@pytest.mark.parametrize("value", [None, Fraction(0), av.VideoFrame(2, 2, "gray").time_base])
def test_an_unknown_ratio_is_none(value: object) -> None:
    """PyAV 18 gives None for the time base of a frame that nobody has timed, PyAV 19 gives 0/1."""
    assert ratio(value) is None


def test_what_is_read_of_a_file_are_fractions() -> None:
    with open_source(str(CLIP)) as source:
        info = source.info
        assert type(info.rate) is type(info.time_base) is type(info.aspect) is Fraction
        assert (info.rate, info.aspect) == (30, 1)
        frame = next(iter(source))
        assert type(frame.time_base) is type(frame.aspect) is Fraction
