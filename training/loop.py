"""The training loop: setup -> fit -> validate, for every recipe, on one device or several processes."""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from .checkpoint import Checkpoint
from .data import FramePairs, PhotoCrops, Sample, Samples, UprightCrops, stream
from .device import autocast, channels_last, machine_words, processes, to_device
from .nets import build_net
from .nets.blocks import take_scale
from .nets.quantised import fake_quantise, without_quantisers
from .objectives import Objective, build_objective
from .perception import WeightPaths
from .recipe import Recipe
from .record import Progress, Record
from .unfold import begin_with

AGREE_EVERY = 8
"""Steps after which several processes compare their clocks."""

SCALE_CROPS = 8
"""Photographs that the layers of a new network are scaled by."""


class TrainingError(ValueError):
    """A run that cannot go on; its last good checkpoint is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run is carried out. Only `time_budget`, `weights` and `init` change what is learned."""

    time_budget: float | None = None
    """Seconds over all sessions: the rate's cosine ends when the first of steps and time runs out."""
    report_every: int = 50
    save_every: int = 500
    preview_every: int = 500
    validate_every: int = 0
    """Steps between validations; 0 leaves them to the end."""
    workers: int = 0
    """Processes that prepare batches ahead; 0 prepares them in this one."""
    device: str = "auto"
    compile: bool = False
    """Pass the network through torch.compile, with CUDA graphs on a GPU."""
    tensorboard: bool = False
    weights: WeightPaths | None = None
    init: Checkpoint | Path | None = None
    """Weights to begin with: a run's, or those of a style's .onnx file."""


