"""Pictures in the memory of the simulated GPU: read where they are, in the order of their streams."""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from velatura.runtime import EngineError
from velatura.runtime.backends.nvidia import cuda as cuda_module
from velatura.runtime.backends.nvidia.cuda import DeviceArray
from velatura.runtime.backends.nvidia.engine import DeviceEngine
from velatura.runtime.errors import OutOfMemoryError

from . import simulated_rig
from .simulated import Stream
from .simulated_rig import (
    SIZES,
    STYLE,
    UPSCALE,
    WAITS,
    Rig,
    assert_close,
    counted,
    expected,
    frames,
    zoo,
)

rig, rigs = simulated_rig.rig, simulated_rig.rigs


class Producer:
    """Another library, which writes pictures in a stream of its own."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.stream = rig.cuda.stream()
        # So late that who does not wait for it is always the first.
        rig.gpu.find(self.stream, Stream).delay = 0.005
        self.event = rig.cuda.event()

    def write(self, picture: np.ndarray) -> "Produced":
        """Begin to; it is done when the stream gets there."""
        pinned = self.rig.cuda.pinned(picture.nbytes)
        ctypes.memmove(pinned, picture.ctypes.data, picture.nbytes)
        memory = cuda_module.DeviceMemory(self.rig.cuda, picture.nbytes)
        self.rig.cuda.copy_in(memory.address, ctypes.addressof(pinned), picture.nbytes, self.stream)
        return Produced(self, memory, pinned, picture.shape, picture.dtype)

    def close(self) -> None:
        self.rig.cuda.release("cudaEventDestroy", self.event)
        self.rig.cuda.release("cudaStreamDestroy", self.stream)


class Produced:
    def __init__(self, by: Producer, memory: Any, pinned: Any, shape: Any, dtype: Any) -> None:
        self.by, self.memory, self.pinned = by, memory, pinned
        self.shape, self.dtype = shape, dtype
        self.strides: tuple[int, ...] | None = None
        self.place = (2, 0)
        self.asked: list[int] = []

    def interface(self, *, stream: int | None = -1) -> "Interface":
        facts = {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.memory.address, False),
            "strides": self.strides,
            "version": 3,
            "stream": int(self.by.stream) if stream == -1 else stream,
        }
        return Interface(self, facts)


class Interface:
    """What offers __cuda_array_interface__ alone, as Numba's arrays do."""

    def __init__(self, owner: Produced, facts: dict[str, Any]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = facts


class Exchanged:
    """What offers DLPack: a real capsule, of a NumPy array that lies in the device's memory."""

    def __init__(self, owner: Produced, place: tuple[int, int] = (2, 0), step: int = 1) -> None:
        self.owner, self.place = owner, place
        size = int(np.prod(owner.shape)) * owner.dtype.itemsize
        block = (ctypes.c_ubyte * size).from_address(owner.memory.address)
        block.owner = owner  # so that the capsule keeps the memory, as a real one does
        self.array = np.frombuffer(block, owner.dtype).reshape(owner.shape)[:, ::step]
        self.shape = self.array.shape
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert isinstance(stream, int)
        assert stream > 2  # 0 is forbidden, 1 and 2 are the default streams
        self.streams.append(stream)
        producer = self.owner.by
        producer.rig.cuda.call("cudaEventRecord", producer.event, producer.stream)
        producer.rig.cuda.call("cudaStreamWaitEvent", stream, producer.event, 0)
        return self.array.__dlpack__()


@pytest.fixture
def producer(rig: Rig) -> Iterator[Producer]:
    made = Producer(rig)
    yield made
    made.close()


@pytest.mark.parametrize("skipped", [1, 3, 4])
def test_a_part_of_a_device_picture_is_taken_wherever_it_begins(
    rig: Rig, producer: Producer, skipped: int
) -> None:
    """The library takes addresses that are multiples of 256 alone; 4 rows of 64 samples are one."""
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, (44, 64))
    with rig.open(model) as engine:
        engine.prepare(40, 64)
        with counted(rig) as count:
            written = producer.write(picture)
            part = written.interface()
            facts = part.__cuda_array_interface__
            facts["shape"], facts["data"] = (40, 64), (facts["data"][0] + 64 * skipped, False)
            pending = engine.submit(part)  # type: ignore[arg-type]
            del written, part
            found = pending().to_host(rig.cuda)  # type: ignore[union-attr]
            assert count("bytes within") == (0 if skipped == 4 else 40 * 64)
        wanted = expected(model, [np.ascontiguousarray(picture[skipped : skipped + 40])])[0]
        assert_close(found, wanted)


