"""Compile game.c, serve a model, play, and put the last frame before and after side by side."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
VELATURA = [sys.executable, "-m", "velatura.runtime"]


def main(
    picture: str = str(HERE / "picture.png"), model: str = "starry-night", frames: str = "24"
) -> None:
    name = f"sample-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        game, before, after = (Path(folder) / part for part in ("game", "before.ppm", "after.ppm"))
        include = subprocess.check_output([*VELATURA, "include-dir"], text=True).strip()
        subprocess.run(["gcc", "-O2", f"-I{include}", HERE / "game.c", "-o", game, "-lm"], check=True)
        server = subprocess.Popen([*VELATURA, "serve", "--shm", name, "-m", model, "--quiet"])
        try:
            subprocess.run([game, name, frames, "640", "360", before, after], check=True)
        finally:
            server.terminate()
            server.wait()
        made = cv2.imread(str(after))
        drawn = cv2.resize(cv2.imread(str(before)), made.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(picture, np.hstack([drawn, made]))


if __name__ == "__main__":
    main(*sys.argv[1:])
