"""Display matrices with a reflection: the picture is not mirrored, whatever it is put in."""

import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.jobs.verify import verify as run_verify

from . import videos

ONE = 1 << 16
MATRICES = {
    "right to left": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}
"""a, b, c and d of ISO/IEC 14496-12: x' = a x + c y, y' = b x + d y."""
TURNED = {"quarter": (0, 1, -1, 0), "half": (-1, 0, 0, -1)}


def with_matrix(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A copy whose track header has that matrix."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd")
    # Version 0: 4 bytes of type, 4 of version and flags, 20 of times and ids, 20 of others.
    place = at + 4 + 4 + 20 + 16
    a, b, c, d = (ONE * part for part in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def shown(path: Path) -> np.ndarray:
    """The last frame's luma as its own matrix says that players show it."""
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[-1]
        luma = videos.plane(frame.reformat(format="gray"), 0)
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20]) if data else (ONE, 0, 0, 0, ONE)
    y, x = np.indices(luma.shape)
    across, down = (a * x + c * y) // ONE, (b * x + d * y) // ONE
    across, down = across - across.min(), down - down.min()
    out = np.zeros((down.max() + 1, across.max() + 1), luma.dtype)
    out[down, across] = luma
    return out


def film(folder: Path, matrix: tuple[int, int, int, int]) -> Path:
    plain = videos.make(folder / "plain.mp4", codec="libx264", frames=4, options={"crf": "4"})
    return with_matrix(plain, folder / "in.mp4", matrix)


def run(source: Path, target: Path, **options: object) -> None:
    job = Job(source=str(source), sink=str(target), models=("identity",), crf=4, **options)  # type: ignore[arg-type]
    assert run_job(job, quiet=True) == 0


def verify(source: Path, output: Path) -> int:
    return run_verify(str(source), str(output), deep=False, as_json=False)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one.astype(int) - other).mean() < 6)


@pytest.mark.parametrize("name", [*MATRICES, *TURNED])
def test_what_is_seen_stays(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = film(tmp_path, {**MATRICES, **TURNED}[name])
    wanted = shown(source)
    for target, options in (("o.mp4", {}), ("o.mkv", {}), ("baked.mp4", {"bake": True})):
        run(source, tmp_path / target, **options)
        assert close(shown(tmp_path / target), wanted), target
        assert verify(source, tmp_path / target) == 0
    assert "stored mirrored" not in capsys.readouterr().out
    job = Job(source=str(source), sink=str(tmp_path / "%02d.png"))
    assert run_job(job) == 0
    assert ("stored mirrored" in capsys.readouterr().err) == (name in MATRICES)
    still = cv2.imread(str(tmp_path / "03.png"), cv2.IMREAD_GRAYSCALE)
    assert still is not None
    assert close(still, wanted) or np.corrcoef(still.ravel(), wanted.ravel())[0, 1] > 0.95
    assert still.shape == wanted.shape


@pytest.mark.parametrize("name", list(MATRICES))
def test_verify_sees_a_mirrored_picture(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As players show it that know rotations only: the first line of the matrix is right."""
    a, b, _, _ = MATRICES[name]
    source = film(tmp_path, MATRICES[name])
    wrong = with_matrix(tmp_path / "plain.mp4", tmp_path / "wrong.mp4", (a, b, -b, a))
    assert verify(source, wrong) == 10
    assert "left and right are exchanged" in capsys.readouterr().out
    assert verify(source, source) == 0
