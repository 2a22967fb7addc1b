"""A short real training run: it learns, resumes exactly, and refuses what does not fit."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from velatura.training.checkpoint import Checkpoint
from velatura.training.device import bf16
from velatura.training.loop import (
    Options,
    TrainingError,
    averaged_net,
    fit,
    learning_rate,
    read_samples,
)
from velatura.training.nets import build_net
from velatura.training.objectives import build_objective
from velatura.training.recipe import Recipe, load_recipe, shipped_recipes

from ..rows import soaking


def small(recipe: Recipe, **changes: object) -> Recipe:
    """A recipe cut down to seconds, on the tests' own photographs."""
    return replace(recipe, **{"photos": ("photos/wikipedia_photos",), "warmup": 5, **changes})  # type: ignore[arg-type]


@pytest.fixture
def upscaler() -> Recipe:
    net = {"kind": "luma-upscaler", "channels": 8, "layers": 1, "width": 16}
    return small(load_recipe("upscale-2x"), net=net, steps=60, batch=4, crop=48, average=0.9)


@pytest.fixture
def style() -> Recipe:
    net = {"kind": "fast-style", "channels": 8, "stem": 8, "blocks": 1, "deep_blocks": 1}
    return small(
        load_recipe("starry-night"),
        net=net,
        steps=12,
        batch=1,
        crop=64,
        style_sizes=(64,),
        style_scales=(1.0, 1.0),
        stable_from=0.0,
        repeat_until=0.0,
    )


def losses(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("net", "part"), [({"kind": "srcnn", "scale": 2}, 0.5), (None, 0.9)], ids=["random", "quiet"]
)
def test_an_upscaler_learns(
    data_root: Path, tmp_path: Path, upscaler: Recipe, net: dict[str, object] | None, part: float
) -> None:
    """From noise, and from the enlargement that ours begin as, where only the detail is left."""
    upscaler = replace(upscaler, net=net or upscaler.net)
    fit(upscaler, root=data_root, folder=tmp_path, options=Options(report_every=10))
    found = losses(tmp_path, "pixel")
    assert found[-1] < part * found[0]
    assert (tmp_path / "preview.png").stat().st_size > 0


def test_a_style_learns(data_root: Path, tmp_path: Path, style: Recipe) -> None:
    fit(replace(style, steps=32), root=data_root, folder=tmp_path, options=Options(report_every=8))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    pictures = ("content", "style", "total_variation", "light", "palette")
    assert {*pictures, "grid", "stability"} < set(lines[0])
    found = [sum(line[name] for name in pictures) for line in lines]
    assert found[-1] < 0.9 * found[0]


