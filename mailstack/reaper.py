"""Takes a lab down when its time has come: `python -m mailstack.reaper LAB MOMENT`, started by `up --ttl`.

A process of its own, since the lab outlives the command that made it. It ends early when the lab is gone.
"""

from __future__ import annotations

import sys
import time

from mailstack.down import down
from mailstack.state import LabDirectory

# How soon after a `down` by hand the waiting process is gone, too; in seconds.
_LOOK = 2.0


def wait(directory: LabDirectory, moment: float) -> bool:
    """Wait until `moment` (seconds of the epoch); False as soon as the lab is gone, or another one with its name."""
    while True:
        found = directory.load()
        if found is None or found.expires != str(int(moment)):
            return False
        left = moment - time.time()
        if left <= 0:
            return True
        time.sleep(min(left, _LOOK))


def main(name: str, moment: str) -> None:
    """Wait, then take the lab down."""
    if wait(LabDirectory(name), float(moment)):
        down(name, lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
