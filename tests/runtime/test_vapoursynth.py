"""`velatura.vapoursynth.apply` in VapourSynth itself: the frames of the stage, as many at a time as are
asked for."""

import gc
import runpy
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime import Colour, Frame, ModelError, PixelFormat, SourceError, open_engine
from velatura.runtime.card import ModelCard
from velatura.runtime.colour import to_format
from velatura.runtime.stages import Neural
from velatura.vapoursynth import apply

from . import networks

vs = pytest.importorskip("vapoursynth")
core = vs.core

MIX = np.array([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.6, 0.0, 0.4]])
"""Not symmetric, so that swapped channels show."""


@pytest.fixture(scope="module")
def luma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("luma"), channels=1)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    proto = networks.mixer(MIX)
    ModelCard(name="mix", task="style", halo=0).write_to(proto)
    return networks.write(proto, tmp_path_factory.mktemp("colour") / "mix.onnx")


def model(folder: Path, *, channels: int) -> Path:
    proto = networks.deep(channels=channels, scale=2)
    kind = "luma" if channels == 1 else "rgb"
    card = ModelCard(
        name="deep", task="upscale", scale=2, size_multiple=2, input_colour=kind, output_colour=kind
    )
    card.write_to(proto)
    return networks.write(proto, folder / "deep.onnx")


def moving(format: Any, *, length: int = 6, width: int = 64, height: int = 48, **props: int) -> Any:
    """A clip of which every frame is different, with these properties."""
    clip = core.std.BlankClip(format=format, width=width, height=height, length=length, keep=True)

    def draw(n: int, f: Any) -> Any:
        frame = f.copy()
        random = np.random.default_rng(n)
        for i in range(frame.format.num_planes):
            plane = np.asarray(frame[i])
            coarse = random.integers(0, 1 << frame.format.bits_per_sample, (6, 8))
            rows = np.arange(plane.shape[0]) * 6 // plane.shape[0]
            columns = np.arange(plane.shape[1]) * 8 // plane.shape[1]
            plane[:] = coarse[rows][:, columns]
        for key, value in props.items():
            frame.props[key] = value
        return frame

    return clip.std.ModifyFrame(clip, draw)


def expected(frame: Any, path: Path, format: PixelFormat, colour: Colour) -> Frame:
    """What the stage makes of the frame, with nothing of VapourSynth's around it."""
    planes = tuple(np.array(frame[i]) for i in range(frame.format.num_planes))
    if format.family == "rgb":
        planes = (np.dstack(planes),)
    given = Frame(planes=planes, format=format, pts=0, time_base=Fraction(1), colour=colour)
    with open_engine(path, precision="fp32") as engine:
        return to_format(Neural(engine)(given), format, colour)


FORMATS = {
    "YUV420P8": PixelFormat("yuv", 8, (2, 2)),
    "YUV422P10": PixelFormat("yuv", 10, (2, 1)),
    "YUV444P16": PixelFormat("yuv", 16),
    "RGB24": PixelFormat("rgb", 8),
    "RGB48": PixelFormat("rgb", 16),
    "GRAY8": PixelFormat("gray", 8),
    "GRAY12": PixelFormat("gray", 12),
}


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("kind", ["luma", "colour"])
def test_a_clip_keeps_its_format_and_gets_what_the_stage_makes(
    name: str, kind: str, luma: Path, colour: Path
) -> None:
    path = luma if kind == "luma" else colour
    clip = moving(getattr(vs, name), length=2)
    made = apply(clip, path, precision="fp32")
    scale = 2 if kind == "luma" else 1
    assert (made.width, made.height) == (64 * scale, 48 * scale)
    assert (made.format.id, made.num_frames, made.fps) == (clip.format.id, 2, clip.fps)
    found = made.get_frame(1)
    wanted = expected(clip.get_frame(1), path, FORMATS[name], Colour(matrix="bt601"))
    for i in range(found.format.num_planes):
        plane = wanted.planes[0][:, :, i] if name.startswith("RGB") else wanted.planes[i]
        assert np.array_equal(np.asarray(found[i]), plane)
    assert np.asarray(found[0]).std() > 0


@pytest.mark.parametrize(
    ("props", "wanted"),
    [
        ({"_Matrix": 1, "_Range": 0}, Colour(matrix="bt709")),
        ({"_Matrix": 9, "_Range": 1}, Colour(matrix="bt2020", range="full")),
        ({"_Matrix": 6, "_ColorRange": 0, "_ChromaLocation": 1},
         Colour(matrix="bt601", range="full", siting="center")),
        ({"_Matrix": 5, "_ColorRange": 1, "_ChromaLocation": 2},
         Colour(matrix="bt601", siting="topleft")),
    ],
)  # fmt: skip
def test_colours_are_those_of_the_frames_properties(
    props: dict[str, int], wanted: Colour, colour: Path
) -> None:
    clip = moving(vs.YUV420P8, length=1, _Mine=7, **props)
    found = apply(clip, colour, precision="fp32").get_frame(0)
    right = expected(clip.get_frame(0), colour, FORMATS["YUV420P8"], wanted)
    for i in range(3):
        assert np.array_equal(np.asarray(found[i]), right.planes[i])
    assert found.props["_Mine"] == 7
    assert dict(found.props) == dict(clip.get_frame(0).props)


def test_the_range_is_the_one_that_vapoursynth_writes(colour: Path) -> None:
    """Whichever of the two properties it is, and whatever stands for full there."""
    limited = moving(vs.YUV444P8, length=1, _Matrix=1)
    full = limited.resize.Point(range_in=vs.RANGE_LIMITED, range=vs.RANGE_FULL)
    found = apply(full, colour, precision="fp32").get_frame(0)
    wanted = Colour(matrix="bt709", range="full")
    right = expected(full.get_frame(0), colour, PixelFormat("yuv", 8), wanted)
    assert np.array_equal(np.asarray(found[1]), right.planes[1])


