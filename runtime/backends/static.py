"""StaticEngine: what all libraries share that compile a graph for one size of frame."""

from abc import abstractmethod
from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np

from ..errors import EngineError
from ..frame import Array
from .base import Engine, Pending, sample_dtype
from .buffers import BufferPool
from .graph import wrap
from .model import Model
from .tiling import Tile, pad_for, tiles, window_size

# One 1080p frame. The widest shipped network needs about 64 bytes a pixel and layer, so a request stays
# near 300 MB; larger frames are cut into tiles that agree with the whole.
MAX_PIXELS = 1920 * 1088

# A clip has one size; a stream that changes size in the middle has two or three.
KEPT_SIZES = 4

Compiled = TypeVar("Compiled")

Key = tuple[int, int, int]
"""Height, width, bits."""


class StaticEngine(Engine, Generic[Compiled]):
    """Compiles per frame size and sample depth, pads to the size multiple, tiles large frames."""

    def __init__(
        self,
        model: Model,
        *,
        backend: str,
        precision: str,
        in_flight: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(model.card, backend=backend, precision=precision, in_flight=in_flight)
        self.notes = model.notes
        self.model = model
        self.max_pixels = max_pixels
        self._compiled: OrderedDict[Key, Compiled] = OrderedDict()
        self._buffers = BufferPool()

    @abstractmethod
    def _compile(self, graph: bytes) -> Compiled:
        """Compile a serialised graph with static shapes. Raises EngineError."""

    @abstractmethod
    def _start(self, compiled: Compiled, image: Array, output: Array) -> Pending:
        """Begin inference of a contiguous picture into `output`, which the pending result returns."""

    @abstractmethod
    def _release(self, compiled: Compiled) -> None:
        """Wait for what is running and free it."""

    def submit(self, image: Array, bits: int = 8) -> Pending:
        card = self.card
        shape = image.shape if card.input_colour == "luma" else image.shape[:2]
        given = 1 if image.ndim == 2 else image.shape[-1]
        if len(shape) != 2 or given != card.input_channels or image.dtype != sample_dtype(bits):
            raise EngineError(
                f"{card.name} takes {card.input_channels}-channel pictures of {sample_dtype(bits)}, "
                f"not {image.shape} of {image.dtype}"
            )
        height, width = shape
        at_least = max(card.min_size, *card.fixed_size) if card.fixed_size else card.min_size
        padded = pad_for(image, multiple=card.size_multiple, at_least=at_least)
        window = card.fixed_size or window_size(
            padded.shape[0],
            padded.shape[1],
            max_pixels=self.max_pixels,
            halo=card.halo,
            multiple=card.size_multiple,
        )
        if window == padded.shape[:2]:
            pending = self._infer(padded, bits)
        else:
            pending = self._infer_tiles(padded, window, bits)
        if padded.shape == image.shape:
            return pending
        return lambda: pending()[: height * card.scale, : width * card.scale]

    def _infer(self, image: Array, bits: int) -> Pending:
        compiled = self._compile_for((image.shape[0], image.shape[1], bits))
        size = [side * self.card.scale for side in image.shape[:2]]
        channels = self.card.output_channels
        output = self._buffers.take(size if channels == 1 else [*size, channels], image.dtype)
        # Libraries read the memory in place; OpenVINO takes none that is read-only.
        return self._start(compiled, np.require(image, requirements=["C", "W"]), output)

    def _infer_tiles(self, image: Array, window: tuple[int, int], bits: int) -> Pending:
        scale = self.card.scale
        height, width = image.shape[:2]
        plan = tiles(height, width, window, halo=self.card.halo, multiple=self.card.size_multiple)
        size = [side * scale for side in image.shape[:2]]
        channels = self.card.output_channels
        result = self._buffers.take(size if channels == 1 else [*size, channels], image.dtype)
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
        height, width, bits = key
        graph = wrap(self.model.proto, self.card, height, width, bits)
        self._compiled[key] = self._compile(graph.SerializeToString())
        return self._compiled[key]

    def close(self) -> None:
        while self._compiled:
            self._release(self._compiled.popitem()[1])
