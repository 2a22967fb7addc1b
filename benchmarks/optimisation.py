"""The paper's comparison: one forward pass against 100 to 500 iterations of L-BFGS on the picture."""

import time
from statistics import median
from typing import Any

import torch
from velatura.export.evaluate import style_objective, to_image
from velatura.export.verify import runner
from velatura.runtime import open_engine
from velatura.training.data import read_image
from velatura.training.device import keep_freed_memory
from velatura.training.metrics.vgg_distance import to_tensor
from velatura.training.objectives import StyleObjective, centre_square
from velatura.training.optimize import optimise, value_of

from .quality import ROOT

MODEL = "starry-night"
PICTURES = 10
ITERATIONS = (50, 100, 300, 500)
# All ten photographs to 100 iterations at 256; further and larger on fewer: 512 takes long.
PLAN = {256: {"all": 100, "longer": 1}, 512: {"all": 0, "longer": 1}}


def measure() -> dict[str, Any]:
    """Objective after so many iterations, the network's, and the ratios of objectives and of times."""
    keep_freed_memory()
    paths = sorted((ROOT / "eval" / "kodak24").glob("*.png"))[:PICTURES]
    if not paths:
        raise FileNotFoundError(f"no pictures in {ROOT / 'eval' / 'kodak24'}")
    objective = style_objective(MODEL, ROOT)
    found: dict[str, Any] = {"model": MODEL, "threads": torch.get_num_threads()}
    for side, plan in PLAN.items():
        rows = []
        for number, path in enumerate(paths):
            longest = max(ITERATIONS) if number < plan["longer"] else plan["all"]
            if longest:
                rows.append(compare(objective, centre_square(read_image(path), side), longest))
                rows[-1]["picture"] = path.name
        found[str(side)] = {"pictures": rows, **summary(rows)}
    return found


def compare(objective: StyleObjective, photo: torch.Tensor, longest: int) -> dict[str, Any]:
    """One photograph: the network's objective and time, and the optimisation's on the way."""
    content = objective.content(photo)
    with open_engine(MODEL, precision="fp32", hint="latency") as engine:
        image = to_image(photo)
        output = runner(engine)(image)
        times = []
        for _ in range(9):
            start = time.perf_counter()
            runner(engine)(image)
            times.append(time.perf_counter() - start)
    done = optimise(
        photo, objective, iterations=longest, keep=[n for n in ITERATIONS if n < longest], start="noise"
    )
    return {
        "photograph": round(value_of(objective, photo, photo, content), 4),
        "network": round(value_of(objective, to_tensor(output), photo, content), 4),
        "network_seconds": round(median(times), 5),
        "optimised": {str(d.iterations): round(d.objective, 4) for d in done},
        "optimised_seconds": {str(d.iterations): round(d.seconds, 2) for d in done},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the pictures that went so far, with the spread."""
    found: dict[str, Any] = {}
    for count in map(str, ITERATIONS):
        reached = [row for row in rows if count in row["optimised"]]
        if reached:
            ratios = sorted(row["network"] / row["optimised"][count] for row in reached)
            speeds = [row["optimised_seconds"][count] / row["network_seconds"] for row in reached]
            found[f"after_{count}"] = {
                "pictures": len(reached),
                "network_over_optimised": round(median(ratios), 3),
                "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
                "times_faster": round(median(speeds)),
            }
    return found