def test_several_models_follow_one_another(luma: Path, colour: Path) -> None:
    clip = moving(vs.YUV420P8)
    both = apply(clip, [colour, luma], precision="fp32")
    assert (both.width, both.height) == (128, 96)
    apart = apply(apply(clip, colour, precision="fp32"), luma, precision="fp32")
    # Rounded to 4:2:0 between the two where each is a filter of its own: near, not equal.
    for n in (0, 5):
        first, second = (np.asarray(c.get_frame(n)[0]).astype(int) for c in (both, apart))
        assert np.abs(first - second).mean() < 2


def test_frames_come_right_in_any_order_and_again(luma: Path) -> None:
    clip = moving(vs.YUV420P8, length=12)
    made = apply(clip, luma, precision="fp32")
    in_order = [np.array(frame[0]) for frame in made.frames()]
    for n in (11, 3, 3, 0, 7, 11):
        assert np.array_equal(np.asarray(made.get_frame(n)[0]), in_order[n])
    made.clear_cache()
    assert np.array_equal(np.asarray(made.get_frame(4)[0]), in_order[4])
    assert not np.array_equal(in_order[4], in_order[5])


def test_as_many_frames_are_in_flight_as_are_asked_for(
    luma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first frame is held back until the engine has got a second one."""
    from velatura.runtime.backends import openvino

    second, begun = threading.Event(), []
    submit = openvino.OpenVinoEngine.submit

    def counted(self: Any, image: np.ndarray, bits: int = 8) -> Any:
        begun.append(1)
        if len(begun) == 2:
            second.set()
        pending = submit(self, image, bits)
        return lambda: pending() if second.wait(30) else pytest.fail("the second never came")

    monkeypatch.setattr(openvino.OpenVinoEngine, "submit", counted)
    made = apply(moving(vs.YUV420P8), luma, backend="openvino", precision="fp32")
    asked = [made.get_frame_async(n) for n in range(2)]
    assert all(future.result(timeout=60).width == 128 for future in asked)


def test_what_is_dropped_ends_its_threads(luma: Path) -> None:
    def serving() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("velatura-vs")}

    before = serving()
    made = apply(moving(vs.YUV420P8), luma, precision="fp32")
    made.get_frame(0).close()
    (thread,) = serving() - before
    del made
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


END = """
import sys
import vapoursynth as vs
from velatura.vapoursynth import apply
how, path = sys.argv[1:]
clip = vs.core.std.BlankClip(format=vs.YUV420P8, width=320, height=180, length=30)
made = apply(clip, path, precision="fp32")
if how == "asked":
    futures = [made.get_frame_async(n) for n in range(4)]
    futures[0].result()
else:
    for number, frame in enumerate(made.frames()):
        if how == "broken off" and number == 3:
            break
print("the end", flush=True)
"""


@pytest.mark.parametrize("how", ["finished", "broken off", "asked"])
def test_a_process_ends_well_with_frames_on_their_way(how: str, luma: Path) -> None:
    """Threads that were cut off in an inference library crashed it, or VapourSynth waited for ever."""
    command = [sys.executable, "-c", END, how, str(luma)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the end\n"


def test_a_clip_of_variable_format_or_float_is_refused(luma: Path) -> None:
    even = core.std.BlankClip(format=vs.YUV420P8, width=64, height=48)
    odd = core.std.BlankClip(format=vs.YUV420P8, width=32, height=48)
    with pytest.raises(SourceError, match=r"varies.*resize\.Bicubic"):
        apply(core.std.Splice([even, odd], mismatch=True), luma)
    other = core.std.BlankClip(format=vs.RGB24, width=64, height=48)
    with pytest.raises(SourceError, match="varies"):
        apply(core.std.Splice([even, other], mismatch=True), luma)
    for name in ("RGBS", "YUV420PS", "GRAYH"):
        blank = core.std.BlankClip(format=getattr(vs, name), width=64, height=48)
        with pytest.raises(SourceError, match=rf"(?i)is {name}.*RGB48"):
            apply(blank, luma)


@pytest.mark.parametrize(
    ("props", "told"),
    [
        ({"_FieldBased": 2}, "interlaced"),
        ({"_Matrix": 8}, "_Matrix"),
        ({"_ChromaLocation": 5}, "_ChromaL"),
    ],
)
def test_a_frame_that_would_come_out_wrong_is_an_error(
    props: dict[str, int], told: str, colour: Path
) -> None:
    made = apply(moving(vs.YUV420P8, **props), colour, precision="fp32")
    with pytest.raises(vs.Error, match=told):
        made.get_frame(0)


@pytest.mark.parametrize(("name", "size"), [("restyle.vpy", (1280, 720)), ("mpv.vpy", (128, 96))])
def test_the_samples_run(name: str, size: tuple[int, int]) -> None:
    path = Path(__file__).resolve().parents[2] / "samples" / "vapoursynth" / name
    vs.clear_outputs()
    runpy.run_path(str(path), {"video_in": moving(vs.YUV420P8)})
    clip = vs.get_output(0).clip
    vs.clear_outputs()
    frame = clip.get_frame(0)
    assert (frame.width, frame.height) == size


def test_models_are_named_right_or_refused() -> None:
    clip = moving(vs.YUV420P8)
    with pytest.raises(ModelError, match=r"did you mean upscale-2x"):
        apply(clip, "upscal-2x")
    with pytest.raises(ModelError, match="no model is named"):
        apply(clip, [])
