"""The method of Gatys et al. 2016 that Johnson et al. compare with: L-BFGS on the picture itself."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .objectives import StyleObjective


@dataclass(frozen=True, slots=True)
class Optimised:
    """A picture after some iterations."""

    iterations: int
    picture: Tensor
    """(1, 3, H, W) RGB in 0..1."""
    objective: float
    """The sum of the weighted content, style and total-variation terms of `picture`."""
    seconds: float


def optimise(
    photo: Tensor,
    objective: StyleObjective,
    *,
    iterations: int = 500,
    keep: Iterable[int] = (),
    start: Literal["noise", "photo"] = "noise",
    seed: int = 1,
    report: Callable[[int, float], None] | None = None,
) -> list[Optimised]:
    """Minimise the objective's picture terms over the pixels themselves, with L-BFGS.

    `photo` is (1, 3, H, W) RGB in 0..1. Starts from white noise, as Gatys et al. and Johnson et al. do,
    or from the photograph. As in Johnson et al. (section 4.1) pixels are clipped to 0..1 after each
    iteration. Returns the state after each count of `keep` and the last. Raises ValueError when the
    objective is no longer finite.
    """
    wanted = sorted({*keep, iterations})
    draw = torch.Generator().manual_seed(seed)
    first = photo.clone() if start == "photo" else torch.rand(photo.shape, generator=draw)
    picture = first.to(photo.device).requires_grad_()
    content = objective.content(photo)
    # One inner iteration a call, so that pixels can be clipped and time taken between them; the memory
    # of curvature lives on in the optimiser.
    optimizer = torch.optim.LBFGS([picture], max_iter=1, history_size=20, line_search_fn=None)

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.stack(list(objective.picture_terms(picture, photo, content).values())).sum()
        total.backward()
        return total

    found: list[Optimised] = []
    begun = time.monotonic()
    spent = 0.0
    for iteration in range(1, wanted[-1] + 1):
        value = float(torch.as_tensor(optimizer.step(closure)).detach())
        with torch.no_grad():
            picture.clamp_(0.0, 1.0)
        if value != value:
            raise ValueError(f"the objective is no longer finite at iteration {iteration}")
        if report is not None and iteration % 10 == 0:
            report(iteration, value)
        if iteration in wanted:
            spent += time.monotonic() - begun
            value = value_of(objective, picture, photo, content)
            found.append(Optimised(iteration, picture.detach().clone(), value, spent))
            begun = time.monotonic()
    return found


@torch.no_grad()
def value_of(
    objective: StyleObjective, picture: Tensor, photo: Tensor, content: dict[str, Tensor]
) -> float:
    """The objective of a picture (1, 3, H, W), given the features of the photograph it should keep."""
    return float(sum(term for term in objective.picture_terms(picture, photo, content).values()))
