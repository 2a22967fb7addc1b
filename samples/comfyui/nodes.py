"""Two nodes: a video from path to path, of which nothing is held in memory, and images.

ComfyUI itself is used where it is there: its folders, its progress bar, its button to stop.
"""

from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from velatura.runtime import (
    Frame,
    PixelFormat,
    Pump,
    VelaturaError,
    open_engine,
    open_sink,
    open_source,
)
from velatura.runtime.colour import to_format
from velatura.runtime.stages import Neural
from velatura.runtime.zoo import named_models

NONE = "none"
DEEP = PixelFormat("rgb", 16)


def comfy(name: str) -> Any:
    """A module of ComfyUI's, or None outside of it."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


def folder(which: str) -> Path:
    """ComfyUI's folder of that kind, `input` or `output`; the current one outside of it."""
    paths = comfy("folder_paths")
    return Path(getattr(paths, f"get_{which}_directory")()) if paths else Path.cwd()


def found(source: str) -> Path:
    """The file, looked for in ComfyUI's input folder unless its path is absolute."""
    return folder("input") / source.strip()


class VelaturaVideo:
    """Restyles and upscales a video file, frame by frame, with its sound. The path goes on."""

    CATEGORY = "velatura"
    FUNCTION = "render"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_NODE = True
    DESCRIPTION = "Restyles and upscales a video file without holding it in memory."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What ComfyUI draws. Models are listed anew whenever the page is loaded."""
        names = list(named_models())
        return {
            "required": {
                "source": (
                    "STRING",
                    {"default": "", "tooltip": "A video, in the input folder or by path"},
                ),
                "model": (names, {"default": "upscale-2x"}),
                "sink": ("STRING", {"default": "velatura.mp4", "tooltip": "In the output folder"}),
            },
            "optional": {
                "then": ([NONE, *names], {"default": NONE, "tooltip": "A second model"}),
                "overwrite": ("BOOLEAN", {"default": False}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, source: str | None = None, sink: str | None = None) -> bool | str:  # noqa: N802
        """True, or what is wrong. What another node gives is not known yet: it is None."""
        if source is not None and not found(source).is_file():
            return f"no video at {found(source)}"
        if sink is not None:
            root = folder("output").resolve()
            if not (root / sink).resolve().is_relative_to(root):
                return f"{sink} leads out of the output folder"
            if not Path(sink).suffix:
                return f"{sink} has no suffix, such as .mp4 or .mkv"
        return True

    @classmethod
    def IS_CHANGED(cls, source: str | None = None, **_: Any) -> Any:  # noqa: N802 - ComfyUI's name
        """What differs when the file at the path does; NaN, which equals nothing, while another node
        has yet to give the path."""
        try:
            facts = found(source).stat() if source is not None else None
        except OSError:
            facts = None
        return float("nan") if facts is None else f"{facts.st_size} {facts.st_mtime_ns}"

    def render(
        self, source: str, model: str, sink: str, then: str = NONE, overwrite: bool = False
    ) -> dict[str, Any]:
        """Make the file; returns its path, also as text to show. Raises ValueError with the reason."""
        told = self.VALIDATE_INPUTS(source, sink)
        if told is not True:
            raise ValueError(told)
        target = (folder("output") / sink).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            pump_through(found(source), target, [model, *([] if then == NONE else [then])], overwrite)
        except VelaturaError as error:
            raise ValueError(str(error)) from error
        return {"ui": {"text": [str(target)]}, "result": (str(target),)}


def pump_through(source: Path, target: Path, models: list[str], overwrite: bool) -> None:
    """Decode, infer and encode at the same time, a few frames on their way."""
    engines = [open_engine(name) for name in models]
    try:
        with (
            open_source(source) as frames,
            open_sink(target, like=frames, overwrite=overwrite) as sink,
        ):
            info = frames.info
            count = info.frames or round((info.duration or 0) * info.rate)
            Pump(frames, [Neural(engine) for engine in engines], sink).run(progress=shown(count))
    finally:
        for engine in engines:
            engine.close()


def shown(frames: int) -> Any:
    """A function that shows progress and raises when the user has stopped the queue."""
    tools, management = comfy("comfy.utils"), comfy("comfy.model_management")
    bar = tools.ProgressBar(frames) if tools and frames else None

    def tell(snapshot: Any) -> None:
        if management is not None:
            management.throw_exception_if_processing_interrupted()
        if bar is not None:
            bar.update_absolute(snapshot.frames)

    return tell


class VelaturaImages:
    """Restyles and upscales images: the type IMAGE, (N, H, W, 3 or 4) float32 in 0..1."""

    CATEGORY = "velatura"
    FUNCTION = "render"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    DESCRIPTION = "Restyles and upscales images, one after another."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What ComfyUI draws."""
        names = list(named_models())
        return {"required": {"images": ("IMAGE",), "model": (names, {"default": "upscale-2x"})}}

    def render(self, images: Any, model: str) -> tuple[Any]:
        """Returns the images after the model, (N, sH, sW, C) float32 in 0..1.

        They pass as 16 bits, in which neither an 8-bit nor a 10-bit picture loses a level.
        """
        import torch

        tell = shown(len(images))
        with open_engine(model) as engine:
            stage = Neural(engine)
            scale, (count, height, width, channels) = engine.card.scale, images.shape
            made = torch.empty((count, height * scale, width * scale, channels))
            for n in range(count):
                samples = images[n].cpu().numpy().clip(0, 1) * DEEP.peak
                whole = np.rint(samples).astype(np.uint16)
                frame = Frame(
                    planes=(np.ascontiguousarray(whole[:, :, :3]),), format=DEEP, pts=n,
                    time_base=Fraction(1), index=n,
                    alpha=np.ascontiguousarray(whole[:, :, 3]) if channels == 4 else None,
                )  # fmt: skip
                result = to_format(stage(frame), DEEP, frame.colour)
                parts = [
                    result.planes[0],
                    *([] if result.alpha is None else [result.alpha[:, :, None]]),
                ]
                joined = np.concatenate(parts, axis=2).astype(np.float32) / DEEP.peak
                made[n] = torch.from_numpy(joined)
                tell(Shown(n + 1))
        return (made,)


class Shown:
    """How many images are done."""

    def __init__(self, frames: int) -> None:
        self.frames = frames


NODE_CLASS_MAPPINGS = {"VelaturaVideo": VelaturaVideo, "VelaturaImages": VelaturaImages}
NODE_DISPLAY_NAME_MAPPINGS = {
    "VelaturaVideo": "velatura: video file",
    "VelaturaImages": "velatura: images",
}
