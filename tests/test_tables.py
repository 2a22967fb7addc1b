"""The documents' figures are those of the results: no table is written by hand."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from velatura.runtime.card import read_card
from velatura.runtime.zoo import zoo_models

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import pages, tables  # noqa: E402


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_pages_say_what_the_results_say(page: Path) -> None:
    text = page.read_text()
    assert pages.filled(text, tables.table) == text, "run `python -m benchmarks tables`"


def test_every_table_is_shown_and_every_result_has_one() -> None:
    shown = {name for page in pages.pages() for name, _ in pages.BLOCK.findall(page.read_text())}
    assert shown == set(tables.TABLES)
    results = {path.stem for path in tables.RESULTS.glob("*.json")}
    assert {name for _, *names in tables.TABLES.values() for name in names} == results


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results, which the tables are made from."""
    shutil.copytree(tables.RESULTS, tmp_path / "results")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def change(path: Path, value: Any, *keys: str) -> None:
    whole = json.loads(path.read_text())
    inner = whole
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(whole))


def row(name: str, begin: str) -> list[str]:
    """The cells of the first row that begins so."""
    line = next(line for line in tables.table(name).splitlines() if line.startswith(f"| {begin}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_figure_follows_its_file(results: Path) -> None:
    change(results / "games.json", 12 * 25, "pipelined_60_hz", "pictures", "fresh")
    assert row("games", "new pictures a second at 60 Hz")[1] == "25.0"
    change(results / "shm.json", "2030-01-02", "machine", "date")
    assert "2030-01-02" in tables.table("shm")


def test_the_cost_of_a_stage_that_is_off_has_its_range() -> None:
    text = row("games", "off, at 60 Hz")[1]
    assert re.fullmatch(r"-?[\d.]+ ms \(-?[\d.]+ to -?[\d.]+\)", text)


@pytest.mark.parametrize(("slowest", "marked"), [(1.9, False), (2.1, True)])
def test_what_was_asked_and_missed_is_marked(results: Path, slowest: float, marked: bool) -> None:
    keys = ("pipelined_60_hz", "cost_ms", "on", "busy_p95", "median")
    change(results / "games.json", slowest, *keys)
    begin = "`pipelined` at 60 Hz: what it adds to a frame's work, its slowest"
    assert (pages.NOT_MET in row("games", begin)[2]) is marked
    aim = "what `pipelined` adds to the slowest twentieth"
    assert (row("aims", aim)[-1] == pages.NOT_MET) is marked


def test_the_whole_latency_stands_beside_the_settled_one() -> None:
    given = json.loads((tables.RESULTS / "live.json").read_text())["pressed"]
    outcome = row("live", "60 fps")[1]
    assert f"p99 {given['latency']['p99_ms']:.1f} ms" in outcome
    assert f"{given['p99_after_3_s_ms']:.1f} without the first 3 s" in outcome


def test_text_around_tables_is_kept() -> None:
    text = "before\n\n<!-- table shm -->\nold\n<!-- end -->\n\nafter\n"
    found = pages.filled(text, tables.table)
    assert found.startswith("before\n\n<!-- table shm -->\n| shared memory")
    assert found.endswith("\n<!-- end -->\n\nafter\n")
    assert pages.filled(found, tables.table) == found


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        pages.filled("<!-- table nonsense -->\n<!-- end -->\n", tables.table)


def test_recipes_cost_what_was_counted() -> None:
    from benchmarks import recipes

    kept = json.loads((tables.RESULTS / "recipes.json").read_text())
    assert recipes.measure()["recipes"] == kept["recipes"], "run `python -m benchmarks recipes`"


def test_quality_is_that_of_the_shipped_models() -> None:
    kept = json.loads((tables.RESULTS / "quality.json").read_text())["models"]
    assert set(kept) == set(zoo_models())
    for name, variants in zoo_models().items():
        card = read_card(onnx.load(str(variants["fp32"])))
        assert card is not None
        found = (kept[name]["training"], kept[name]["card"])
        assert found == (card.training, card.measures), "run `python -m benchmarks quality`"