def fit(
    recipe: Recipe,
    *,
    root: Path,
    folder: Path,
    options: Options | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Train `recipe` on the pictures below `root`, or go on where `folder`'s checkpoint stopped.

    Writes `checkpoint.pt`, `log.jsonl` and `preview.png` into `folder`. Under `torchrun`, each process
    takes `recipe.batch` pictures of a batch as many times larger, and the first one writes. Raises
    FileNotFoundError for missing data, ValueError when `folder` belongs to another recipe, and
    TrainingError when a loss is no longer finite or memory runs out.
    """
    options = options or Options()
    with processes(options.device) as (device, rank, world):
        run = Run(recipe, root, folder, options, device, rank, world)
        try:
            return run.train(report)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingError(_out_of_memory(recipe, run.step)) from error
        except RuntimeError as error:
            if "not enough memory" in str(error) or "can't allocate memory" in str(error):
                raise TrainingError(_out_of_memory(recipe, run.step)) from error
            raise


class Run:
    """One training run: what it is made of, and its steps."""

    def __init__(
        self, recipe: Recipe, root: Path, folder: Path, options: Options,
        device: torch.device, rank: int, world: int,
    ) -> None:  # fmt: skip
        self.options, self.device, self.rank, self.world = options, device, rank, world
        self.path = folder / "checkpoint.pt"
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        options_of_net = {k: v for k, v in recipe.net.items() if k != "kind"}
        net: nn.Module = build_net(recipe.net["kind"], options_of_net)
        if world > 1 and device.type == "cuda":
            net = cast(nn.Module, cast(Any, nn.SyncBatchNorm).convert_sync_batchnorm(net))
        channels_last(net)
        self.net = net.to(device)
        self.objective: Objective = build_objective(recipe, root, options.weights, device)
        self.samples = read_samples(recipe, root)
        self.step, self.before = 0, 0.0
        self.sums: dict[str, float] = {}
        self.started_from = ""
        self.agreed: tuple[float, bool] | None = None
        saved = Checkpoint.load(self.path) if self.path.exists() else None
        if saved is None:
            self._begin()
        if recipe.quantisation_aware:
            fake_quantise(self.net, recipe.task)
            if saved is None and options.init is None:
                raise ValueError("quantisation_aware needs --init, a checkpoint of the trained network")
        self.average = moving_average(self.net, recipe.average)
        self.optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
        if saved is not None:
            self._resume(saved)
        self.record = Record(folder, step=self.step, writes=rank == 0, tensorboard=options.tensorboard)
        # The step that runs may be wrapped; the weights are those of `self.net` all the same.
        self.runner: nn.Module = self.net
        if world > 1:
            self.runner = DistributedDataParallel(self.net, broadcast_buffers=False)
        if options.compile:
            mode = "max-autotune" if device.type == "cuda" else "default"
            self.runner = cast(nn.Module, torch.compile(self.runner, mode=mode))

    def _resume(self, saved: Checkpoint) -> None:
        """Go on where the folder's checkpoint stopped."""
        origin = str(self.path)
        if Recipe.from_mapping(saved.recipe, origin=origin).to_mapping() != self.recipe.to_mapping():
            raise ValueError(f"{origin} was trained with another recipe: choose another folder")
        self.net.load_state_dict(saved.net)
        self.average.load_state_dict(saved.average)
        self.optimizer.load_state_dict(saved.optimizer)
        self.step, self.before, self.sums = saved.step, saved.elapsed, dict(saved.sums)
        self.started_from = saved.started_from

    def _begin(self) -> None:
        """Take over the weights to begin with."""
        if self.options.init is None:
            sample = self.samples.batch(0, SCALE_CROPS)
            take_scale(self.net, (sample.photos if sample.low is None else sample.low).to(self.device))
        elif isinstance(self.options.init, Path):
            self.started_from = begin_with(self.net, self.options.init)
        else:
            given = self.options.init
            try:
                self.net.load_state_dict(averaged_net(given).state_dict())
            except RuntimeError as error:
                name = given.recipe.get("name")
                raise ValueError(
                    f"the checkpoint of {name} holds another network than {self.recipe.name} asks for"
                ) from error
            self.started_from = f"{given.recipe.get('name')} after {given.step:,} steps"

    def train(self, report: Callable[[Progress], None] | None) -> Checkpoint:
        """The steps that are left. Raises KeyboardInterrupt after Ctrl-C, with a checkpoint saved."""
        recipe, options, writes = self.recipe, self.options, self.rank == 0
        size, first = recipe.batch, recipe.batch * self.rank
        batches = stream(
            self.samples, range(self.step, recipe.steps), size, first=first, workers=options.workers
        )
        floor = self._floor(first)
        start = time.monotonic()
        begun = self.step
        stopped = False
        names: list[str] = []
        pending: list[Tensor] = []
        with ctrl_c() as stop:
            for sample in batches:
                elapsed, stopped = self._agreed(self.before + time.monotonic() - start, stop.is_set())
                budget = options.time_budget
                done = max(self.step / recipe.steps, elapsed / budget if budget else 0.0)
                rate = learning_rate(recipe, self.step, min(done, 1.0))
                terms = self.take_step(to_device(sample, self.device), rate, min(done, 1.0))
                if list(terms) != names:
                    self._settle(names, pending)
                names = list(terms)
                pending.append(torch.stack([*terms.values()]))
                self.step += 1
                last = self.step == recipe.steps or done >= 1.0 or stopped
                reports = self._due(options.report_every)
                # On a GPU the host must not wait for every step; on a CPU nothing is lost by looking.
                if reports or last or self._due(options.save_every) or self.device.type == "cpu":
                    self._settle(names, pending)
                elapsed = self.before + time.monotonic() - start
                if reports:
                    mean = {name: value / options.report_every for name, value in self.sums.items()}
                    self.sums = {}
                    per_second = (self.step - begun) * size * self.world / (time.monotonic() - start)
                    left = elapsed * (1.0 - done) / max(done, 1e-9)
                    # Before the feature loss counts, its network's speed is no measure.
                    share = floor if done >= max(recipe.content_from, recipe.repeat_until) else 0.0
                    progress = Progress(
                        self.step, recipe.steps, mean, rate, elapsed, left, per_second, share
                    )
                    if writes:
                        self.record.progress(progress)
                    if writes and report is not None:
                        report(progress)
                if writes and options.validate_every and self._due(options.validate_every):
                    self._validate()
                if writes and (last or self._due(options.save_every)):
                    self.checkpoint(elapsed).save(self.path)
                if writes and (last or self._due(options.preview_every)):
                    self._preview()
                if last:
                    break
        self.record.close()
        if stopped:
            raise KeyboardInterrupt
        return self.checkpoint(self.before + time.monotonic() - start)

    def _agreed(self, elapsed: float, stopped: bool) -> tuple[float, bool]:
        """The longest of the processes' clocks, and whether any was asked to stop.

        All must take the same steps at the same rate, else one would wait for another that has left.
        They ask each other every few steps, which a GPU has to wait for.
        """
        if self.world == 1:
            return elapsed, stopped
        if self.agreed is None or self.step % AGREE_EVERY == 0:
            state = torch.tensor([elapsed, float(stopped)], dtype=torch.float64, device=self.device)
            dist.all_reduce(state, dist.ReduceOp.MAX)
            agreed = cast("list[float]", state.tolist())
            self.agreed = agreed[0], agreed[1] > 0
        return self.agreed

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def take_step(self, sample: Sample, rate: float, done: float) -> dict[str, Tensor]:
        """One step of the optimiser; the weighted terms, without gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        set_mode(self.net, training=True, frozen_norm=done >= self.recipe.freeze_norm)
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * self.world + self.rank)
        with autocast(self.recipe, self.device):
            terms = self.objective.losses(self.runner, sample, done)
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.average.update_parameters(self.net)
        return {**{name: term.detach() for name, term in terms.items()}, "gradient": norm.detach()}

    def _settle(self, names: list[str], pending: list[Tensor]) -> None:
        """Add the waiting terms to the sums. Raises TrainingError at the first that is not finite."""
        if not pending:
            return
        values = cast("list[list[float]]", torch.stack(pending).double().cpu().tolist())
        first = self.step - len(pending)
        pending.clear()
        for row, line in enumerate(values):
            bad = [name for name, value in zip(names, line, strict=True) if not math.isfinite(value)]
            if bad:
                kept = (
                    f"the last good checkpoint is {self.path}"
                    if self.path.exists()
                    else "none was saved"
                )
                raise TrainingError(
                    f"{' and '.join(bad)} is no longer finite at step {first + row + 1}; {kept}. Lower "
                    'learning_rate or that term\'s weight, or take precision = "fp32"'
                )
            for name, value in zip(names, line, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value

    def checkpoint(self, elapsed: float) -> Checkpoint:
        """The run as it stands."""
        return Checkpoint(
            self.recipe.to_mapping(), self.step, elapsed, self.net.state_dict(),
            self.average.state_dict(), self.optimizer.state_dict(), dict(self.sums),
            machine_words(self.device, self.world), self.started_from,
        )  # fmt: skip

    def _floor(self, first: int) -> float:
        """Images a second of the loss network's forward and backward alone, median of three."""
        sample = to_device(self.samples.batch(0, self.recipe.batch, first), self.device)
        times: list[float] = []
        for _ in range(4):
            start = time.monotonic()
            with autocast(self.recipe, self.device):
                if not self.objective.floor(sample):
                    return 0.0
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - start)
        # The first one allocates.
        return self.recipe.batch * self.world / float(np.median(times[1:]))

    def _validate(self) -> None:
        self.average.eval()
        self.record.validation(self.step, self.objective.validate(self.average))

    @torch.no_grad()
    def _preview(self) -> None:
        """Four fixed crops before and after."""
        self.average.eval()
        # A batch far beyond any training: it is never trained on, and stays the same through a run.
        sample = to_device(self.samples.batch(10**9, 4), self.device)
        self.record.preview(self.step, self.objective.preview(self.average, sample))


