"""A sink that counts frames and drops them: for measuring, and for trying out a model's speed."""

from ..frame import Frame
from .base import Sink


class NullSink(Sink):
    """Keeps nothing."""

    uri = "null:"

    def write(self, frame: Frame) -> None:
        del frame
        self.frames += 1

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None