class StoppedError(Exception):
    pass


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("kind", ["upscaler", "style"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    data_root: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    recipe = replace(request.getfixturevalue(kind), steps=8, precision="fp32")
    whole = fit(recipe, root=data_root, folder=tmp_path / "whole", options=Options(report_every=2))

    def stop(progress: object) -> None:
        if getattr(progress, "step") == 6:  # noqa: B009
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(
            recipe,
            root=data_root,
            folder=tmp_path / "cut",
            options=Options(report_every=3, save_every=4),
            report=stop,
        )
    assert Checkpoint.load(tmp_path / "cut/checkpoint.pt").step == 4
    resumed = fit(recipe, root=data_root, folder=tmp_path / "cut", options=Options(report_every=2))
    assert resumed.step == whole.step
    for name, weight in whole.net.items():
        torch.testing.assert_close(resumed.net[name], weight, rtol=1e-4, atol=1e-6)
    first, second = averaged_net(whole).state_dict(), averaged_net(resumed).state_dict()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-6)


def test_a_folder_of_another_recipe_is_refused(data_root: Path, tmp_path: Path, style: Recipe) -> None:
    fit(replace(style, steps=1), root=data_root, folder=tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        fit(replace(style, steps=2), root=data_root, folder=tmp_path)


def test_the_time_budget_ends_the_run(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    recipe = replace(upscaler, steps=10**6)
    done = fit(recipe, root=data_root, folder=tmp_path, options=Options(time_budget=1.0))
    assert 1.0 <= done.elapsed < 20
    assert 0 < done.step < 10**6


def test_the_rate_warms_up_and_falls_to_a_hundredth(upscaler: Recipe) -> None:
    peak = upscaler.learning_rate
    assert learning_rate(upscaler, 0, 0.0) == pytest.approx(peak / upscaler.warmup)
    assert learning_rate(upscaler, 1000, 0.0) == pytest.approx(peak)
    assert learning_rate(upscaler, 1000, 1.0) == pytest.approx(peak / 100)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_name_data_that_exists(real_data: Path, name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for path in (*recipe.photos, *recipe.style_images, recipe.vgg):
        assert (real_data / path).exists()
    if recipe.style:
        assert set(recipe.style) == {"relu1_2", "relu2_2", "relu3_3", "relu4_3"}, "the paper's"


def recipe_text(**changes: str) -> str:
    values = {
        "name": '"x"', "task": '"upscale"', "title": '"t"', "net": '{ kind = "srcnn" }',
        "photos": '["p"]',
        "steps": "1", "batch": "1", "crop": "32", "learning_rate": "1e-3", "scale": "2", "pixel": "1",
    }  # fmt: skip
    return "\n".join(f"{key} = {value}" for key, value in {**values, **changes}.items())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = 3 =", "line 1"),
        ("name = 3", "name is 3, which is no str"),
        ('name = "x"\nbrush = 1', "unknown key brush"),
        ('name = "x"', "missing"),
        (recipe_text(steps="0"), "must be positive"),
        (recipe_text(steps='"many"'), "steps is 'many', which is no int"),
        (recipe_text(degradation='"jpeg"'), "degradation is 'jpeg', not bicubic"),
        (recipe_text(crop="31"), "a crop that it divides"),
        (recipe_text(pixel="0"), "needs a pixel or a content loss"),
        (
            recipe_text(
                task='"style"',
                pixel="0",
                style_images='["a.jpg"]',
                style="{ relu1_2 = 1.0 }",
                frame_difference="1.0",
            ),
            "need videos",
        ),
        (recipe_text(grid="1.0"), "grid is a loss of the task style, not upscale"),
        (recipe_text(reduce="0.0"), r"reduce must be in \(0, 1\]"),
        (recipe_text(content_from="1.0"), r"content_from in \[0, 1\)"),
        (
            recipe_text(pixel="0", content="{ relu2_2 = 1.0 }", content_from="0.5"),
            "needs a pixel loss for the time before",
        ),
    ],
)
def test_a_bad_recipe_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as error:
        load_recipe(path)
    assert "bad.toml" in str(error.value)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(FileNotFoundError, match="starry-night"):
        load_recipe("sunflowers")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a velatura checkpoint"):
        Checkpoint.load(tmp_path / "other.pt")


SMOKE = {
    "crop": {"johnson-sr-4x": 64, "johnson-sr-8x": 64},
    "steps": {
        "upscale-2x": 60,
        "upscale-4x": 60,
        "srcnn": 60,
        "upscale-2x-hq": 30,
        "upscale-4x-sharp": 36,
        # Its painting is nearer to a photograph in the loss than the others are: it falls more slowly.
        "udnie": 60,
    },
}


def loss_of(recipe: Recipe, root: Path, weights: dict[str, torch.Tensor] | None) -> float:
    """The losses on pictures, on the same unseen crops, of trained weights or of the first ones."""
    torch.manual_seed(recipe.seed)
    options = dict(recipe.net)
    net = build_net(options.pop("kind"), options)
    if weights is not None:
        net.load_state_dict(weights)
    objective, samples = build_objective(recipe, root), read_samples(recipe, root)
    total = 0.0
    for index in range(4):
        with torch.no_grad():
            terms = objective.losses(net, samples.batch(10**6 + index, recipe.batch), 0.0)
        total += sum(float(terms[name]) for name in ("pixel", "content", "style") if name in terms)
    return total


@pytest.mark.parametrize("name", soaking(shipped_recipes(), but=("srcnn", "upscale-4x-video")))
def test_every_recipe_lowers_its_loss(data_root: Path, tmp_path: Path, name: str) -> None:
    """Each recipe as it is, on small crops for a few dozen steps."""
    recipe = load_recipe(name)
    upscaler = recipe.task == "upscale"
    steps = SMOKE["steps"].get(name, 24)
    crop = SMOKE["crop"].get(name, 48 if upscaler else 112)
    sizes = recipe.style_sizes and (192,)
    quick = small(
        recipe, steps=steps, crop=crop, batch=2, style_sizes=sizes, stable_from=0.0, repeat_until=0.0
    )
    quick = replace(quick, content_from=0.0)
    done = fit(quick, root=data_root, folder=tmp_path, options=Options(report_every=steps // 6))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    recipe = Recipe.from_mapping(done.recipe, origin=name)
    assert loss_of(recipe, data_root, done.net) < 0.95 * loss_of(recipe, data_root, None)
    if recipe.stability:
        assert all(line["stability"] > 0 for line in lines)


def test_the_losses_over_time_count_from_their_part_on(
    data_root: Path, tmp_path: Path, style: Recipe
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/rabbit.mp4").symlink_to(data_root / "clips/rabbit320.mp4")
    recipe = replace(
        style,
        videos=(str(tmp_path / "videos"),),
        flow=10.0,
        frame_difference=10.0,
        feature_difference={"relu2_2": 1.0},
        stable_from=0.5,
        steps=8,
    )
    fit(recipe, root=data_root, folder=tmp_path / "run", options=Options(report_every=4))
    early, late = (tmp_path / "run/log.jsonl").read_text().splitlines()
    over_time = {"stability", "flow", "frame_difference", "feature_difference"}
    assert not over_time & set(json.loads(early))
    assert over_time < set(json.loads(late))


def test_the_feature_loss_counts_from_its_part_on(
    data_root: Path, tmp_path: Path, upscaler: Recipe
) -> None:
    recipe = replace(upscaler, content={"relu1_2": 1.0}, content_from=0.5, steps=8)
    fit(recipe, root=data_root, folder=tmp_path, options=Options(report_every=4))
    early, late = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert "content" not in early
    assert late["content"] > 0


TRAIN = """
import sys
from pathlib import Path
from dataclasses import replace
import torch
torch.set_num_threads(1)
from velatura.training.loop import Options, fit
from velatura.training.recipe import load_recipe
root, folder, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
recipe = load_recipe("upscale-2x")
net = {"kind": "luma-upscaler", "channels": 8, "layers": 1, "width": 16}
recipe = replace(recipe, photos=("photos/wikipedia_photos",), net=net, steps=steps, batch=2, crop=48)
recipe = replace(recipe, warmup=5, precision="fp32", learning_rate=1e-3)
"""


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN + code, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


CURVE = "fit(recipe, root=root, folder=folder, options=Options(report_every=7, save_every=20))"


def curve(folder: Path) -> list[tuple[int, float]]:
    """Steps and losses of a run's log."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["pixel"]) for line in lines]


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    """The curve of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run = start(CURVE, data_root, folder, 280)
    told, _ = run.communicate(timeout=300)
    assert run.returncode == 0, told
    return curve(folder)


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_with_the_same_loss_curve(
    data_root: Path, tmp_path: Path, whole: list[tuple[int, float]], number: signal.Signals
) -> None:
    killed = 0
    while killed < 2:
        run = start(CURVE, data_root, tmp_path / "cut", 280)
        log = tmp_path / "cut/log.jsonl"
        before = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + 120
        # Somewhere in the middle: after some new lines, wherever the step then is.
        while run.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.stat().st_size > before + 700:
                break
            time.sleep(0.002)
        if run.poll() is None:
            run.send_signal(number)
            killed += 1
        output, _ = run.communicate(timeout=120)
        if number == signal.SIGINT and run.returncode:
            assert "KeyboardInterrupt" in output, "after a checkpoint"
        if run.returncode == 0:
            break
    assert killed, "the run was over before it could be killed"
    last = start(CURVE, data_root, tmp_path / "cut", 280)
    told, _ = last.communicate(timeout=300)
    assert last.returncode == 0, told
    found = curve(tmp_path / "cut")
    assert len(whole) == 40
    assert [step for step, _ in found] == [step for step, _ in whole]
    assert [v for _, v in found] == pytest.approx([v for _, v in whole], rel=1e-6)


def test_two_processes_do_what_one_does_with_the_doubled_batch(data_root: Path, tmp_path: Path) -> None:
    code = """
import os
batch = 4 // int(os.environ.get("WORLD_SIZE", "1"))
options = Options(report_every=5, device="cpu")
fit(replace(recipe, batch=batch), root=root, folder=folder, options=options)
"""
    one = start(code, data_root, tmp_path / "one", 20)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "WORLD_SIZE": "2"}
    two = [start(code, data_root, tmp_path / "two", 20, RANK=str(rank), **address) for rank in range(2)]
    for run in (one, *two):
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output
    single, shared = (Checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    assert single.step == shared.step == 20
    for name, weight in single.net.items():
        torch.testing.assert_close(shared.net[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.soak
def test_two_processes_end_together_when_the_time_is_up(data_root: Path, tmp_path: Path) -> None:
    """Each has a clock of its own; one that left before the other would be waited for for ever."""
    code = """
options = Options(time_budget=2.0, device="cpu")
done = fit(recipe, root=root, folder=folder, options=options)
print("ended at", done.step)
"""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29518", "WORLD_SIZE": "2"}
    both = [start(code, data_root, tmp_path, 10**6, RANK=str(rank), **address) for rank in range(2)]
    told = [run.communicate(timeout=120)[0] for run in both]
    assert [run.returncode for run in both] == [0, 0], told
    steps = [re.findall(r"ended at (\d+)", text) for text in told]
    assert steps[0] == steps[1] != []


def test_a_loss_that_is_no_number_stops_the_run_and_names_itself(
    data_root: Path, tmp_path: Path, upscaler: Recipe
) -> None:
    fit(replace(upscaler, steps=5), root=data_root, folder=tmp_path / "a")
    good = Checkpoint.load(tmp_path / "a/checkpoint.pt")
    broken = replace(upscaler, learning_rate=1e30, warmup=1, clip=1e30)
    with pytest.raises(
        TrainingError, match=r"(pixel|gradient).* no longer finite at step \d+; none was saved"
    ):
        fit(broken, root=data_root, folder=tmp_path / "b")
    weights = {name: torch.full_like(w, torch.nan) for name, w in good.net.items()}
    replace(good, net=weights, recipe=upscaler.to_mapping()).save(tmp_path / "c/checkpoint.pt")
    kept = (tmp_path / "c/checkpoint.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"pixel .*the last good checkpoint is .*c/checkpoint\.pt"):
        fit(upscaler, root=data_root, folder=tmp_path / "c")
    assert (tmp_path / "c/checkpoint.pt").read_bytes() == kept


def test_a_full_disk_keeps_the_checkpoint_of_before(data_root: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end: a write is cut off in the middle."""
    code = """
import resource
fit(recipe, root=root, folder=folder, options=Options(report_every=5))
kept = (folder / "checkpoint.pt").read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, resource.RLIM_INFINITY))
try:
    fit(replace(recipe, steps=steps), root=root, folder=folder / "..", options=Options(report_every=5))
except OSError as error:
    print(error)
from velatura.training.checkpoint import Checkpoint
try:
    Checkpoint.load(folder / "checkpoint.pt").save(folder / "checkpoint.pt")
except OSError as error:
    print(error)
assert (folder / "checkpoint.pt").read_bytes() == kept
assert not list(folder.glob("*.partial")), list(folder.glob("*"))
"""
    run = start(code, data_root, tmp_path / "run", 10)
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    assert "none was saved" in output
    assert "the checkpoint of before is still at" in output


def test_too_little_memory_advises(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    with pytest.raises(
        TrainingError, match=r"out of memory at step 1: lower batch \(\d+, try --set batch="
    ):
        fit(replace(upscaler, batch=10**10), root=data_root, folder=tmp_path)


def test_weights_to_begin_with(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
    first = fit(replace(upscaler, steps=40), root=data_root, folder=tmp_path / "first")
    recipe = replace(upscaler, name="second", steps=1, learning_rate=1e-9)
    second = fit(recipe, root=data_root, folder=tmp_path / "second", options=Options(init=first))
    assert second.started_from == "upscale-2x after 40 steps"
    for name, weight in averaged_net(first).state_dict().items():
        torch.testing.assert_close(
            averaged_net(second).state_dict()[name], weight, rtol=1e-4, atol=1e-6
        )
    other = replace(recipe, net={"kind": "srcnn"})
    with pytest.raises(ValueError, match="holds another network"):
        fit(other, root=data_root, folder=tmp_path / "other", options=Options(init=first))


def test_tensorboard_gets_scalars_and_pictures(
    data_root: Path, tmp_path: Path, upscaler: Recipe
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = Options(report_every=5, preview_every=10, validate_every=10, tensorboard=True)
    fit(replace(upscaler, steps=20), root=data_root, folder=tmp_path, options=options)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("loss/pixel")] == [5, 10, 15, 20]
    assert [event.step for event in found.Scalars("validation/set5_psnr_y_db")] == [10, 20]
    assert found.Images("preview")[-1].step == 20
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum("validation" in line for line in logged) == 2


@pytest.mark.parametrize("compiler", ["eager", pytest.param("inductor", marks=pytest.mark.soak)])
def test_a_compiled_net_learns_the_same(
    data_root: Path, tmp_path: Path, upscaler: Recipe, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eager` traces the net and runs what it found without a C++ compiler's minute."""
    if compiler == "eager":
        compiled = torch.compile
        monkeypatch.setattr(torch, "compile", lambda net, **_: compiled(net, backend="eager"))
    recipe = replace(upscaler, steps=4)
    plain = fit(recipe, root=data_root, folder=tmp_path / "plain")
    quick = fit(recipe, root=data_root, folder=tmp_path / "quick", options=Options(compile=True))
    for name, weight in plain.net.items():
        torch.testing.assert_close(quick.net[name], weight, rtol=1e-2, atol=1e-4)


def test_the_progress_tells_speed_and_the_loss_networks_own(
    data_root: Path, tmp_path: Path, style: Recipe
) -> None:
    found = []
    fit(style, root=data_root, folder=tmp_path, options=Options(report_every=6), report=found.append)
    assert [progress.step for progress in found] == [6, 12]
    assert all(progress.images_per_second > 0 and progress.floor > 0 for progress in found)
    assert found[-1].remaining < found[0].elapsed


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, then synchronised, then renamed, then the folder synchronised."""
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        order.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file")
        sync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        order.append("rename")
        assert self.stat().st_size > 0
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    Checkpoint({}, 3, 0.0, {}, {}, {}).save(tmp_path / "run/checkpoint.pt")
    assert order == ["file", "rename", "folder"]
    assert Checkpoint.load(tmp_path / "run/checkpoint.pt").step == 3


def test_bf16_is_computed_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, style: Recipe
) -> None:
    """Elsewhere it is made of conversions, at a quarter of the speed."""
    cpu = torch.device("cpu")
    for has, recipe, expected in (
        ({"avx512_bf16": True}, style, True),
        ({"amx_bf16": True}, style, True),
        ({"avx512_f": True}, style, False),
        ({"avx512_bf16": True}, replace(style, precision="fp32"), False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert bf16(recipe, cpu) == expected
    assert bf16(style, torch.device("cuda"))


def test_the_photograph_is_repeated_first(data_root: Path, tmp_path: Path, style: Recipe) -> None:
    recipe = replace(style, repeat_until=0.5, steps=8)
    fit(recipe, root=data_root, folder=tmp_path, options=Options(report_every=4))
    early, late = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert early["pixel"] > 0
    assert "style" not in early
    assert late["style"] > 0
    assert "pixel" not in late


def test_the_window_bounds_what_the_loss_network_sees(data_root: Path, style: Recipe) -> None:
    """The output outside of it gets no gradient from the content, and all of it some from the style."""
    recipe = replace(style, crop=64, window=0.5, style_scales=(0.0,), light=0.0, palette=0.0, grid=0.0)
    recipe = replace(recipe, total_variation=0.0, stability=0.0, precision="fp32")
    reach: dict[float, int] = {}
    for coarse in (0.0, 1.0):
        scales = (1e-9, coarse) if coarse else (1e-9,)
        objective = build_objective(replace(recipe, style_scales=scales), data_root)
        sample = read_samples(recipe, data_root).batch(0, 1)
        offset = torch.zeros_like(sample.photos, requires_grad=True)
        torch.manual_seed(0)
        terms = objective.losses(lambda x, o=offset: 0.8 * x + o, sample, 1.0)
        (gradient,) = torch.autograd.grad(sum(terms.values()), offset)
        reach[coarse] = int((gradient.abs().amax((0, 1)) > 0).sum())
    assert reach[0.0] == 32 * 32
    assert reach[1.0] > 0.9 * 64 * 64
