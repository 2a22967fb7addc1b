"""The samples run as they are, and do what they say."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from .runtime import videos

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def sample(name: str, *arguments: object) -> str:
    command = [sys.executable, str(SAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_clip_is_what_it_says() -> None:
    clip = SAMPLES / "clip.mp4"
    assert clip.stat().st_size < 1_000_000
    found = videos.read(clip)
    assert (found.width, found.height, len(found.luma)) == (640, 360, 180)
    assert found.seconds[-1] == pytest.approx(179 / 30)
    assert (found.matrix, found.range, found.primaries, found.transfer) == (1, 1, 1, 1)
    assert found.audio[-1][0] == pytest.approx(6.0, abs=0.1)
    assert np.abs(found.luma[0].astype(int) - found.luma[90]).mean() > 5, "the camera moves"


@pytest.mark.slow
def test_the_clip_can_be_rendered(tmp_path: Path) -> None:
    sample("make_clip.py", tmp_path / "small.mp4", "--size", "160x90", "--seconds", "1.2")
    found = videos.read(tmp_path / "small.mp4")
    assert (found.width, found.height, len(found.luma)) == (160, 90, 36)
    small = cv2.resize(
        videos.read(SAMPLES / "clip.mp4").luma[0], (160, 90), interpolation=cv2.INTER_AREA
    )
    assert np.corrcoef(small.ravel(), found.luma[0].ravel())[0, 1] > 0.95, "the same scene"


@pytest.mark.soak
def test_the_demo_makes_what_it_prints(tmp_path: Path) -> None:
    told = sample("demo.py", tmp_path / "demo")
    original = videos.read(SAMPLES / "clip.mp4")
    for name in ("upscaled.mp4", "restyled.mp4"):
        assert name in told
        found = videos.read(tmp_path / "demo" / name)
        assert (found.width, found.height, len(found.luma)) == (1280, 720, 180)
        assert found.seconds == pytest.approx(original.seconds, abs=1e-4)
        assert [data for _, data in found.audio] == [data for _, data in original.audio]
    sheet = cv2.imread(str(tmp_path / "demo" / "side_by_side.png"))
    assert sheet.shape == (1440, 3840, 3)
    left, middle, right = (sheet[:720, i * 1280 : (i + 1) * 1280].astype(float) for i in range(3))
    assert np.abs(left - middle).mean() < 6 < np.abs(left - right).mean()


def test_a_stage_of_ones_own(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", size=(160, 120), frames=3)
    sample("own_stage.py", source, tmp_path / "out.mp4")
    found = videos.read(tmp_path / "out.mp4")
    assert found.luma[0].shape == (240, 320)
    assert (found.luma[0][18:40, 16:140] > 220).mean() > 0.03, "the time stands in the picture"


def test_the_shift_and_the_blur(data_root: Path, tmp_path: Path) -> None:
    told = sample("pixel_losses.py", data_root / "eval/kodak24/kodim08.png", "-o", tmp_path / "f.png")
    rows = {line[:7]: line for line in told.splitlines()}

    def figure(row: str, name: str) -> float:
        return float(rows[row].split(name)[1].split()[0])

    assert figure("shifted", "PSNR dB") < figure("blurred", "PSNR dB")
    assert figure("shifted", "SSIM") < figure("blurred", "SSIM")
    assert figure("shifted", "relu2_2") < figure("blurred", "relu2_2")
    assert cv2.imread(str(tmp_path / "f.png")).shape[1] > 1000


@pytest.mark.soak
def test_the_contact_sheet_shows_every_model(own_pictures: list[Path], tmp_path: Path) -> None:
    photo = cv2.imread(str(own_pictures[2]))[60:320, 100:500]
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    sample("contact_sheet.py", tmp_path / "photo.png", "-o", tmp_path / "sheet.jpg")
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert min(sheet.shape[:2]) > 1000
