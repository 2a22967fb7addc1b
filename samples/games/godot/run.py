"""Compile the library, serve a model, run the project in Godot 3 without a screen, keep a picture."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
VELATURA = [sys.executable, "-m", "velatura.runtime"]
LIBRARY = ["gcc", "-std=c99", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
SCREEN = ["xvfb-run", "-a", "-s", "-screen 0 640x360x24"]
GODOT = ["godot3", "--video-driver", "GLES2", "--audio-driver", "Dummy", "--path"]


def main(
    picture: str = str(HERE / "picture.png"), model: str = "starry-night", frames: str = "12"
) -> None:
    name = f"godot-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        project, before, after = (
            Path(folder) / part for part in ("project", "before.png", "after.png")
        )
        shutil.copytree(HERE, project)
        include = subprocess.check_output([*VELATURA, "include-dir"], text=True).strip()
        source, library = project / "velatura_godot.c", project / "velatura_godot.so"
        subprocess.run([*LIBRARY, f"-I{include}", source, "-o", library], check=True)
        told = {"NAME": name, "FRAMES": frames, "BEFORE": str(before), "AFTER": str(after)}
        environment = os.environ | {f"VELATURA_{key}": value for key, value in told.items()}
        environment["LANG"] = "en_US.UTF-8"
        # Godot writes settings into the user's folders; these are nobody's.
        for key in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            environment[key] = folder
        server = subprocess.Popen([*VELATURA, "serve", "--shm", name, "-m", model, "--quiet"])
        try:
            subprocess.run([*SCREEN, *GODOT, project], env=environment, check=True)
        finally:
            server.terminate()
            server.wait()
        cv2.imwrite(picture, np.hstack([cv2.imread(str(before)), cv2.imread(str(after))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
