"""Several processes do what one does with the whole batch, and share what they read."""

import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import torch
from torch import nn
from velatura.training.data import FramePairs, PhotoCrops, Samples
from velatura.training.loop import moving_average

HALVES = """
import sys
import torch
import torch.distributed as dist
from velatura.training import losses, temporal

torch.set_num_threads(1)
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
draw = torch.Generator().manual_seed(1)
# The two halves differ in loudness, as a dark and a bright photograph do.
loud = torch.tensor([0.1, 0.2, 3.0, 5.0]).view(4, 1, 1, 1)
x, y, a, b = (torch.randn(4, 3, 24, 24, generator=draw) * loud for _ in range(4))
flow = torch.randn(4, 2, 24, 24, generator=draw)
mask = (torch.rand(4, 1, 24, 24, generator=draw) < loud / 6).float()

def feature_reconstruction(x, n):
    return losses.feature_reconstruction({"r": x}, {"r": y[n]}, {"r": 2.0})

def flow_consistency(x, n):
    return temporal.flow_consistency(x, y[n], flow[n], mask[n])

def feature_difference(x, n):
    named = ({"r": t} for t in (x, y[n], a[n], b[n]))
    return temporal.feature_difference(*named, {"r": 2.0})

whole = slice(None)
half = slice(0, 2) if rank == 0 else slice(2, 4)
for loss in (feature_reconstruction, flow_consistency, feature_difference):
    part = x[half].clone().requires_grad_()
    value = loss(part, half)
    value.backward()
    dist.all_reduce(value.detach_())
    # What DistributedDataParallel does with gradients: their mean. A picture's own is on one side only.
    found = part.grad / 2
    initialized, dist.is_initialized = dist.is_initialized, lambda: False
    alone = x.clone().requires_grad_()
    expected = loss(alone, whole)
    expected.backward()
    dist.is_initialized = initialized
    torch.testing.assert_close(value / 2, expected.detach())
    torch.testing.assert_close(found, alone.grad[half])
# Else threads of the group are still there when the process ends, which now and then aborts it.
dist.destroy_process_group()
"""


def test_losses_of_two_halves_are_the_loss_of_the_batch(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", HALVES, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    for run in runs:
        told, _ = run.communicate(timeout=200)
        assert run.returncode == 0, told


def test_workers_are_handed_no_copy_of_the_pictures(data_root: Path) -> None:
    photos = PhotoCrops([data_root / "photos/coco128"], crop=64, seed=1, luma=False)
    videos = FramePairs([data_root / "clips"], crop=64, seed=1)
    samples = Samples(photos, videos=videos, scale=2, degradation="bicubic")
    before = samples.batch(3, 2)
    decoded = sum(p.nbytes for p in photos.photos if p is not None)
    sent = bytes(ForkingPickler.dumps(samples))
    assert len(sent) < 0.02 * decoded, f"{len(sent)} bytes for {decoded} of photographs"
    after = samples.batch(3, 2)
    for was, now in zip(before, after, strict=True):
        assert was is not None
        assert torch.equal(was, now)


def test_the_moving_average_is_that_of_its_formula() -> None:
    net = nn.Linear(2, 1)
    average = moving_average(net, 0.5)
    expected = torch.zeros(())
    for age in range(6):
        nn.init.constant_(net.weight, float(age))
        average.update_parameters(net)
        part = 1.0 - min(0.5, (1 + age) / (10 + age))
        expected = (
            torch.tensor(float(age)) if age == 0 else expected.lerp(torch.tensor(float(age)), part)
        )
        torch.testing.assert_close(average.module.weight, expected.expand(1, 2))


def test_the_moving_average_never_waits_for_the_device() -> None:
    """Nothing can be read from PyTorch's meta device: whoever asked would get an error."""
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("meta")
    average = moving_average(net, 0.9)
    for _ in range(3):
        average.update_parameters(net)
    assert int(average.n_averaged) == 3
