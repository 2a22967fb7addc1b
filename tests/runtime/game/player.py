"""A game in a process of its own: `python player.py NAME WIDTH HEIGHT` plays until it is killed."""

import sys

import numpy as np
from velatura.runtime.game import Client


def main(name: str, width: int, height: int) -> None:
    """Says `ready` when it has a server, and plays whatever happens."""
    client = Client(name, deadline_ms=1000.0, require=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    frame = np.zeros((height, width, 4), np.uint8)
    motion = np.zeros((height, width, 2), np.float32)
    turn = 0
    while True:
        turn += 1
        frame[:] = turn % 256
        if turn % 3:
            client(frame, motion)
        else:
            client.submit(frame)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
