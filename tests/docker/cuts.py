"""Cut the connection to a host over SSH at random moments of `up`, and check the messages and what is left.

    python -m tests.docker.cuts [COUNT] [SEED]      by default 20 cuts

The connection is cut on the machine: the process of sshd for it is killed. If there is no connection yet, or `up`
has ended, the cut is repeated at another moment.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mailstack.images import base
from mailstack.runner.local import Local
from tests import engines
from tests.docker import nested
from tests.docker.bad import alone, run
from tests.docker.remote import bare, left, mailstack

HOST = "tester"
LAB = "cut"
TRIES = 5  # for each cut: when nearly all come too early or too late, they show nothing
SECONDS = 15.0  # how long it may take until it is told
UP = [sys.executable, "-m", "mailstack", "up", "-n", LAB, "--host", HOST]


@dataclass(frozen=True)
class Cut:
    """One cut and its result."""

    moment: float  # as a part of how long the whole takes
    code: int
    seconds: float  # from the cut until the command had ended
    message: str  # the last
    left: tuple[str, ...]  # after `down`

    @property
    def missed(self) -> bool:
        """Return whether the cut came too late, after the work was done."""
        return self.code == 0 and not self.left

    @property
    def bad(self) -> bool:
        """Return whether the message was late, or lacked the host's name in its first line, or something is left."""
        told = self.code == 3 and self.seconds < SECONDS and HOST in self.message.partition("\n")[0]
        return bool(self.left) or not (told or self.missed)

    def __str__(self) -> str:
        end = f"LEFT: {', '.join(self.left)}" if self.left else "nothing left"
        words = "not cut" if self.missed else " ".join(self.message.split())
        return f"at {self.moment:4.0%}: code {self.code} after {self.seconds:5.2f} s, {end}: {words[:110]}".rstrip(": ")


def cuts(machine: nested.Machine, count: int, seed: int) -> Iterator[Cut]:
    """Cut `count` times, not counting cuts that came too late. The seed determines every moment."""
    chance = random.Random(seed)
    whole = _whole(machine)
    made = 0
    for _ in range(TRIES * count):
        done = _cut(machine, chance.random(), whole)
        if done is not None:
            yield done
            made += not done.missed
        if made == count:
            return
    raise AssertionError(f"{made} of {count} cuts could be made in {TRIES * count} tries")


def _whole(machine: nested.Machine) -> float:
    """Return how long `up` takes without a cut, in seconds."""
    begun = time.monotonic()
    mailstack(machine, "up", "-n", LAB)
    taken = time.monotonic() - begun
    mailstack(machine, "down", "-n", LAB)
    assert left(machine) == []
    return taken


def _cut(machine: nested.Machine, moment: float, whole: float) -> Cut | None:
    """Cut once; return None if there was nothing to cut."""
    environment = {**os.environ, "HOME": str(machine.home)}
    with subprocess.Popen(UP, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(moment * whole)  # a moment of its own, not one that is waited for
        running = process.poll() is None
        killed, _ = machine.container.exec_run(["pkill", "-KILL", "-f", "^sshd-session"])
        cut = time.monotonic()
        _, said = process.communicate(timeout=60)
        seconds = time.monotonic() - cut
    mailstack(machine, "down", "-n", LAB)
    remains = tuple(left(machine))
    if not running or killed != 0:
        assert not remains, remains
        return None
    return Cut(
        moment, process.returncode, seconds, said.rpartition("mailstack: ")[2] if process.returncode else "", remains
    )


def main(count: int = 20, seed: int | None = None) -> int:
    """Show each cut, and the slowest; return 1 if one failed."""
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}", flush=True)
    every = []
    with alone("cuts"):
        base.ensure_base(engines.here(), Local(), print)
        nested.build(nested.REMOTE)
        run(["up", "-n", LAB])  # the images are there after that
        run(["down", "-n", LAB])
        with bare() as machine:
            for cut in cuts(machine, count, seed):
                every.append(cut)
                print(cut, flush=True)
    made = [cut for cut in every if not cut.missed]
    bad = [cut for cut in every if cut.bad]
    print(
        f"{len(made)} cuts, {len(bad)} of them no good; slowest {max(cut.seconds for cut in made):.2f} s;"
        f" {len(every) - len(made)} came too late, and are not counted"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
