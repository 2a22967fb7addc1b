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


def small(recipe: Recipe, **changes: object) -> Recipe:
    """A recipe cut down to seconds, on the real photographs."""
    return replace(recipe, **{"photos": ("photos/wikipedia_photos",), "warmup": 5, **changes})  # type: ignore[arg-type]


@pytest.fixture
def upscaler() -> Recipe:
    net = {"kind": "luma-upscaler", "channels": 8, "layers": 1, "width": 16}
    return small(load_recipe("upscale-2x"), net=net, steps=60, batch=4, crop=48, average=0.9)


@pytest.fixture
def style() -> Recipe:
    net = {"kind": "fast-style", "channels": 8, "stem": 8, "blocks": 1}
    return small(
        load_recipe("starry-night"),
        net=net,
        steps=12,
        batch=1,
        crop=96,
        style_sizes=(128,),
        stable_from=0.0,
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
    fit(style, root=data_root, folder=tmp_path, options=Options(report_every=3))
    found = losses(tmp_path, "style")
    assert found[-1] < found[0]
    assert {"content", "style", "tv", "grid", "stability"} < set(
        json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    )


class StoppedError(Exception):
    pass


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
def test_shipped_recipes_name_data_that_exists(data_root: Path, name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for folder in recipe.photos:
        assert (data_root / folder).is_dir()
    for painting in recipe.style_images:
        assert (data_root / painting).is_file()
    for layer in (*recipe.content, *recipe.style):
        assert re.fullmatch(r"relu[1-3]_[1-3]|fire[2-9]", layer), "what the weights at hand hold"


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
        (recipe_text(frame_difference="1.0"), "need videos"),
        (recipe_text(grid="1.0"), "grid is a loss of styles"),
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


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_lowers_its_loss(data_root: Path, tmp_path: Path, name: str) -> None:
    """Each recipe as it is, on small crops for a few dozen steps."""
    recipe = load_recipe(name)
    upscaler = recipe.task == "upscale"
    steps = SMOKE["steps"].get(name, 24)
    crop = SMOKE["crop"].get(name, 48 if upscaler else 112)
    sizes = recipe.style_sizes and (192,)
    quick = small(recipe, steps=steps, crop=crop, batch=2, style_sizes=sizes, stable_from=0.0)
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_with_the_same_loss_curve(
    data_root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    code = "fit(recipe, root=root, folder=folder, options=Options(report_every=7, save_every=20))"
    whole = start(code, data_root, tmp_path / "whole", 800)
    assert whole.wait(timeout=300) == 0
    killed = 0
    while killed < 3:
        run = start(code, data_root, tmp_path / "cut", 800)
        log = tmp_path / "cut/log.jsonl"
        before = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + 120
        # Somewhere in the middle: after some new lines, wherever the step then is.
        while run.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.stat().st_size > before + 2500:
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
    last = start(code, data_root, tmp_path / "cut", 800)
    assert last.wait(timeout=300) == 0, last.stdout and last.stdout.read()

    def curve(name: str) -> list[tuple[int, float]]:
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        return [(line["step"], line["pixel"]) for line in map(json.loads, lines)]

    assert len(curve("whole")) == 114
    assert [step for step, _ in curve("cut")] == [step for step, _ in curve("whole")]
    values = [[value for _, value in curve(name)] for name in ("cut", "whole")]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


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


@pytest.mark.slow
def test_a_compiled_net_learns_the_same(data_root: Path, tmp_path: Path, upscaler: Recipe) -> None:
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
