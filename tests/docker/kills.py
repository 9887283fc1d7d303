"""Kill processes that create or use a lab at random moments, and measure how long anything of the lab is left.

    python -m tests.docker.kills [COUNT] [SEED]      by default 30 kills

The controller is `mailstack up`. The experiment is the command. The master is pytest, alone or with two workers. A
worker is one of these two: the run must continue without it, and is checked when it has ended.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mailstack.lab import homes
from tests import engines
from tests.docker.bad import MAILSTACK, Traces, alone, run, until
from tests.docker.suites import PLUGIN

KINDS = ("controller", "experiment", "master", "master of workers", "worker")
SECONDS = 15.0  # how long it may take until nothing is left
RUN_SECONDS = 120.0  # how long a run of pytest may take
LAB = "killed"
TESTS = 12

SUITE = f"""
import pytest
from email.message import EmailMessage


@pytest.mark.parametrize("number", range({TESTS}))
def test_mail(number, mailbox, smtp_settings):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", mailbox.address, f"number {{number}}"
    mail.set_content("hello")
    with smtp_settings.connect() as session:
        session.send_message(mail)
    assert mailbox.wait_for_message(timeout=60).subject == f"number {{number}}"
"""


@dataclass(frozen=True)
class Kill:
    """One kill and its result."""

    kind: str
    moment: float  # as a part of how long the whole takes
    found: int  # things that carried the owner's label, and files, as it was killed
    seconds: float  # from the kill (a worker's: from the end of the run) until nothing was left
    left: frozenset[str]  # after SECONDS
    said: str = ""  # why it is no good besides

    @property
    def good(self) -> bool:
        """Return whether the kill left nothing in time, and disturbed no other lab."""
        return not self.left and not self.said

    def __str__(self) -> str:
        end = f"nothing left after {self.seconds:.2f} s" if not self.left else f"LEFT: {', '.join(sorted(self.left))}"
        return f"{self.kind:<18} at {self.moment:4.0%}, {self.found:2} things there: {end} {self.said}".rstrip()


def kills(count: int, seed: int) -> Iterator[Kill]:
    """Kill `count` times, each kind in turn. The seed determines every moment."""
    chance = random.Random(seed)
    with alone("kills") as traces, tempfile.TemporaryDirectory(prefix="kills-") as place:
        suite = Path(place) / "test_suite.py"
        suite.write_text(SUITE)
        whole: dict[str, float] = {}
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            command = "master of workers" if kind == "worker" else kind
            if command not in whole:
                whole[command] = _whole(command, suite)
            yield _kill(kind, chance.random(), whole[command], suite, traces, chance)


def _start(kind: str, suite: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "pytest", "-q", *PLUGIN, "-p", "no:cacheprovider", str(suite)]
    if kind == "controller":
        words = [MAILSTACK, "up", "-n", LAB]
    elif kind == "experiment":
        words = [MAILSTACK, "experiment"]
    elif kind != "master":
        words += ["-n", "2"]
    return subprocess.Popen(words, cwd=suite.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _whole(kind: str, suite: Path) -> float:
    """Return how long the process takes if nothing kills it, in seconds."""
    begun = time.monotonic()
    with _start(kind, suite) as process:
        said, _ = process.communicate(timeout=RUN_SECONDS)
    taken = time.monotonic() - begun
    assert process.returncode == 0, said
    run(["down", "-n", LAB])
    return taken


def _kill(kind: str, moment: float, whole: float, suite: Path, traces: Traces, chance: random.Random) -> Kill:
    said, found = "", 0
    with _start(kind, suite) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment * whole)
        late = process.poll() is not None
        if not late and kind == "worker" and (workers := _workers(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
            found = len(traces.all())
            output, _ = process.communicate(timeout=RUN_SECONDS)
            said = _judged(output)
        else:  # where there is no worker yet, its master
            process.kill()
            found = len(traces.all())
    kept = homes.directory(engines.here(), LAB).load()
    if late or (kept and kept.stays):
        # It had done its work, or the lab was proven, so the user's: a moment that came too late.
        run(["down", "-n", LAB])
        return _kill(kind, moment * 0.7, whole, suite, traces, chance)
    begun = time.monotonic()
    gone = until(lambda: not traces.all(), SECONDS)
    seconds = time.monotonic() - begun
    left = frozenset() if gone else frozenset(traces.all())
    if not until(lambda: not traces.processes(), SECONDS):
        said += f" still running: {sorted(traces.processes().values())}"
    run(["down", "--all"])
    return Kill(kind, moment, found, seconds, left, said)


def _workers(master: int) -> list[int]:
    """Return the workers of a pytest: its children that execnet started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])  # proc(5)
            if parent == master and b"exec(eval(" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _judged(output: str) -> str:
    """Return what is wrong with a run that lost a worker: more than the one test that the worker was running."""
    if "in bootstrap_import" in output:  # killed before it was a worker: then xdist itself gives up
        return ""
    summary = output.strip().rpartition("\n")[2]
    words = summary.replace(",", " ").split()
    counted = {what.rstrip("s"): int(number) for number, what in itertools.pairwise(words) if number.isdigit()}
    lost = counted.get("failed", 0) + counted.get("error", 0)
    if counted.get("passed", 0) >= TESTS - 1 and lost <= 1:
        return ""
    return "the others were disturbed: " + output[-1500:]


def main(count: int = 30, seed: int | None = None) -> int:
    """Show each kill, and the slowest; return 1 if one failed."""
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}", flush=True)
    every = []
    for kill in kills(count, seed):
        every.append(kill)
        print(kill, flush=True)
    bad = [kill for kill in every if not kill.good]
    print(f"{len(every)} kills, {len(bad)} of them no good; slowest {max(k.seconds for k in every):.2f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
