"""Memory comes back when the last view is gone, and not a moment sooner."""

import gc

import numpy as np
from velatura.runtime.buffers import MEMORY, BufferPool

U8, U16 = np.dtype(np.uint8), np.dtype(np.uint16)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_dropped_array_is_used_again() -> None:
    pool = BufferPool()
    first = pool.take((20, 30), U8)
    place = address(first)
    del first
    gc.collect()
    assert pool.free == 1
    assert address(pool.take((20, 30), U8)) == place


def test_a_view_keeps_its_memory() -> None:
    pool = BufferPool()
    first = pool.take((20, 30, 3), U8)
    first[:] = 7
    view = first[3:9, ::2].transpose(1, 0, 2)[2:]
    del first
    gc.collect()
    assert pool.free == 0
    pool.take((20, 30, 3), U8)[:] = 9
    assert (view == 7).all()


def test_shapes_and_types() -> None:
    pool = BufferPool()
    array = pool.take([4, 5], U16)
    array[:] = 60_000
    assert (array.shape, array.dtype) == ((4, 5), U16)
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_other_sizes_are_let_go() -> None:
    pool = BufferPool(keep=3)
    held = [pool.take((8, 8), U8) for _ in range(10)]
    del held
    gc.collect()
    assert pool.free == 3
    for _ in range(MEMORY + 1):
        assert pool.take((16, 16), U8).shape == (16, 16)
    gc.collect()
    assert pool.free == 1, "one block of the present size, none of the one that has passed"


def test_sizes_go_round_side_by_side() -> None:
    """Tiles and their frame alternate: neither may cost the other its memory."""
    pool = BufferPool()
    shapes = [(8, 8), (16, 16), (32, 32, 3)]
    places = [address(pool.take(shape, U8)) for shape in shapes]
    for _ in range(3):
        assert [address(pool.take(shape, U8)) for shape in shapes] == places
