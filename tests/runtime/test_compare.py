"""`velatura compare`: what is put side by side is what both videos show at one time."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.runtime import SinkError, SourceError
from velatura.runtime.jobs.compare import compare
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from . import videos


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "a.mkv", frames=25, rate=25)


@pytest.fixture
def doubled(clip: Path, tmp_path: Path) -> Path:
    target = tmp_path / "b.mkv"
    job = Job(source=str(clip), sink=str(target), models=("upscale-2x",), codec="ffv1")
    assert run_job(job, quiet=True) == 0
    return target


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].astype(int)


def test_a_still_wipes_from_one_to_the_other(clip: Path, doubled: Path, tmp_path: Path) -> None:
    target = tmp_path / "still.png"
    compare(str(clip), str(doubled), target, at=[0.41])
    picture = read(target)
    assert picture.shape == (96, 128, 3)
    assert (picture[:, 63:65] == 255).all()
    compare(str(doubled), str(doubled), tmp_path / "same.png", at=[0.41])
    same = read(tmp_path / "same.png")
    np.testing.assert_array_equal(picture[:, 65:], same[:, 65:])
    # Frame 10 is on the screen at 0.41 s, frame 11 comes at 0.44 s.
    compare(str(doubled), str(doubled), tmp_path / "later.png", at=[0.45])
    assert not np.array_equal(read(tmp_path / "later.png"), same)


def test_both_whole_side_by_side(clip: Path, doubled: Path, tmp_path: Path) -> None:
    target = tmp_path / "side.png"
    compare(str(clip), str(doubled), target, view="side")
    assert read(target).shape == (96, 258, 3)


def test_a_page_holds_all_that_it_needs(
    clip: Path, doubled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "page.html"
    compare(str(clip), str(doubled), target, at=[0.1, 0.5])
    page = target.read_text()
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 4
    sizes = {cv2.imdecode(np.frombuffer(base64.b64decode(p), np.uint8), 1).shape for p in pictures}
    assert sizes == {(96, 128, 3)}
    assert page.count('type="range"') == 2
    assert "http" not in page.replace("http-equiv", "")
    assert "{" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert capsys.readouterr().out.count("dB apart") == 2


@pytest.mark.parametrize(("view", "width"), [("wipe", 128), ("side", 258)])
def test_a_clip_of_the_whole(view: str, width: int, clip: Path, doubled: Path, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    compare(str(clip), str(doubled), target, view=view)  # type: ignore[arg-type]
    found = videos.read(target)
    assert (len(found.luma), found.width, found.height) == (25, width, 96)


def test_videos_of_different_rates_are_compared_by_time(tmp_path: Path) -> None:
    slow = videos.make(tmp_path / "slow.mkv", frames=10, rate=10)
    fast = videos.make(tmp_path / "fast.mkv", frames=40, rate=40)
    compare(str(fast), str(slow), tmp_path / "c.mkv")
    assert len(videos.read(tmp_path / "c.mkv").luma) == 40


def test_refusals(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(b"mine")
    with pytest.raises(SinkError, match="exists"):
        compare(str(clip), str(clip), tmp_path / "there.png")
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    with pytest.raises(SinkError, match="needs a suffix"):
        compare(str(clip), str(clip), tmp_path / "nothing")
    with pytest.raises(SourceError):
        compare(str(clip), str(tmp_path / "none.mkv"), tmp_path / "o.png")
    assert not (tmp_path / "o.png").exists()
