"""The identity: frames pass through bit for bit, to measure and test everything around a model."""

from ..card import ModelCard
from ..errors import EngineError
from ..frame import Array
from .base import Engine, Pending

NAME = "identity"

CARD = ModelCard(
    name="identity",
    task="style",
    title="Passes frames through unchanged",
    input_colour="luma",
    output_colour="luma",
    dtype="uint8",
    halo=0,
    licence="Apache-2.0",
)


class IdentityEngine(Engine):
    """Returns the picture that it was given."""

    def __init__(self) -> None:
        super().__init__(CARD, backend=NAME, precision="exact", in_flight=1)

    def submit(self, image: Array, bits: int = 8) -> Pending:
        del bits
        if image.ndim != 2:
            raise EngineError(f"identity takes luma (H, W), not {image.shape}")
        return lambda: image

    def close(self) -> None:
        return None
