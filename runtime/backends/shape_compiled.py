"""The base of engines that compile a graph for one size of frame: padding, tiles, kept programs."""

from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np

from ..buffers import BufferPool, Take
from ..errors import EngineError, OutOfMemoryError
from ..frame import Array
from .base import Engine, Fit, Model, Pending, sample_dtype
from .graph import io_shape


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the input, and the part of its result that is valid."""

    top: int
    left: int
    keep_top: int
    """The first row of the frame that is taken from this tile."""
    keep_left: int
    keep_bottom: int
    """The row after the last one of the frame that is taken from this tile."""
    keep_right: int


def pad_for(
    image: Array,
    *,
    multiple: int,
    at_least: tuple[int, int] = (1, 1),
    take: Take = np.empty,
) -> Array:
    """Returns the picture extended below and to the right to a multiple and a minimum, by reflection
    without the edge pixel.

    Pictures narrower than the padding repeat their edge instead, since they have too little to reflect.
    `take` gives memory for the result.
    """
    sizes = [int(side) for side in image.shape[:2]]
    pads = [
        max(size, least) + -max(size, least) % multiple - size
        for size, least in zip(sizes, at_least, strict=True)
    ]
    for mode, narrow in ((cv2.BORDER_REFLECT_101, False), (cv2.BORDER_REPLICATE, True)):
        below, right = (
            pad if (pad >= size) is narrow else 0 for pad, size in zip(pads, sizes, strict=True)
        )
        if below or right:
            shape = (image.shape[0] + below, image.shape[1] + right, *image.shape[2:])
            whole = take(shape, image.dtype)
            source = np.ascontiguousarray(image)
            image = np.asarray(cv2.copyMakeBorder(source, 0, below, 0, right, mode, whole))
    return image


def window_size(
    height: int, width: int, *, max_pixels: int, halo: int, multiple: int
) -> tuple[int, int]:
    """Returns the size of tiles for a frame: all of it where it has at most `max_pixels`.

    Otherwise the split that costs the least work, halos counted, of those that fit. Sizes are multiples
    of `multiple`, and so must `height` and `width` be.
    """
    if height * width <= max_pixels:
        return height, width
    smallest = 2 * halo + multiple
    smallest += -smallest % multiple
    options: list[tuple[int, int, int]] = []
    for rows in range(1, 65):
        high = _window(height, rows, halo, multiple)
        for columns in range(1, 65):
            wide = _window(width, columns, halo, multiple)
            if high * wide <= max_pixels:
                options.append((rows * columns * high * wide, high, wide))
                break
    if not options:
        # The halo alone fills the budget: the smallest window that makes progress.
        return min(height, smallest), min(width, smallest)
    _, high, wide = min(options)
    return high, wide


def _window(size: int, parts: int, halo: int, multiple: int) -> int:
    """Returns the length of one of `parts` windows that cover `size` with a halo at every inner cut."""
    if parts == 1:
        return size
    # The first and the last window have one inner cut, the others two.
    core = max(-(-(size - 2 * halo) // parts), multiple)
    need = core + -core % multiple + 2 * halo
    return min(size, need + -need % multiple)


def tiles(height: int, width: int, window: tuple[int, int], *, halo: int, multiple: int) -> list[Tile]:
    """Returns windows of one size that cover a frame; kept pixels are `halo` from inner window
    edges."""
    rows = _spans(height, window[0], halo, multiple)
    columns = _spans(width, window[1], halo, multiple)
    return [
        Tile(top, left, keep_top, keep_left, keep_bottom, keep_right)
        for top, keep_top, keep_bottom in rows
        for left, keep_left, keep_right in columns
    ]


def _spans(size: int, window: int, halo: int, multiple: int) -> list[tuple[int, int, int]]:
    """Returns (start, first kept, one past last kept) along one axis."""
    if window >= size:
        return [(0, 0, size)]
    spans: list[tuple[int, int, int]] = []
    kept = start = 0
    # Starts lie on the size multiple, so that strided layers see the phase they see in the whole frame.
    step = max((window - 2 * halo) // multiple * multiple, multiple)
    while True:
        last = start + window >= size
        start = size - window if last else start
        end = size if last else start + window - halo
        spans.append((start, kept, end))
        if last:
            return spans
        kept, start = end, start + step


# One 1080p frame. The widest shipped network needs about 64 bytes a pixel and layer, so a request stays
# near 300 MB; larger frames are cut into tiles that agree with the whole.
MAX_PIXELS = 1920 * 1088

# A clip has one size; a stream that changes size in the middle has two or three.
KEPT_SIZES = 4

LEAST_PIXELS = 256 * 256
"""The smallest tile that is tried when memory runs out: a device without memory for it can run
nothing."""

Compiled = TypeVar("Compiled")

Key = tuple[int, int, int]
"""Height, width and bits per sample."""


class StaticEngine(Engine, Generic[Compiled]):
    """Compiles per frame size and sample depth, pads to the size multiple, tiles large frames."""

    def __init__(
        self,
        model: Model,
        *,
        backend: str,
        precision: str,
        in_flight: int,
        fit: Fit = "tile",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(model.card, backend=backend, precision=precision, in_flight=in_flight)
        self.notes = model.notes
        self.model = model
        self.fit: Fit = fit
        self._channels = model.card.input_channels, model.card.output_channels
        self._shapes: dict[tuple[int, int], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self.max_pixels = max_pixels
        self._compiled: OrderedDict[Key, Compiled] = OrderedDict()
        self._buffers = BufferPool()

    @abstractmethod
    def _compile(self, key: Key) -> Compiled:
        """Compile for one size and depth. Raises EngineError; OutOfMemoryError asks for less."""

    @abstractmethod
    def _start(self, compiled: Compiled, image: Array, output: Array) -> Pending:
        """Begin inference of a contiguous picture into `output`, which the pending result returns."""

    def _io_shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of the graph's input and output for a picture of that size."""
        found = self._shapes.get((height, width))
        if found is None:
            result = io_shape(self.card, height, width, output=True)
            found = self._shapes[height, width] = io_shape(self.card, height, width), result
        return found

    @abstractmethod
    def _release(self, compiled: Compiled) -> None:
        """Wait for what is running and free it."""

    def submit(self, image: Array, bits: int = 8) -> Pending:
        card = self.card
        shape = image.shape if card.input_colour == "luma" else image.shape[:2]
        given = 1 if image.ndim == 2 else image.shape[-1]
        if len(shape) != 2 or given != self._channels[0] or image.dtype != sample_dtype(bits):
            raise EngineError(
                f"{card.name} takes {self._channels[0]}-channel pictures of {sample_dtype(bits)}, "
                f"not {image.shape} of {image.dtype}"
            )
        height, width = shape
        if card.fixed_size and self.fit == "resize":
            return self._infer_resized(image, card.fixed_size, bits)
        padded = pad_for(
            image,
            multiple=card.size_multiple,
            at_least=self._smallest(),
            take=self._buffers.take,
        )
        window = self._window(padded.shape[0], padded.shape[1], bits)
        if window == padded.shape[:2]:
            pending = self._infer(padded, bits)
        else:
            pending = self._infer_tiles(padded, window, bits)
        if padded.shape == image.shape:
            return pending
        return lambda: pending()[: height * card.scale, : width * card.scale]

    def prepare(self, height: int, width: int, bits: int = 8) -> None:
        if self.card.fixed_size and self.fit == "resize":
            self._compile_for((*self.card.fixed_size, bits))
            return
        least, step = self._smallest(), self.card.size_multiple
        high, wide = max(height, least[0]), max(width, least[1])
        self._window(high + -high % step, wide + -wide % step, bits)

    def _smallest(self) -> tuple[int, int]:
        return self.card.fixed_size or (self.card.min_size, self.card.min_size)

    def _window(self, height: int, width: int, bits: int) -> tuple[int, int]:
        """Returns the size to compile for, already compiled: the whole frame, or of tiles where that is
        too large."""
        while True:
            window = self.card.fixed_size or window_size(
                height,
                width,
                max_pixels=self.max_pixels,
                halo=self.card.halo,
                multiple=self.card.size_multiple,
            )
            try:
                self._compile_for((*window, bits))
            except OutOfMemoryError as error:
                if self.card.fixed_size or window[0] * window[1] <= LEAST_PIXELS:
                    raise
                self._free()
                self.max_pixels = window[0] * window[1] // 2
                self.notes = (*self.notes, f"{error}; frames of {width}x{height} are cut into tiles")
            else:
                return window

    def _infer(self, image: Array, bits: int) -> Pending:
        compiled = self._compile_for((image.shape[0], image.shape[1], bits))
        output = self._take_output(image.shape[0], image.shape[1], image.dtype)
        if not (image.flags.c_contiguous and image.flags.writeable):
            # Libraries read the memory in place; OpenVINO takes none that is read-only.
            whole = self._buffers.take(image.shape, image.dtype)
            np.copyto(whole, image)
            image = whole
        return self._start(compiled, image, output)

    def _take_output(self, height: int, width: int, dtype: np.dtype[Any]) -> Array:
        """Returns memory for the result of an input of that size."""
        size = [height * self.card.scale, width * self.card.scale]
        channels = self._channels[1]
        return self._buffers.take(size if channels == 1 else [*size, channels], dtype)

    def _infer_resized(self, image: Array, fixed: tuple[int, int], bits: int) -> Pending:
        """Runs the picture through the model's one size and back: the model sees all of it, at a cost
        in detail."""
        size = (image.shape[1] * self.card.scale, image.shape[0] * self.card.scale)
        small = image
        if image.shape[:2] != fixed:
            small = self._buffers.take((*fixed, *image.shape[2:]), image.dtype)
            shrinks = image.shape[0] > fixed[0] or image.shape[1] > fixed[1]
            flags = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            cv2.resize(np.ascontiguousarray(image), fixed[::-1], dst=small, interpolation=flags)
        pending = self._infer(small, bits)

        def enlarge() -> Array:
            result = pending()
            if (result.shape[1], result.shape[0]) == size:
                return result
            large = self._buffers.take((*size[::-1], *result.shape[2:]), result.dtype)
            cv2.resize(result, size, dst=large, interpolation=cv2.INTER_CUBIC)
            # Bicubic overshoots at edges, beyond the peak of samples that do not fill their type.
            return large if bits in (8, 16) else np.minimum(large, (1 << bits) - 1, out=large)

        return enlarge

    def _infer_tiles(self, image: Array, window: tuple[int, int], bits: int) -> Pending:
        scale = self.card.scale
        height, width = image.shape[:2]
        plan = tiles(height, width, window, halo=self.card.halo, multiple=self.card.size_multiple)
        result = self._take_output(height, width, image.dtype)
        running: list[tuple[Tile, Pending]] = []

        def collect() -> None:
            tile, pending = running.pop(0)
            part = pending()
            rows = slice((tile.keep_top - tile.top) * scale, (tile.keep_bottom - tile.top) * scale)
            columns = slice((tile.keep_left - tile.left) * scale, (tile.keep_right - tile.left) * scale)
            result[
                tile.keep_top * scale : tile.keep_bottom * scale,
                tile.keep_left * scale : tile.keep_right * scale,
            ] = part[rows, columns]

        for tile in plan:
            if len(running) >= self.in_flight:
                collect()
            part = image[tile.top : tile.top + window[0], tile.left : tile.left + window[1]]
            running.append((tile, self._infer(part, bits)))

        def finish() -> Array:
            while running:
                collect()
            return result

        return finish

    def _compile_for(self, key: Key) -> Compiled:
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        while len(self._compiled) >= KEPT_SIZES:
            self._release(self._compiled.popitem(last=False)[1])
        self._compiled[key] = self._compile(key)
        return self._compiled[key]

    def _free(self) -> None:
        while self._compiled:
            self._release(self._compiled.popitem()[1])

    def close(self) -> None:
        self._free()
