"""`python -m benchmarks [NAME]...`: measure and write results/NAME.json; all of `NAMES` by default.

The documents' tables are then filled from the results; `python -m benchmarks tables` does that alone.
"""

import json
import sys
from importlib import import_module

from . import pages, tables
from .machine import facts

NAMES = (
    "pipeline", "identity", "engines", "quality", "recipes", "training", "optimisation", "stability",
    "peers", "gpu", "live", "games", "game_stability", "shm", "vapoursynth",
)  # fmt: skip


def main() -> int:
    """Run the named benchmarks, or all, and fill the documents' tables."""
    chosen = [name for name in sys.argv[1:] if name != "tables"]
    if len(sys.argv) == 1:
        chosen = list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}, tables\n")
        return 2
    for name in chosen:
        try:
            found = import_module(f".{name}", __package__).measure()
        except FileNotFoundError as error:
            sys.stderr.write(f"{name} left out: {error}\n")
            continue
        path = tables.RESULTS / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"machine": facts(), **found}, indent=2) + "\n")
        sys.stdout.write(f"{path}\n")
    for path in pages.write(tables.table):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
