"""Kill a nested engine while `up` or `down` works with it; its containers end with it, and it is started again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.docker import nested

MAILSTACK = "/opt/mailstack/bin/mailstack"
LAB = "engine-killed"


@dataclass(frozen=True)
class EngineTrial:
    """One kill of the engine and its result."""

    command: str
    moment: float  # seconds after the command was started
    code: int  # of the command that lost its engine
    seconds: float  # of the command after it
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        end = "good" if not self.wrong else "BAD: " + "; ".join(self.wrong)
        return f"{self.command:<15} engine   at {self.moment:4.2f} s, code {self.code:<7} {self.seconds:5.2f} s: {end}"


def engine_trials(machine: nested.Machine, count: int, seed: int) -> Iterator[EngineTrial]:
    """Kill the engine `count` times, under `up` of a new lab, `up` of one that is up, and `down`, in turn."""
    chance = random.Random(seed)
    for number in range(count):
        command = ("up new", "up", "down")[number % 3]
        machine.run(MAILSTACK, "down" if command == "up new" else "up", "-n", LAB)
        moment = chance.uniform(0, 2.5 if command == "up new" else 1.2)
        code = _kill(machine, command.removesuffix(" new"), moment)
        started_at = time.monotonic()
        wrong = _after_down(machine) if command == "down" or chance.random() < 0.4 else _after_up(machine)
        yield EngineTrial(command, moment, code, time.monotonic() - started_at, tuple(wrong))
    machine.run(MAILSTACK, "down", "-n", LAB)


def _kill(machine: nested.Machine, command: str, moment: float) -> int:
    """Run a command whose engine is killed after so many seconds; return its exit code when the engine is back."""
    script = (
        f"{MAILSTACK} {command} -n {LAB} >/tmp/output 2>&1 & command=$!; sleep {moment:.3f}; "
        "pkill -KILL -x dockerd; wait $command; echo $?"
    )
    code = int(machine.run("sh", "-c", script))
    nested.answering(machine.container, machine.socket)
    return code


def _after_up(machine: nested.Machine) -> list[str]:
    """Return what is wrong after one `up`."""
    for words in (("up",), ("status", "--probe")):
        said = machine.run("sh", "-c", f"{MAILSTACK} {' '.join(words)} -n {LAB} 2>&1; echo code $?")
        if not said.endswith("code 0\n"):
            return [f"`{' '.join(words)}`: {said[-700:]}"]
    return []


def _after_down(machine: nested.Machine) -> list[str]:
    """Return what is wrong after one `down`."""
    said = machine.run("sh", "-c", f"{MAILSTACK} down -n {LAB} 2>&1; echo code $?")
    if not said.endswith("code 0\n"):
        return [f"`down`: {said[-700:]}"]
    left = [f"container {each.name}" for each in machine.engine.containers.list(all=True)]
    left += [f"volume {each.name}" for each in machine.engine.volumes.list()]
    left += [f"network {each.name}" for each in machine.engine.networks.list() if each.name.startswith("mailstack")]
    left += machine.run("sh", "-c", f"find /dev/shm -name '{LAB}*'").split()
    return [f"left: {left}"] if left else []
