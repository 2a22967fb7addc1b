"""What a comparison is worth: the rival computes the same, and what cannot run says so."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from velatura.runtime import open_engine
from velatura.runtime.backends.precision_choice import sample_picture
from velatura.runtime.machine import nvidia_problem
from velatura.runtime.zoo import zoo_models

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("name", list(zoo_models()))
def test_pytorch_computes_what_the_engine_does(name: str) -> None:
    from benchmarks.as_torch import GraphModule

    path = zoo_models()[name]["fp32"]
    with open_engine(path, "ort", precision="fp32") as engine:
        image = sample_picture(104, 96, engine.card.input_channels)
        wanted = engine.run(image).astype(int)
    planes = torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1)[None].astype(np.float32) / 255)
    with torch.no_grad():
        found = GraphModule(path)(planes).clamp(0, 1).mul(255).round()[0].permute(1, 2, 0)
    assert np.abs(found.numpy().squeeze() - wanted).max() <= 1


def test_the_gpu_benchmark_leaves_itself_out_where_there_is_none() -> None:
    if nvidia_problem() is None:
        pytest.skip("an NVIDIA GPU is here")
    command = [sys.executable, "-m", "benchmarks", "gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "gpu left out: " in done.stderr
    assert not (ROOT / "benchmarks/results/gpu.json").exists()


def test_the_gpu_comparison_runs_through_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code on the CPU, so that the first GPU that comes finds it in order."""
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "FRAMES", 2)
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    monkeypatch.setattr(gpu, "BACKENDS", ("openvino", "ort"))
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    real = open_engine
    monkeypatch.setattr(
        gpu, "open_engine", lambda *words, **options: real(*words, **{**options, "precision": "fp32"})
    )
    found = gpu.compare("upscale-2x", zoo_models()["upscale-2x"]["fp32"], (256, 320), "cpu")
    assert set(found["rows"]) == {
        "openvino, with copies", "ort, with copies", "PyTorch eager FP16, with copies",
        "PyTorch eager FP16, on the device", "torch.compile FP16, with copies",
        "torch.compile FP16, on the device",
    }  # fmt: skip
    assert all(row["ms"]["median"] > 0 for row in found["rows"].values())
    assert found["refused"] == {}
    assert min(found["parity_db"].values()) > 60


def test_a_run_with_the_identity_encodes_what_the_plain_loop_does(
    own_clips: Path, tmp_path: Path
) -> None:
    from benchmarks import identity

    found = identity.compare(own_clips / "film.mp4", tmp_path, 5, 1)
    assert found["same_packets_without_journal"]
    assert set(found["wall_over_pyav"]) == {"velatura", "velatura --no-journal"}
    assert found["parts_seconds"]["proof"] > 0


def test_the_published_round_trip_is_exact_in_luma_and_chroma(tmp_path: Path) -> None:
    from benchmarks import identity

    rows = list(identity.round_trips(tmp_path))
    assert len(rows) == 2 * len(identity.FORMATS) - 3
    for row in rows:
        if "largest_rgb_difference_of_255" in row:
            # RGB becomes YUV in limited range: 219 steps hold 256 values only so well.
            assert row["largest_rgb_difference_of_255"] < (3 if row["bits"] == 8 else 0.1), row
        else:
            assert row["output"] == row["pixels"]
            assert row["frames"] == 3
            assert row["largest_luma_difference"] == 0
            assert row.get("largest_chroma_difference", 0) == 0
