"""The frame pacing report: statistics worked out by hand, a loop with a made-up clock, the command."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.benchmarks.game import report as bench_game
from velatura.benchmarks.game.pacing import (
    DEFINITIONS,
    Account,
    Bare,
    Block,
    Pacing,
    Pass,
    cost,
    low,
    percentiles,
    play,
    stutters,
)
from velatura.benchmarks.game.report import LOOPS, GameJob, interleave, report_of, rows_of, run_game
from velatura.benchmarks.game.scene import WIDE, Mark, Picture, Pixels, Scene
from velatura.runtime.errors import SinkError
from velatura.runtime.jobs import bench
from velatura.runtime.jobs.bench import BenchJob, run_bench

from .. import commands

PERIOD = 1 / 50


def block(
    start: Sequence[float],
    shown: Sequence[float],
    *,
    seen: Sequence[int] | None = None,
    busy: Sequence[float] | None = None,
    skip: int = 1,
) -> Block:
    """Of hand-made times; each picture is of its own frame and takes a millisecond, unless told."""
    count = len(start)
    took = np.array(busy if busy is not None else [0.001] * count)
    numbers = np.array(seen if seen is not None else range(count))
    return Block(
        period=PERIOD,
        skip=skip,
        start=np.array(start, float),
        end=np.array(start, float) + took,
        call=took / 4,
        own=took / 2,
        shown=np.array(shown, float),
        seen=numbers,
        simulated=np.array(start, float)[numbers],
        read=np.ones(count, bool),
        kinds=("fresh",) * count,
        rungs=("full",) * count,
    )


def steady(count: int, *, late: float = 0.0) -> tuple[list[float], list[float]]:
    """Frames at the rate, each simulated one period, and so much, before it is shown."""
    return [n * PERIOD - late for n in range(count)], [(n + 1) * PERIOD for n in range(count)]


class TestStatistics:
    def test_percentiles_are_interpolated(self) -> None:
        found = percentiles(np.arange(1, 102) / 1e3)  # 1..101 ms
        assert found == pytest.approx(
            {"mean": 51, "p50": 51, "p95": 96, "p99": 100, "p999": 100.9, "max": 101}
        )

    def test_lows_are_the_rate_of_the_mean_of_the_slowest(self) -> None:
        # Of 200 frames the slowest hundredth are two: 30 and 50 ms, so 40 ms on average.
        times = np.array([0.010] * 198 + [0.030, 0.050])
        assert low(times, 0.01) == pytest.approx(25)
        assert low(times, 0.001) == pytest.approx(20)
        # A part of a frame counts as one more: 201 frames have three slowest ones.
        assert low(np.append(times, 0.010), 0.01) == pytest.approx(3 / 0.090)

    def test_a_stutter_stands_longer_than_what_was_usual_before(self) -> None:
        assert stutters(np.array([0.02] * 10 + [0.04] + [0.02] * 10)) == 1
        assert stutters(np.array([0.02] * 10 + [0.029] * 10)) == 0
        # A game that settles at half the rate stutters until that is the usual.
        assert stutters(np.array([0.02] * 10 + [0.04] * 100)) == 10

    @given(st.lists(st.floats(0.001, 1), min_size=2, max_size=50))
    def test_lows_never_exceed_the_mean_rate(self, times: list[float]) -> None:
        values = np.array(times)
        assert low(values, 0.001) <= low(values, 0.01) + 1e-9
        assert low(values, 0.01) <= 1 / values.mean() + 1e-9


class TestAnimationError:
    @pytest.mark.parametrize("behind", [0, 1, 3])
    def test_a_constant_offset_has_none(self, behind: int) -> None:
        start, shown = steady(12, late=0.003)
        one = block(start, shown, seen=[max(0, n - behind) for n in range(12)], skip=behind + 1)
        assert one.animation_errors == pytest.approx(np.zeros(12 - one.skip), abs=1e-12)
        assert set(one.behind) == {behind}
        assert one.latency == pytest.approx(np.full(12 - one.skip, (1 + behind) * PERIOD + 0.003))

    def test_a_repeated_frame_has_a_period_and_so_has_the_jump_after_it(self) -> None:
        start, shown = steady(6)
        one = block(start, shown, seen=[0, 1, 2, 2, 4, 5])
        assert one.animation_errors == pytest.approx([0, 0, PERIOD, PERIOD, 0])

    def test_a_missed_refresh_has_its_error_a_frame_later(self) -> None:
        # Frame 2 takes two refreshes: frame 3 simulates a step of two, and is shown after one.
        start = [0, 1, 2, 4, 5]
        shown = [1, 2, 4, 5, 6]
        one = block([n * PERIOD for n in start], [n * PERIOD for n in shown])
        assert one.animation_errors == pytest.approx([0, PERIOD, PERIOD, 0])
        assert one.missed == 1

    def test_a_game_that_wakes_late_moves_unevenly_though_every_refresh_is_met(self) -> None:
        start, shown = steady(5)
        start[2] += 0.004
        one = block(start, shown)
        assert one.missed == 0
        assert one.animation_errors == pytest.approx([0, 0.004, 0.004, 0])
        assert one.frame_times == pytest.approx([PERIOD, PERIOD + 0.004, PERIOD - 0.004, PERIOD])


class TestCost:
    def test_each_round_is_compared_with_its_own(self) -> None:
        start, shown = steady(5)
        without = [block(start, shown, busy=[took] * 5) for took in (0.001, 0.005, 0.002)]
        stage = [block(start, shown, busy=[took] * 5) for took in (0.002, 0.007, 0.003)]
        found = cost(stage, without)
        assert found["busy_p50"] == {"median": 1.0, "lowest": 1.0, "highest": 2.0}
        assert found["own_p50"] == {"median": 0.5, "lowest": 0.5, "highest": 1.0}
        assert found["call_p50"] == {"median": 0.25, "lowest": 0.25, "highest": 0.5}
        assert found["rounds"] == 3

    def test_frames_at_the_beginning_do_not_count(self) -> None:
        start, shown = steady(5)
        one = block(start, shown, busy=[9, 9, 0.001, 0.002, 0.003], skip=2)
        figures = Pacing((one,)).to_json()
        assert figures["busy_ms"]["max"] == 3
        assert figures["frames"] == 3


class FakeClock:
    """Time passes where it is waited for, and where somebody is at work."""

    def __init__(self) -> None:
        self.time = 100.0
        self.spent = 0.0

    def now(self) -> float:
        return self.time

    def own(self) -> float:
        return self.spent

    def wait(self, until: float) -> None:
        self.time = max(self.time, until)

    def work(self, seconds: float) -> None:
        self.time += seconds
        self.spent += seconds


class FakeStage(Pass):
    """Shows the picture of some calls before, brightened, after some work."""

    def __init__(self, clock: FakeClock, *, behind: int = 0, work: float = 0.0) -> None:
        self.clock, self.delay, self.work = clock, behind, work
        self.off = False
        self.long: dict[int, float] = {}
        self.calls = 0
        self.kept: list[Pixels] = []

    def __call__(self, picture: Picture) -> Pixels:
        if self.off:
            return picture.color
        self.clock.work(self.long.get(self.calls, self.work))
        self.calls += 1
        self.kept = [*self.kept, picture.color // 2 + 60][-self.delay - 1 :]
        return self.kept[0]

    def account(self) -> Account:
        if self.off:
            return Account(0, "passed", "off")
        return Account(self.delay, "fresh", "full")


class TestLoop:
    def play(self, stage: Pass, clock: FakeClock, *, seconds: float = 0.4) -> Block:
        scene = Scene(320, 180)
        return play(scene, stage, skip=3, seconds=seconds, period=PERIOD, clock=clock)

    def test_a_picture_is_shown_by_each_refresh_in_time(self) -> None:
        clock = FakeClock()
        one = self.play(FakeStage(clock, work=0.005), clock)
        assert one.start == pytest.approx(np.arange(23) * PERIOD)
        assert one.shown == pytest.approx(np.arange(1, 24) * PERIOD)
        assert one.busy == pytest.approx(np.full(20, 0.005))
        assert one.spent("own") == pytest.approx(np.full(20, 0.005))
        assert one.call == pytest.approx(np.full(23, 0.005))
        assert one.missed == 0
        assert clock.time == pytest.approx(100 + 23 * PERIOD)

    def test_work_that_is_too_long_misses_refreshes(self) -> None:
        clock = FakeClock()
        stage = FakeStage(clock, work=0.005)
        stage.long = {6: 2.5 * PERIOD}
        one = self.play(stage, clock)
        assert one.missed == 2
        assert one.stood == pytest.approx([PERIOD] * 3 + [3 * PERIOD] + [PERIOD] * 14)
        assert sorted(one.animation_errors)[-2:] == pytest.approx([2 * PERIOD] * 2)

    def test_a_loop_that_is_always_slow_ends_in_its_time(self) -> None:
        clock = FakeClock()
        one = self.play(FakeStage(clock, work=3.5 * PERIOD), clock, seconds=0.8)
        assert len(one.busy) == 10
        assert one.frame_times == pytest.approx(np.full(10, 4 * PERIOD))

    @pytest.mark.parametrize("behind", [0, 1, 2])
    def test_the_latency_is_read_from_the_pictures(self, behind: int) -> None:
        clock = FakeClock()
        stage = FakeStage(clock, behind=behind)
        one = self.play(stage, clock)
        assert one.read.all()
        assert set(one.behind) == {behind}
        # And it is not the stage's word that is taken.
        lying = FakeStage(clock, behind=behind)
        lying.account = lambda: Account(5, "fresh", "full")  # type: ignore[method-assign]
        assert set(self.play(lying, clock).behind) == {behind}

    def test_where_nothing_can_be_read_the_stage_is_asked(self) -> None:
        class Black(FakeStage):
            def __call__(self, picture: Picture) -> Pixels:
                return np.zeros_like(super().__call__(picture))

        clock = FakeClock()
        one = self.play(Black(clock, behind=1), clock)
        assert not one.read.any()
        assert set(one.behind) == {1}

    def test_without_a_stage_what_is_drawn_is_seen(self) -> None:
        one = self.play(Bare(), FakeClock())
        assert set(one.behind) == {0}
        assert not one.busy.any()

    def test_the_loops_take_turns_and_see_the_same(self) -> None:
        clock = FakeClock()
        stage = FakeStage(clock, behind=1, work=0.004)
        job = GameJob(models=("none",), size=(90, 160), rate=50, seconds=1.2)
        order: list[str] = []
        loops = interleave(job, Scene(160, 90), stage, stage, clock, order.append)
        turns = [line.split(": ")[1] for line in order if line.startswith("round")]
        assert turns == ["without", "off", "on", "off", "on", "without"]
        report = report_of(job, loops)
        assert [report[name]["frames"] for name in LOOPS] == [60, 60, 60]
        assert report["cost_ms"]["on"]["busy_p50"] == {"median": 4.0, "lowest": 4.0, "highest": 4.0}
        assert report["cost_ms"]["off"]["busy_p50"] == {"median": 0.0, "lowest": 0.0, "highest": 0.0}
        assert report["added_latency"] == {"frames": 1.0, "ms": 20.0}
        assert report["pictures"] == {"fresh": 60, "carried": 0, "repeated": 0, "passed": 0}
        assert report["rungs"] == {"full": 60}
        assert not stage.off
        json.dumps(report)


class TestScene:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(160, 400), st.integers(90, 300), st.integers(1, 3))
    def test_every_frame_is_read_from_its_picture(self, width: int, height: int, scale: int) -> None:
        scene = Scene(width, height)
        read = 0
        for n in range(2 * scene.mark.places + 3):
            color = scene.draw(n / 60).color
            large = np.repeat(np.repeat(color, scale, 0), scale, 1)
            for picture in (large, 255 - large):
                found = scene.mark.frame_of(scene.mark.strip_of(picture), n)
                assert found in (n, None)
                read += found == n
        # All but when the bar has just come back.
        assert read == 2 * (2 * scene.mark.places + 3 - WIDE - 3)

    def test_frames_before_are_told_apart(self) -> None:
        scene = Scene(640, 360)
        strips = [scene.mark.strip_of(scene.draw(n / 60).color) for n in range(100)]
        for behind in (0, 1, 7, 35):
            assert scene.mark.frame_of(strips[99 - behind], 99) == 99 - behind

    def test_a_bar_that_was_moved_too_far_is_ahead(self) -> None:
        scene = Scene(640, 360)
        strips = [scene.mark.strip_of(scene.draw(n / 60).color) for n in range(100)]
        assert scene.mark.frame_of(strips[99], 96) == 99

    def test_no_bar_is_no_frame(self) -> None:
        mark = Mark.of(640, 360)
        assert mark.frame_of(np.full(640, 90, np.float32), 5) is None

    def test_what_trails_behind_the_bar_is_not_read(self) -> None:
        scene = Scene(640, 360)
        scene.begin()
        for n in range(20):
            picture = scene.draw(n / 60).color
        trailing = picture.copy()
        columns = scene.mark.columns(19)
        trailing[scene.mark.rows, columns.start - 15 : columns.start] = picture[
            scene.mark.rows, columns
        ][:, :15]
        assert scene.mark.frame_of(scene.mark.strip_of(trailing), 19) == 19

    def test_motion_and_depth_are_true(self) -> None:
        scene = Scene(320, 200)
        before = scene.draw(1.0)
        assert before.reset
        old_color, old_depth = before.color[..., :3].astype(float), before.depth.copy()
        now = scene.draw(1.0 + 1 / 60)
        assert not now.reset
        y, x = np.mgrid[:200, :320]
        was_x, was_y = (
            np.rint(part).astype(int) for part in (x + now.motion[..., 0], y + now.motion[..., 1])
        )
        inside = (was_x >= 0) & (was_x < 320) & (was_y >= 0) & (was_y < 200)
        was_x, was_y = was_x.clip(0, 319), was_y.clip(0, 199)
        # What was hidden, or lies under the rows that an edge has moved by, has another depth.
        same = inside & (np.abs(old_depth[was_y, was_x] / now.depth - 1) < 0.1)
        assert same.mean() > 0.95
        color = now.color[..., :3].astype(float)
        moved = np.abs(old_color[was_y, was_x] - color).mean(axis=2)[same].mean()
        still = np.abs(old_color - color).mean(axis=2)[same].mean()
        assert moved < 0.6 * still
        # Balloons and hills move by whole pixels: there it is exact.
        sprites = same & (now.depth < 900) & (y < 0.42 * 200)
        assert sprites.sum() > 3000
        assert np.median(np.abs(old_color[was_y, was_x] - color).max(axis=2)[sprites]) == 0

    def test_two_scenes_are_the_same(self) -> None:
        one, other = Scene(160, 120), Scene(160, 120)
        for n in range(3):
            pictures = one.draw(n * 0.4), other.draw(n * 0.4)
            for first, second in zip(*((p.color, p.motion, p.depth) for p in pictures), strict=True):
                assert np.array_equal(first, second)

    def test_a_picture_that_is_too_small_is_refused(self) -> None:
        with pytest.raises(ValueError, match="64x300 is too small: 160x90 at least"):
            Scene(64, 300)


def velatura(*words: object) -> subprocess.CompletedProcess[str]:
    return commands.velatura("bench", *words)


def game_into(path: Path) -> None:
    run_game(GameJob(models=("identity",), size=(90, 160), out=path), as_json=True)


def plot_into(path: Path) -> None:
    run_game(GameJob(models=("identity",), size=(90, 160), plot=path), as_json=True)


def bench_into(path: Path) -> None:
    run_bench(BenchJob(model="upscale-2x", size=(90, 160), out=path), as_json=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes, str]:
    """A short real run: its JSON, its plot, and what it printed."""
    folder = tmp_path_factory.mktemp("game") / "made" / "here"
    done = velatura("--game", "identity", "--size", "108x192", "--seconds", "0.3", "--rate", "30",
                    "--mode", "pipelined", "--budget-ms", "40",
                    "-o", folder / "report.json", "--plot", folder / "report.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    return report, (folder / "report.png").read_bytes(), done.stdout


class TestCommand:
    def test_the_report_has_every_figure(self, written: tuple[dict[str, Any], bytes, str]) -> None:
        report, _, _ = written
        assert set(report) == {
            "machine", "models", "size", "mode", "rate", "budget_ms", "seconds", "rounds", "without",
            "off", "on", "cost_ms", "added_latency", "pictures", "rungs", "seen_by_mark", "notes",
            "definitions",
        }  # fmt: skip
        assert report["models"] == ["identity"]
        assert (report["size"], report["mode"], report["rate"]) == ([108, 192], "pipelined", 30)
        for loop in LOOPS:
            assert set(report[loop]) == set(report["definitions"])
            assert report[loop]["frames"] >= 2 * report["rounds"]
            assert set(report[loop]["frame_ms"]) == {"mean", "p50", "p95", "p99", "p999", "max"}
            assert set(report[loop]["animation_error_ms"]) == {"mean", "p99", "max"}
        for loop in ("without", "off"):
            assert report[loop]["behind_frames"]["max"] == 0
        assert set(report["cost_ms"]["on"]) == {
            "busy_p50", "busy_p95", "busy_p99", "call_p50", "own_p50", "rounds",
        }  # fmt: skip
        assert sum(report["pictures"].values()) == sum(report["rungs"].values())
        assert report["seen_by_mark"] > 0.7
        assert "cpu" in report["machine"]
        assert set(DEFINITIONS) == set(report["definitions"])

    def test_a_table_is_printed(self, written: tuple[dict[str, Any], bytes, str]) -> None:
        report, _, printed = written
        assert "identity, pipelined, 108x192 at 30 Hz, budget 40 ms" in printed
        for name, figures in rows_of(report):
            line = next(line for line in printed.splitlines() if name in line)
            assert all(figure in line for figure in figures)
        assert "ON adds " in printed

    def test_the_plot_is_a_picture(self, written: tuple[dict[str, Any], bytes, str]) -> None:
        _, plot, _ = written
        assert plot.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", plot[16:24])
        assert (width, height) == (1650, 1100)
        assert len(plot) > 30_000

    def test_json_is_all_that_is_printed(self) -> None:
        done = velatura("--game", "identity", "--size", "90x160", "--seconds", "0.1", "--json")
        assert json.loads(done.stdout)["mode"] == "inline"
        assert done.stderr == ""

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("--game", "--mode", "sideways"), "'sideways' is not one of 'inline', 'pipelined'"),
            (("--game", "--rate", "0"), "--rate"),
            (("--game", "--budget-ms", "0"), "--budget-ms"),
            (("--game", "--size", "64x640"), "too small for a game: 90x160"),
            (("--game", "--size", "big"), "is not HEIGHTxWIDTH"),
            (("--game", "--range", "255"), "are not for --game"),
            (("wave", "--plot", "x.png"), "--plot are for --game"),
            (("wave", "--rate", "30"), "--rate, --budget-ms and --plot are for --game"),
            (("wave", "udnie"), "name one model"),
            ((), "name one model"),
        ],
    )
    def test_bad_options_are_told(self, words: tuple[str, ...], complaint: str) -> None:
        done = velatura(*words)
        assert done.returncode == 2
        # A narrow terminal breaks lines, in a box.
        text = " ".join(done.stderr.replace("│", " ").split())
        assert complaint in text

    def test_an_unknown_model_and_a_wrong_plot_are_refused_at_once(self, tmp_path: Path) -> None:
        done = velatura("--game", "no-such-model")
        assert done.returncode == 5
        assert "no-such-model" in done.stderr
        done = velatura("--game", "identity", "--plot", tmp_path / "plot.pdf")
        assert done.returncode == 4
        assert "name it .png" in done.stderr

    @pytest.mark.parametrize("run", [game_into, plot_into, bench_into])
    def test_what_cannot_be_written_is_told_before_anything_is_measured(
        self, run: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measured(*_: object) -> NoReturn:
            raise AssertionError("it measured first")

        monkeypatch.setattr(bench_game, "measure_game", measured)
        monkeypatch.setattr(bench, "measure_model", measured)
        (tmp_path / "file.png").write_bytes(b"kept")
        (tmp_path / "folder.png").mkdir()
        os.mkfifo(tmp_path / "pipe.png")
        for path, words in (
            (tmp_path / "file.png" / "x.png", "x.png cannot be written: "),
            (tmp_path / "folder.png", "folder.png is a folder: name a file in it"),
            (tmp_path / "pipe.png", "pipe.png is not a file"),
            (tmp_path / f"{'x' * 251}.png", "cannot be written: File name too long"),
        ):
            with pytest.raises(SinkError, match=words):
                run(path)
        assert {path.name for path in tmp_path.iterdir()} == {"file.png", "folder.png", "pipe.png"}
        assert (tmp_path / "file.png").read_bytes() == b"kept"

    def test_a_folder_that_went_away_meanwhile_is_no_traceback(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "made" / "report.json"

        def measured(*_: object) -> dict[str, Any]:
            assert out.parent.is_dir(), "made, and nothing left in it"
            out.parent.rmdir()
            return {}

        monkeypatch.setattr(bench, "measure_model", measured)
        monkeypatch.setattr(bench_game, "measure_game", lambda *_: ({}, measured()))
        with pytest.raises(SinkError, match=r"report\.json cannot be written: No such file"):
            bench_into(out)
        with pytest.raises(SinkError, match=r"report\.json cannot be written: No such file"):
            game_into(out)

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("--game", "identity", "-o", "/proc/none/x.json"), 4, "x.json cannot be written: "),
            (("upscale-2x", "-o", "/proc/none/x.json"), 4, "x.json cannot be written: "),
            (("identity",), 5, "identity is no network"),
            (("identitty",), 5, "did you mean identity?"),
        ],
    )
    def test_the_command_tells_why_and_leaves(
        self, words: tuple[str, ...], code: int, told: str
    ) -> None:
        done = velatura(*words)
        assert done.returncode == code, done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_plot_without_matplotlib_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from velatura.benchmarks.game.report import require

        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(SinkError, match=r"pip install 'velatura\[game\]'"):
            require(Path("plot.png"))