@pytest.mark.parametrize("way", ["interface", "dlpack"])
@pytest.mark.parametrize(("name", "bits"), [(UPSCALE, 8), (UPSCALE, 10), (STYLE, 8)])
def test_device_pictures_are_read_where_they_are(
    rig: Rig, producer: Producer, way: str, name: str, bits: int
) -> None:
    model = zoo(name)
    pictures = frames(model, 8, SIZES[name], bits)
    with rig.open(model) as engine:
        engine.prepare(*SIZES[name], bits)
        with counted(rig) as count:
            running: list[Callable[[], DeviceArray]] = []
            for turn, picture in enumerate(pictures):
                written = producer.write(picture)
                given: Any = written.interface() if way == "interface" else Exchanged(written)
                running.append(engine.submit(given, bits))  # type: ignore[arg-type]
                # As many as contexts are begun before the host waits for any.
                assert count("cudaEventSynchronize") == max(0, turn + 1 - engine.in_flight)
                # From here on only the engine holds it.
                alive = weakref.ref(written)
                del given, written
            assert alive() is not None
            results = [pending() for pending in running]
            assert count("cudaEventSynchronize") == len(pictures)
            assert alive() is None
            assert count("bytes out") == 0
            assert count("cudaMemcpyAsync") == len(pictures)  # the producer's own
            assert [count(wait) for wait in WAITS] == [0] * len(WAITS)
        assert all(isinstance(result, DeviceArray) for result in results)
        for result, wanted in zip(results, expected(model, pictures, bits), strict=True):
            assert_close(result.to_host(rig.cuda), wanted)


def test_results_on_the_device_use_their_memory_again(rig: Rig, producer: Producer) -> None:
    model = zoo(UPSCALE)
    pictures = frames(model, 12, SIZES[UPSCALE])
    written = [producer.write(picture).interface() for picture in pictures]
    with rig.open(model) as engine:
        for one in written[:6]:
            engine.run(one)  # type: ignore[arg-type]
        with counted(rig) as count:
            kept = engine.run(written[6])  # type: ignore[arg-type]
            for one in written[7:]:
                engine.run(one)  # type: ignore[arg-type]
            assert count("cudaMalloc") <= 1  # for the one that is kept
            assert count("cudaFree") == 0
        # What somebody holds is not written to.
        assert_close(kept.to_host(rig.cuda), expected(model, pictures[6:7])[0])  # type: ignore[attr-defined]


def test_results_go_into_the_next_engine(rig: Rig) -> None:
    """Twice as large, twice: the second reads what the first has left on the device."""
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, (24, 32))
    (once,) = expected(model, [picture])
    with rig.open(model) as first, rig.open(model) as second:
        producer = Producer(rig)
        middle = first.run(producer.write(picture).interface())  # type: ignore[arg-type]
        assert middle.ndim == 2
        result: Any = second.run(middle)
        assert_close(result.to_host(rig.cuda), expected(model, [once])[0])
        producer.close()
        del result, middle
    assert rig.gpu.leaks() == {}


