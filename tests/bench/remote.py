"""A lab on another machine: how long it takes to come up there, next to one here; and on two machines at once."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailstack import state
from mailstack.definition import bundled
from mailstack.images import base, build
from mailstack.model import SERVICES
from mailstack.runner.local import Local
from tests import engines
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, run, timed
from tests.docker import nested

TITLE = "a lab over SSH, against one here; two hosts at once"
NAME = "bench-remote"
HOSTS = ("one", "two")

_PARTS = {
    "the process": "Python, its modules, the connection, its end",
    "definition": "reading the definition, choosing ports",
    "files": "certificates, passwords, tables",
    "compose": "docker compose up -d",
    "ready": "the rest of the proof by a mail",
}


class Side:
    """`up` and `down`, on some hosts, or here."""

    def __init__(self, environment: Mapping[str, str], *hosts: str, name: str = NAME) -> None:
        self._environment = environment
        self._words = ["-n", name, *(word for host in hosts for word in ("--host", host))]
        self.downs: list[float] = []
        self.parts: dict[str, list[float]] = {}

    def __call__(self) -> float:
        """How long `up` takes, in seconds, as a whole process; then `down`, which is counted by itself."""
        taken = self.up()
        self.down()
        return taken

    def up(self) -> float:
        """How long it takes."""
        begun = time.perf_counter()
        answer = run([MAILSTACK, "up", "--json", *self._words], self._environment)
        taken = time.perf_counter() - begun
        told = json.loads(answer)
        assert all(each["answer"]["verified"] for each in told.get("hosts", [{"answer": told}]))
        if "seconds" in told:
            total = told["seconds"].pop("total")
            for part, seconds in {"the process": taken - total, **told["seconds"]}.items():
                self.parts.setdefault(_PARTS[part], []).append(seconds)
        return taken

    def down(self) -> None:
        """The lab goes."""
        self.downs.append(timed(MAILSTACK, "down", *self._words, environment=self._environment))


def _two_here() -> float:
    """Two labs here at once: what the machine's processors make of it."""
    sides = [Side({}, name=name) for name in (NAME, f"{NAME}-2")]
    with ThreadPoolExecutor(len(sides)) as pool:
        taken = max(pool.map(Side.up, sides))
        list(pool.map(Side.down, sides))
    return taken


def measure(runs: int) -> Figures:
    """All sides in turn; then once more with a connection that is there already."""
    base.ensure_base(engines.here(), Local(), lambda _: None)
    nested.build(nested.REMOTE)
    run([MAILSTACK, "up", "-n", NAME])  # the images are there after that
    run([MAILSTACK, "down", "-n", NAME])
    with _hosts() as (environment, machines):
        here, there, both = Side({}), Side(environment, "one"), Side(environment, *HOSTS)
        ups = alternate({"here": here, "there": there, "both": both, "two here": _two_here}, runs)
        again = Side(environment, "one")
        keeper = ("-n", f"{NAME}-keeper", "--host", "one")
        run([MAILSTACK, "up", *keeper], environment)
        try:
            kept = alternate({"here": Side({}), "there": again}, runs)
        finally:
            run([MAILSTACK, "down", *keeper], environment)
        for number, machine in enumerate(machines):
            run(["docker", "update", "--cpuset-cpus", f"{number % (os.cpu_count() or 1)}", machine])
        alone = alternate({"there": Side(environment, "one"), "both": Side(environment, *HOSTS)}, runs)
    return Figures(
        (
            Row("up here", ups["here"]),
            *_of(here),
            Row("up there", ups["there"]),
            *_of(there),
            Row("up there, by a connection that is kept", kept["there"]),
            *_of(again),
            Row("up on two hosts at once", ups["both"]),
            Row("up of two labs here at once", ups["two here"]),
            Row("up there, a host with one processor of its own", alone["there"]),
            Row("up on two such hosts at once", alone["both"]),
            Row("down here", tuple(here.downs[1:])),
            Row("down there", tuple(there.downs[1:])),
            Row("down on two hosts at once", tuple(both.downs[1:])),
        ),
        (
            Ratio("up there ÷ here, pair by pair", paired(ups["there"], ups["here"]), bar=2.0),
            Ratio("the same, by a connection that is kept", paired(kept["there"], kept["here"])),
            Ratio("up on two hosts at once ÷ on one, pair by pair", paired(ups["both"], ups["there"]), bar=1.3),
            Ratio("up on two hosts at once ÷ on one, a processor each", paired(alone["both"], alone["there"]), bar=1.3),
            Ratio("up of two labs here at once ÷ of one, pair by pair", paired(ups["two here"], ups["here"])),
            Ratio("down there ÷ here, pair by pair", paired(there.downs[1:], here.downs[1:])),
        ),
        (
            (
                "The hosts are containers of this machine with sshd and an engine (26.1) each, reached by 127.0.0.1: "
                "they have the images, and share its processors with each other, with the engine here, and with what "
                "measures. With a processor each, as machines have, they take nothing from each other but what "
                "measures takes."
            ),
            "A connection is made by `up` and ends with `down`, unless it is said to be kept: by another lab there.",
        ),
    )


def _of(side: Side) -> list[Row]:
    return [Row(f"  of it: {part}", tuple(values[1:])) for part, values in side.parts.items()]


@contextlib.contextmanager
def _hosts() -> Iterator[tuple[Mapping[str, str], list[str]]]:
    """Machines that are reached by SSH, with the images: the environment in which they have names, their containers."""
    tag = build.content_tag(bundled.stack())
    with contextlib.ExitStack() as machines:
        made = [machines.enter_context(nested.machine(state.owner(), image=nested.REMOTE)) for _ in HOSTS]
        for name, machine in zip(HOSTS, made, strict=True):
            machine.load([f"mailstack/{service}:{tag}" for service in SERVICES])
            _rename(machine, name)
        home = _home(made[0])
        for other in made[1:]:
            for name in ("config", "known_hosts"):
                with (home / ".ssh" / name).open("a") as file:
                    file.write((_home(other) / ".ssh" / name).read_text())
        yield {"HOME": str(home)}, [machine.container.name for machine in made]


def _rename(machine: nested.Machine, name: str) -> None:
    config = _home(machine) / ".ssh" / "config"
    config.write_text(config.read_text().replace("Host tester\n", f"Host {name}\n"))


def _home(machine: nested.Machine) -> Path:
    assert machine.home
    return machine.home
