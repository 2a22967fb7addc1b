"""Neural: the stage that applies an engine to frames."""

from collections.abc import Callable
from dataclasses import replace

from ..backends import Engine
from ..buffers import BufferPool
from ..colour import resample_chroma, resize_plane, to_rgb, to_yuv
from ..frame import Array, Frame, PixelFormat


class Neural:
    """Runs a model on every frame.

    Luma models get the Y plane as it is coded and never see RGB: chroma is resampled to the new size
    beside them. RGB models get and give full-range RGB at the frame's own depth. No model sees the
    opacity: it is resampled beside it, too. The stage does not close its engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.in_flight = engine.in_flight
        self._buffers = BufferPool()

    def __call__(self, frame: Frame) -> Frame:
        return self.submit(frame)()

    def submit(self, frame: Frame) -> Callable[[], Frame]:
        """Starts inference; the returned function waits for it and returns the new frame."""
        if self.engine.card.input_colour == "luma":
            return self._submit_luma(frame)
        rgb = to_rgb(frame, self._buffers.take)
        pending = self.engine.submit(rgb.planes[0], rgb.format.bits)
        alpha = self._alpha(rgb)
        return lambda: _with_alpha(rgb.with_planes((pending(),), rgb.format), alpha)

    def _submit_luma(self, frame: Frame) -> Callable[[], Frame]:
        scale = self.engine.card.scale
        colour = frame.colour
        if frame.format.family == "rgb":
            # Full chroma of the small picture is what 4:2:0 of the doubled one holds: nothing is lost.
            frame = to_yuv(frame, PixelFormat("yuv", frame.format.bits, (1, 1)))
            small = frame.format
            format = replace(small, subsample=(2, 2) if scale > 1 else (1, 1))
        else:
            format = frame.format
        pending = self.engine.submit(frame.planes[0], frame.format.bits)
        size = (frame.width * scale, frame.height * scale)
        chroma: tuple[Array, ...] = ()
        if format.family == "yuv":
            # Runs while the engine works.
            chroma = resample_chroma(frame, format, size, colour.siting, self._buffers.take)
        alpha = self._alpha(frame)
        return lambda: _with_alpha(frame.with_planes((pending(), *chroma), format, colour), alpha)

    def _alpha(self, frame: Frame) -> Array | None:
        """Returns the opacity at the model's scale."""
        if frame.alpha is None:
            return None
        scale = self.engine.card.scale
        size = (frame.width * scale, frame.height * scale)
        return resize_plane(frame.alpha, size, frame.format, self._buffers.take)


def _with_alpha(frame: Frame, alpha: Array | None) -> Frame:
    return frame if alpha is None else replace(frame, alpha=alpha)