def test_a_picture_that_is_written_already_needs_no_stream(rig: Rig, producer: Producer) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    written = producer.write(picture)
    rig.cuda.call("cudaStreamSynchronize", producer.stream)
    with rig.open(model) as engine, counted(rig) as count:
        result: Any = engine.run(written.interface(stream=None))  # type: ignore[arg-type]
        assert count("cudaStreamWaitEvent") == 0
        assert_close(result.to_host(rig.cuda), expected(model, [picture])[0])


def test_dlpack_goes_before_an_interface_that_may_know_no_streams(rig: Rig, producer: Producer) -> None:
    """PyTorch's arrays offer both; their interface says nothing of the stream that writes them."""
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])

    class Both(Exchanged):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            facts = dict(self.owner.interface().__cuda_array_interface__)
            del facts["stream"]
            return {**facts, "version": 2}

    with rig.open(model) as engine:
        result: Any = engine.run(Both(producer.write(picture)))  # type: ignore[arg-type]
        assert_close(result.to_host(rig.cuda), expected(model, [picture])[0])


def test_what_cannot_be_read_in_place_is_refused(rig: Rig, producer: Producer) -> None:
    luma, style = zoo(UPSCALE), zoo("wave")
    (grey,) = frames(luma, 1, (60, 64))
    (colours,) = frames(style, 1, (60, 64))
    written, coloured = producer.write(grey), producer.write(colours)

    def changed(one: Produced, **facts: Any) -> Any:
        return Interface(one, {**one.interface().__cuda_array_interface__, **facts})

    with rig.open(luma) as on_luma, rig.open(style) as on_style:
        refusals: list[tuple[DeviceEngine, Any, str]] = [
            (on_luma, changed(written, shape=(60, 32), strides=(64, 2)), "strides"),
            (on_luma, changed(written, strides=(1, 60)), "strides"),
            (on_luma, Exchanged(written, step=2), "strides"),
            (on_luma, changed(written, typestr="<u2", shape=(60, 32)), "uint8, not uint16"),
            (on_luma, changed(written, typestr="<f4", shape=(15, 64)), "uint8, not float32"),
            (on_luma, changed(written, typestr="|i1"), "uint8, not int8"),
            (on_luma, changed(coloured), "1-channel"),
            (on_luma, changed(written, shape=(3840,)), "1-channel"),
            (on_style, changed(written), "3-channel"),
            (on_style, changed(coloured, shape=(48, 60, 4)), "3-channel"),
            (on_style, changed(coloured, shape=(59, 64, 3)), "steps of 8"),
            (on_style, changed(coloured, shape=(4, 64, 3)), "not 4x64"),
            (on_luma, Exchanged(written, place=(1, 0)), "DLPack device 1:0"),
            (on_luma, Exchanged(written, place=(2, 1)), "not on CUDA's device 0"),
        ]
        for engine, array, words in refusals:
            with pytest.raises(EngineError, match=words):
                engine.submit(array)
        # Contiguous, though it says so.
        explicit = changed(written, strides=(64, 1))
        result: Any = on_luma.run(explicit)
        assert_close(result.to_host(rig.cuda), expected(luma, [grey])[0])
        # None of this took a context out of use.
        assert_close(on_luma.run(grey), expected(luma, [grey])[0])


def test_device_pictures_that_do_not_fit_are_refused(rig: Rig, producer: Producer) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, (256, 256))
    written = producer.write(picture)
    with rig.open(model) as engine:
        rig.gpu.limit = rig.gpu.used
        with pytest.raises(OutOfMemoryError):
            engine.submit(written.interface())  # type: ignore[arg-type]


def test_a_device_frame_that_fails_says_so_at_its_result(rig: Rig, producer: Producer) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    with rig.open(model) as engine:
        for kind in ("sync", "async"):
            rig.gpu.fail = kind
            pending = engine.submit(producer.write(picture).interface())  # type: ignore[arg-type]
            with pytest.raises(EngineError):
                pending()
        result: Any = engine.run(producer.write(picture).interface())  # type: ignore[arg-type]
        assert_close(result.to_host(rig.cuda), expected(model, [picture])[0])
