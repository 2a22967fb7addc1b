"""A client that means harm: `python hostile.py NAME SEED SECONDS` writes garbage wherever it is let."""

import sys
import time
from contextlib import suppress

import numpy as np
from velatura.runtime.errors import EngineError
from velatura.runtime.game.shm import layout
from velatura.runtime.game.shm.layout import Area, Request
from velatura.runtime.game.shm.segment import Segment
from velatura.runtime.game.shm.slot_client import Link

EXTREMES = (0, 1, 2, 3, 4, 63, 64, 65, 255, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def attack(rng: np.random.Generator, link: Link, segment: Segment) -> None:
    """One harm of several kinds, to its own slot, to free ones, or to the header."""
    plan, slot = segment.plan, link._slot
    page = segment.bytes(Area(plan.slot(slot).offset, layout.PAGE))
    kind = rng.integers(0, 9)
    if kind == 0:  # noise over the whole of its own page
        begin, size = int(rng.integers(0, 4000)), int(rng.integers(1, 96))
        page[begin : begin + size] = rng.integers(0, 256, size, np.uint8)
    elif kind == 1:  # one bit
        page[rng.integers(0, 1024)] ^= np.uint8(1 << rng.integers(0, 8))
    elif kind == 2:  # noise over the header
        begin, size = int(rng.integers(0, 160)), int(rng.integers(1, 64))
        segment.bytes(Area(begin, size))[:] = rng.integers(0, 256, size, np.uint8)
    elif kind == 3:  # noise over slots that nobody has
        for other in range(plan.slot_count):
            control = segment.record(layout.CONTROL, plan.slot(other).offset)
            if other != slot and int(control["state"][0]) != layout.TAKEN:
                segment.bytes(Area(plan.slot(other).offset, 128))[:] = rng.integers(
                    0, 256, 128, np.uint8
                )
    elif kind in (4, 5):  # requests that could nearly be meant
        words = rng.choice(np.array(EXTREMES, np.uint32), 32)
        for turn in range(plan.ring):
            link._requests[turn].view(np.uint8)[:] = words.view(np.uint8)
            request = Request.read(link._requests[turn])
            if rng.random() < 0.7:
                request = Request(
                    sequence=link._completed.value,
                    width=int(rng.choice(EXTREMES[:9])), height=int(rng.choice(EXTREMES[:9])),
                    stride=int(rng.choice(EXTREMES)), format=int(rng.integers(0, 4)),
                    flags=int(rng.integers(0, 1024)),
                    **{name: int(rng.choice(EXTREMES[:9])) for name in SIZES},
                    motion_scale_x=float(rng.choice(FLOATS)), depth_near=float(rng.choice(FLOATS)),
                    depth_far=float(rng.choice(FLOATS)), jitter_x=float(rng.choice(FLOATS)),
                    deadline_us=int(rng.choice(EXTREMES)), submitted_ns=int(rng.integers(0, 1 << 62)),
                )  # fmt: skip
            request.write(link._requests[turn])
        count = int(rng.integers(0, 5)) if rng.random() < 0.9 else int(rng.choice(EXTREMES))
        link._submitted.value = link._completed.value + count
        link._submitted.wake()
    elif kind == 6:  # a flood of wakes
        doorbell = segment.futex(layout.HEADER, 0, "doorbell")
        for _ in range(50):
            doorbell.value = doorbell.value + 1
            doorbell.wake()
            link._submitted.wake()
    elif kind == 7:  # counters
        link._submitted.value = int(rng.integers(0, 1 << 32))
        link._submitted.wake()
    else:  # NaNs and infinities beside a picture that is right
        area = plan.areas(slot, 0)[2]
        segment.bytes(area)[:1024] = rng.integers(0, 256, 1024, np.uint8)


SIZES = ("motion_width", "motion_height", "depth_width", "depth_height", "reactive_width",
         "reactive_height")  # fmt: skip
FLOATS = (0.0, 1.0, -1.0, 1e-40, 3e38, float("inf"), float("-inf"), float("nan"))


def main(name: str, seed: int, seconds: float) -> int:
    """How often it had a slot is its answer."""
    rng = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    slots = 0
    while time.monotonic() < end:
        # The header is garbage at times, by its own doing.
        with suppress(EngineError):
            link = Link(name)
            slots += 1
            for _ in range(int(rng.integers(1, 80))):
                attack(rng, link, link.segment)
            link.close()
    return slots


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))}\n")
