"""A stage of one's own: any callable from Frame to Frame. This one writes the time into the picture."""

import sys
from dataclasses import replace

import cv2
from velatura.runtime import Frame, Pump, open_engine, open_sink, open_source
from velatura.runtime.stages import Neural


def stamp(frame: Frame) -> Frame:
    """Draw the presentation time into a copy of the luma plane: frames are never written into."""
    luma = frame.planes[0].copy()
    cv2.putText(luma, f"{frame.seconds:6.2f} s", (16, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 235, 2)
    return replace(frame, planes=(luma, *frame.planes[1:]))


def main() -> None:
    """`python samples/own_stage.py IN OUT`"""
    given, target = sys.argv[1:3]
    with (
        open_source(given) as source,
        open_engine("upscale-2x") as engine,
        open_sink(target, like=source, overwrite=True) as sink,
    ):
        stats = Pump(source, [Neural(engine), stamp], sink).run()
    sys.stdout.write(f"{target}: {stats.frames_out} frames, {stats.rate:.0f} fps\n")


if __name__ == "__main__":
    main()
