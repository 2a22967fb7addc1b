"""The main job on the sample clip: upscale it, restyle and upscale it, and show one frame of each."""

import shutil
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from velatura.runtime import Frame, Pump, open_engine, open_sink, open_source
from velatura.runtime.colour import to_rgb
from velatura.runtime.stages import Neural

CLIP = Path(__file__).with_name("clip.mp4")
SHOWN_SECOND = Fraction(5, 2)

# (result, models): the second restyles at the clip's own size and upscales what came out.
JOBS = (("upscaled.mp4", ("upscale-2x",)), ("restyled.mp4", ("starry-night", "upscale-2x")))


def process(result: Path, models: tuple[str, ...]) -> None:
    """What `velatura run CLIP RESULT -m MODEL...` does, in Python."""
    with open_source(CLIP) as source, open_sink(result, like=source, overwrite=True) as sink:
        engines = [open_engine(name) for name in models]
        stats = Pump(source, [Neural(engine) for engine in engines], sink).run()
        for engine in engines:
            engine.close()
    chain = " + ".join(f"{engine.card.name} ({engine.precision})" for engine in engines)
    sys.stdout.write(f"{result}: {stats.frames_out} frames through {chain}, {stats.rate:.0f} fps\n")


def frame_at(path: Path, seconds: Fraction) -> Frame:
    """The first frame at or after a time."""
    with open_source(path) as source:
        for frame in source:
            if frame.pts * frame.time_base >= seconds:
                return frame
    raise SystemExit(f"{path} ends before {float(seconds)} s")


def side_by_side(paths: list[Path], target: Path) -> None:
    """The same moment of each video, left to right, at the largest size; below, a detail four times."""
    pictures = [to_rgb(frame_at(path, SHOWN_SECOND)).planes[0] for path in paths]
    height, width = pictures[-1].shape[:2]
    large = [cv2.resize(p, (width, height), interpolation=cv2.INTER_CUBIC) for p in pictures]
    rows, columns = height // 4, width // 4
    top, left = height * 3 // 8, width * 3 // 8
    details = [
        cv2.resize(
            p[top : top + rows, left : left + columns], (width, height), interpolation=cv2.INTER_NEAREST
        )
        for p in large
    ]
    sheet = np.vstack([np.hstack(large), np.hstack(details)])
    cv2.imwrite(str(target), sheet[:, :, ::-1])


def main() -> None:
    """Write everything into `demo/`, or into the folder that is given."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    folder.mkdir(parents=True, exist_ok=True)
    for name, models in JOBS:
        process(folder / name, models)
    original = folder / "original.mp4"
    shutil.copyfile(CLIP, original)
    results = [original, *(folder / name for name, _ in JOBS)]
    side_by_side(results, folder / "side_by_side.png")
    sys.stdout.write(f"{folder / 'side_by_side.png'}: bicubic, upscaled, restyled and upscaled\n")


if __name__ == "__main__":
    main()