@contextmanager
def ctrl_c() -> Generator[threading.Event]:
    """Set at the first Ctrl-C, so that a step is finished before the run stops; a second interrupts.

    Outside the main thread, where signals cannot be set, it stays as it is.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def averaged_net(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its averaged weights, in float and eval mode."""
    recipe = Recipe.from_mapping(checkpoint.recipe, origin="checkpoint")
    net = build_net(recipe.net["kind"], {k: v for k, v in recipe.net.items() if k != "kind"})
    average = AveragedModel(net, use_buffers=True)
    try:
        average.load_state_dict(without_quantisers(checkpoint.average))
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint of {recipe.name} holds another network than its recipe names now: "
            "another version of velatura made it"
        ) from error
    return average.module.eval()


def read_samples(recipe: Recipe, root: Path) -> Samples:
    """The recipe's photographs and videos, decoded."""
    kind = PhotoCrops if recipe.task == "upscale" else UprightCrops
    folders = [root / folder for folder in recipe.photos]
    photos = kind(
        folders, crop=recipe.crop, seed=recipe.seed, luma=recipe.planes == 1, reduce=recipe.reduce,
        synthetic=recipe.synthetic,
    )  # fmt: skip
    videos = [root / folder for folder in recipe.videos]
    pairs = FramePairs(videos, crop=recipe.crop, seed=recipe.seed) if videos else None
    degradation = recipe.degradation if recipe.task == "upscale" else ""
    return Samples(photos, videos=pairs, scale=recipe.scale, degradation=degradation)


def learning_rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up, then a cosine to a hundredth of the recipe's rate at `done` = 1."""
    cosine = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
    return recipe.learning_rate * min(1.0, (step + 1) / max(recipe.warmup, 1)) * cosine


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average whose decay grows with its age, so that a short run does not lag.

    Its age is read on the host, where it is kept: read from the device, as PyTorch hands it to the
    function, it would make the host wait at every step for all that was asked of a GPU.
    """

    def blend(averages: Any, currents: Any, _: Tensor | int) -> None:
        age = float(average.n_averaged)
        part = 1.0 - min(decay, (1.0 + age) / (10.0 + age))
        for kept, current in zip(averages, currents, strict=True):
            if kept.is_floating_point():
                kept.lerp_(current.to(kept.dtype), part)
            else:
                kept.copy_(current)

    average = AveragedModel(net, multi_avg_fn=blend, use_buffers=True)
    return average


def set_mode(net: nn.Module, *, training: bool, frozen_norm: bool) -> None:
    """Training mode, with batch normalisation on its running statistics when frozen.

    The last part of the training then sees the network that will be folded and exported.
    """
    net.train(training)
    if frozen_norm:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                module.eval()


def _out_of_memory(recipe: Recipe, step: int) -> str:
    smaller = replace(recipe, batch=max(1, recipe.batch // 2))
    return (
        f"out of memory at step {step + 1}: lower batch ({recipe.batch}, try --set "
        f"batch={smaller.batch}) or crop ({recipe.crop}); what was saved before is kept"
    )
