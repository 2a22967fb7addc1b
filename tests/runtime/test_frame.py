"""Frames refuse planes that do not fit, and keep what belongs to the moment."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from velatura.runtime.frame import RGB, YUV420P, Damage, Frame, PixelFormat


def yuv(width: int, height: int, format: PixelFormat = YUV420P) -> Frame:
    planes = tuple(np.zeros(shape, format.dtype) for shape in format.plane_shapes(width, height))
    return Frame(planes=planes, format=format, pts=45, time_base=Fraction(1, 30))


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    subsample=st.sampled_from([(1, 1), (2, 1), (2, 2), (1, 2), (4, 1)]),
    bits=st.sampled_from([8, 10, 12, 16]),
)
def test_odd_sizes_have_a_chroma_sample_for_the_last_row_and_column(
    width: int, height: int, subsample: tuple[int, int], bits: int
) -> None:
    format = PixelFormat("yuv", bits, subsample)
    frame = yuv(width, height, format)
    assert (frame.width, frame.height) == (width, height)
    chroma_height, chroma_width = frame.planes[1].shape
    assert 0 <= chroma_width * subsample[0] - width < subsample[0]
    assert 0 <= chroma_height * subsample[1] - height < subsample[1]


def test_planes_that_do_not_fit_are_refused() -> None:
    y, c = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="do not fit yuv 4:2:0 8 bit"):
        Frame(planes=(y, c, c), format=YUV420P, pts=0, time_base=Fraction(1))
    with pytest.raises(ValueError, match="needs uint16"):
        Frame(planes=(y,), format=PixelFormat("gray", 10), pts=0, time_base=Fraction(1))


def test_time_in_seconds() -> None:
    assert yuv(2, 2).seconds == 1.5


def test_depth_and_motion_stay_only_while_the_size_does() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    frame = Frame(
        planes=(pixels,),
        format=RGB,
        pts=0,
        time_base=Fraction(1),
        depth=np.zeros((4, 6), np.float32),
        motion=np.zeros((4, 6, 2), np.float32),
    )
    assert frame.with_planes((pixels.copy(),), RGB).depth is frame.depth
    larger = frame.with_planes((np.zeros((8, 12, 3), np.uint8),), RGB)
    assert larger.depth is None
    assert larger.motion is None


def test_damage_is_true_when_something_was_lost() -> None:
    assert not Damage()
    assert Damage(1, "cut")
