"""`python -m benchmarks [NAME]...`: measure and write results/NAME.json; all of `NAMES` by default."""

import json
import sys
from importlib import import_module
from pathlib import Path

from .machine import facts

NAMES = (
    "pipeline", "identity", "engines", "quality", "training", "optimisation", "stability", "peers",
    "gpu", "live", "games", "game_stability", "shm",
)  # fmt: skip
RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Run the named benchmarks, or all."""
    chosen = sys.argv[1:] or list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}\n")
        return 2
    for name in chosen:
        try:
            found = import_module(f".{name}", __package__).measure()
        except FileNotFoundError as error:
            sys.stderr.write(f"{name} left out: {error}\n")
            continue
        path = RESULTS / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"machine": facts(), **found}, indent=2) + "\n")
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
