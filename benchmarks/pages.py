"""Pages of the documents, and the Markdown of what stands in them: tables, lists, figures in words.

A table stands between markers, in README.md and docs/*.md:

    <!-- table NAME -->
    ...
    <!-- end -->
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?<=<!-- table )([a-z0-9-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)

Result = Mapping[str, Any]
"""What a file in results/ holds."""
NOT_MET = "**not met**"


def pages() -> list[Path]:
    """Returns the documents that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str, table: Callable[[str], str]) -> str:
    """Returns a page's text with what `table` gives for each name between its markers."""
    return BLOCK.sub(lambda found: f"{found[1]}{found[2]}{table(found[1])}", text)


def write(table: Callable[[str], str]) -> list[Path]:
    """Fills every page's tables; returns the pages that changed."""
    changed: list[Path] = []
    for path in pages():
        before = path.read_text()
        after = filled(before, table)
        if after != before:
            path.write_text(after)
            changed.append(path)
    return changed


def measured(given: Mapping[str, Result]) -> str:
    """Returns the provenance of figures: machine and day of a single file, and the files."""
    files = ", ".join(f"`benchmarks/results/{name}.json`" for name in given)
    if len(given) > 1:
        return f"*From {files}.*"
    ((name, found),) = given.items()
    machine = found["machine"]
    cpu = re.sub(r"\((R|TM)\)", "", machine["cpu"]).replace(" Processor", "")
    place = f"{machine['cores']} cores of {cpu}, {machine['date']}"
    return f"*{place}; {files} by `python -m benchmarks {name}`.*"


def rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; columns of numbers but for the first are aligned to the right."""
    numbers = [
        all(re.match(r"[-\d]|$", cell) for cell in column) for column in zip(*lines, strict=True)
    ]
    rule = ["---", *("---:" if right else "---" for right in numbers[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def bullets(lines: Sequence[str]) -> str:
    """Returns a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def span(found: Result, digits: int = 1, unit: str = "") -> str:
    """Returns the median, and in brackets the lowest and the highest round."""
    low, high = (f"{found[key]:.{digits}f}" for key in ("lowest", "highest"))
    return f"{found['median']:.{digits}f}{unit} ({low} to {high})"


def percent(part: float) -> str:
    """Returns a part of one in whole per cent."""
    return f"{100 * part:.0f} %"


def met(holds: bool, text: str) -> str:
    """Returns what was asked, marked where it does not hold."""
    return text if holds else f"{text}, {NOT_MET}"


def agreement(db: float) -> str:
    """Returns the parity in dB; results are cut off at 99, which stands for equal pictures."""
    return "equal" if db >= 99 else f"{db:.1f} dB"
