"""Stability inside a game: the styles on the Panda3D sample, whose motion vectors are true.

E_warp is that of `training.metrics.stability`, between successive frames along the engine's own motion
there and back: the flow to the next frame is drawn by the same shader with the next frame's matrices.
`python -m benchmarks.game_stability --frames 20` is a short run that writes nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from velatura.runtime import Frame, PostProcess, open_engine
from velatura.runtime.frame import RGB
from velatura.runtime.stages import Neural
from velatura.runtime.temporal.stabilizer import Stabiliser
from velatura.training.metrics.base import Flow
from velatura.training.metrics.stability import gradient_energy, warp_error

MODEL = "starry-night"
SIZE = (640, 360)
FRAMES = 60
AFTER = 10
"""Frames that are drawn beyond those, for the cut."""
OTHERS = ("wave", "composition-vii", "udnie", "the-scream")
STRENGTHS = (0.5, 0.8, 0.9, 0.95)
ASKED = {
    "ewarp_over_net": "at most 0.333",
    "ewarp_over_source": "at most 1.5",
    "gradient_energy_over_net": "0.9 to 1.1",
}
FOLDER = Path(__file__).resolve().parents[1] / "samples" / "games" / "panda3d"
BLUR_SIGMA = 2.0
"""Of the control: a stage that beats it only by blurring has won nothing."""
ROUND = 7


@dataclass(frozen=True, slots=True)
class Drawn:
    """One frame of the game, top row first."""

    frame: Frame
    """Colour with motion to the frame before and linear depth."""
    forward: Flow
    """(H, W, 2) in pixels, to the frame after."""


def draw(count: int) -> tuple[list[Drawn], int]:
    """The first `count` frames of the street, and the number of the frame that follows a cut."""
    sys.path.insert(0, str(FOLDER))
    import scene  # pyright: ignore[reportMissingImports]

    game = scene.Game(SIZE)
    pixels = np.array([SIZE[0] / 2, -SIZE[1] / 2], np.float32)
    drawn: list[Drawn] = []
    for number in range(count):
        _, forward, _ = game.render(number, number + 1)
        after = np.array(forward[::-1] * pixels)
        colour, motion, depth = game.render(number, number - 1)
        frame = Frame(
            planes=(np.ascontiguousarray(colour[::-1, :, 2::-1]),),
            format=RGB,
            pts=number,
            time_base=Fraction(1, 30),
            index=number,
            motion=np.array(motion[::-1] * pixels),
            depth=np.array(depth[::-1]),
            cut=number in (0, scene.CUT),
        )
        drawn.append(Drawn(frame, after))
    game.base.destroy()
    return drawn, scene.CUT


def stabilised(
    drawn: Sequence[Drawn], made: Sequence[Frame], strength: float, fresh: Callable[[int], bool]
) -> tuple[list[Frame], float]:
    """The frames after the stage, and the median of its own time in milliseconds."""
    stage = Stabiliser(strength)
    shown: list[Frame] = []
    times: list[float] = []
    for number, (one, styled) in enumerate(zip(drawn, made, strict=True)):
        begin = time.perf_counter()
        shown.append(stage(one.frame, styled, fresh=fresh(number)))
        times.append((time.perf_counter() - begin) * 1e3)
    return shown, round(float(np.median(times)), 2)


def through_post(drawn: Sequence[Drawn]) -> list[Frame]:
    """The same frames through the public face, every model on every frame."""
    pictures: list[Frame] = []
    with PostProcess(MODEL, SIZE, order="rgb") as post:
        for one in drawn:
            frame = one.frame
            shown = post(frame.planes[0], frame.motion, frame.depth, reset=frame.cut)
            pictures.append(replace(frame, planes=(np.array(shown),)))
    return pictures


def blurred(frame: Frame) -> Frame:
    """The control."""
    return frame.with_planes((cv2.GaussianBlur(frame.planes[0], (0, 0), BLUR_SIGMA),), RGB)


class Judge:
    """Measures of sequences of frames over the net's and the source's own."""

    def __init__(self, drawn: Sequence[Drawn], net: Sequence[Frame]) -> None:
        self.flows = [(a.forward, np.asarray(b.frame.motion)) for a, b in pairwise(drawn)]
        self.source = self.measures([one.frame for one in drawn])
        self.net = self.measures(net)

    def measures(self, frames: Sequence[Frame]) -> tuple[float, float]:
        """E_warp and gradient energy, pictures scaled to 0..1."""
        pictures = [frame.planes[0] for frame in frames]
        energy = float(np.mean([gradient_energy(picture / 255.0) for picture in pictures]))
        return warp_error(pictures, self.flows), energy

    def __call__(self, frames: Sequence[Frame]) -> dict[str, float]:
        error, energy = self.measures(frames)
        return {
            "ewarp": round(error, ROUND),
            "ewarp_over_net": round(error / self.net[0], 3),
            "ewarp_over_source": round(error / self.source[0], 3),
            "gradient_energy": round(energy, ROUND),
            "gradient_energy_over_net": round(energy / self.net[1], 3),
        }


def perfect(drawn: Sequence[Drawn], frames: Sequence[Frame], *, kept: float = 0.9) -> dict[str, float]:
    """E_warp of pictures of this sharpness that move without any flaw.

    The measure samples bilinearly, which blurs what lies between pixels, so that sharp pictures differ
    from themselves however well they were moved. In the frames' spectrum S, with the bilinear filter's
    error e(w) = |1 - B(w)|^2 averaged over the scene's own motions, that is sum(S e). The second figure
    is the least that is left where `kept` of the gradient energy sum(S g) is: without the frequencies
    that cost most for it.
    """
    random = np.random.default_rng(1)
    pixels = random.integers(0, SIZE[0] * SIZE[1], 30)
    motions = np.concatenate([np.reshape(one.frame.motion, (-1, 2))[pixels] for one in drawn[1::8]])
    spectrum = np.zeros((2 * SIZE[1], 2 * SIZE[0]))
    for frame in (chosen := frames[::20]):
        picture = frame.planes[0] / 255.0
        picture = np.concatenate([picture, picture[::-1]])
        picture = np.concatenate([picture, picture[:, ::-1]], 1)
        part = np.fft.fft2(picture, axes=(0, 1)) / spectrum.size
        spectrum += np.square(np.abs(part)).mean(2) / len(chosen)
    y, x = (2 * np.pi * np.fft.fftfreq(n) for n in spectrum.shape)

    def bilinear(w: "np.ndarray[Any, Any]", part: float) -> "np.ndarray[Any, Any]":
        return (1 - part + part * np.exp(-1j * w)) * np.exp(1j * w * part)

    error = np.zeros_like(spectrum)
    for dx, dy in motions % 1:
        error += np.square(np.abs(1 - bilinear(y, dy)[:, None] * bilinear(x, dx))) / len(motions)
    gradient = 4 * np.square(np.sin(y / 2))[:, None] + 4 * np.square(np.sin(x / 2))
    order = np.argsort((error / np.maximum(gradient, 1e-12)).ravel())
    energy = np.cumsum((spectrum * gradient).ravel()[order])
    least = np.cumsum((spectrum * error).ravel()[order])[np.searchsorted(energy, kept * energy[-1])]
    return {
        "ewarp": round(float((spectrum * error).sum()), ROUND),
        f"ewarp_at_{kept}_of_gradient_energy": round(float(least), ROUND),
    }


def of_style(drawn: Sequence[Drawn], model: str) -> dict[str, Any]:
    """The net, and the stage at its default strength after it."""
    with open_engine(model, precision="fp32") as engine:
        stage = Neural(engine)
        made = [stage(one.frame) for one in drawn]
    judge = Judge(drawn, made)
    shown, _ = stabilised(drawn, made, 0.9, lambda _: True)
    return {
        "net": judge(made),
        "stabilised_0.9": judge(shown),
        "net_moved_perfectly": perfect(drawn, made),
    }


def cut(drawn: Sequence[Drawn], net: Sequence[Frame], at: int) -> dict[str, Any]:
    """What is left of the frame before the cut in the frame after it, and how it settles then."""
    shown, _ = stabilised(drawn, net, 0.9, lambda _: True)
    difference = np.abs(shown[at].planes[0].astype(int) - net[at].planes[0])
    return {
        "frame": at,
        "largest_difference_from_net_in_levels": int(difference.max()),
        "before": Judge(drawn[:at], net[:at])(shown[:at])["ewarp_over_net"],
        "after": Judge(drawn[at:], net[at:])(shown[at:])["ewarp_over_net"],
    }


def measure(count: int = FRAMES) -> dict[str, Any]:
    """All rows, on `count` frames, or as many as there are before the cut.

    Raises FileNotFoundError where Panda3D is not installed.
    """
    try:
        everything, at = draw(count + AFTER)
    except ImportError as error:
        raise FileNotFoundError(f"Panda3D cannot be used: {error}") from error
    with open_engine(MODEL, precision="fp32") as engine:
        stage = Neural(engine)
        net = [stage(one.frame) for one in everything]
        backend = engine.precision
    count = min(count, at)
    drawn, made = everything[:count], net[:count]
    judge = Judge(drawn, made)
    # What a game with the models on every second frame has in between: its own picture.
    stand_in = [m if k % 2 == 0 else d.frame for k, (d, m) in enumerate(zip(drawn, made, strict=True))]
    rows = {
        "source": judge([one.frame for one in drawn]),
        "net": judge(made),
        "net_blurred": judge([blurred(frame) for frame in made]),
    }
    cost: dict[str, float] = {}
    for strength in STRENGTHS:
        shown, cost[f"{strength}"] = stabilised(drawn, made, strength, lambda _: True)
        rows[f"stabilised_{strength}"] = judge(shown)
    shown, cost["every_second"] = stabilised(drawn, stand_in, 0.9, lambda number: number % 2 == 0)
    rows["net_on_every_second_frame"] = judge(shown)
    rows["post_process"] = judge(through_post(drawn))
    found: dict[str, Any] = {
        "model": MODEL,
        "precision": backend,
        "size": list(SIZE),
        "frames": count,
        "asked_of_stabilised_0.9": ASKED,
        "rows": rows,
        "moved_perfectly": {
            "source": perfect(drawn, [one.frame for one in drawn]),
            "net": perfect(drawn, made),
        },
        "others": {name: of_style(drawn, name) for name in OTHERS},
        "stage_median_ms": cost,
    }
    if len(everything) > at:
        found["cut"] = cut(everything, net, at)
    return found


def main() -> int:
    """A short run, to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES)
    sys.stdout.write(json.dumps(measure(parser.parse_args().frames), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
