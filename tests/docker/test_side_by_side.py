"""Labs in parallel: each has its own ports and subnets, even if another process takes them first."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker
import pytest

from mailstack import state
from mailstack.engine import projects
from mailstack.errors import HostError, InputError
from mailstack.lab import homes
from mailstack.lab import up as lab
from mailstack.lab.running import RunningLab
from mailstack.network import subnets
from tests import engines
from tests.docker.bad import MAILSTACK, Traces, alone, run
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker


@pytest.fixture
def traces() -> Iterator[Traces]:
    """Yield a new owner for this test; remove everything at the end."""
    with alone("side") as found:
        yield found


def networks(name: str) -> dict[str, str]:
    """Return a lab's networks on the engine with their subnets, by the names in its files."""
    found = docker.from_env().networks.list(filters={"label": f"mailstack.lab={name}"})
    return {str(each.name).partition("_")[2]: each.attrs["IPAM"]["Config"][0]["Subnet"] for each in found}


def overlay(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ── subnets ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_network_that_asks_for_nothing_is_small_and_keeps_its_subnet(labs: Labs, tmp_path: Path) -> None:
    """Also one that an overlay brings along; what an overlay asks for, it gets."""
    asked = f"198.18.{secrets.randbelow(256)}.0/29"
    more = overlay(
        tmp_path / "more.yaml",
        "services: {sender: {networks: {more: {}, asked: {}}}}\n"
        "networks:\n  more: {internal: true, labels: {mailstack.lab: NAME}}\n"
        f"  asked: {{internal: true, labels: {{mailstack.lab: NAME}}, ipam: {{config: [{{subnet: {asked}}}]}}}}\n",
    )
    with labs.one("small") as running:
        before = networks(running.name)
        assert before == running.state.subnets and set(before) == {"mail", "edge"}
        more.write_text(more.read_text().replace("NAME", running.name))
        labs.up(running.name, [more])
        after = networks(running.name)
        assert after == {**before, "more": after["more"], "asked": asked}
        for name in ("mail", "edge", "more"):
            assert IPv4Network(after[name]).prefixlen == 27
            assert any(IPv4Network(after[name]).subnet_of(whole) for whole in subnets.ranges())
    assert networks(running.name) == {}  # those of the overlay have gone with the lab


def test_where_no_subnet_is_left_the_command_says_who_has_them(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = f"198.19.{secrets.randbelow(256)}.{secrets.choice((0, 64, 128, 192))}/26"  # two networks: one lab
    monkeypatch.setenv(subnets.SETTING, whole)
    assert run(["up", "-n", "first"]).code == 0
    there = traces.all()
    second = run(["up", "-n", "second"])
    assert second.code == 3
    assert second.messages == [f"mailstack: no free subnet for a network of the lab in {whole}"]
    assert f"is used by the network {projects.project_name('first')}_mail" in second.err
    assert "mailstack down --stale" in second.err and subnets.SETTING in second.err
    assert not second.rest and traces.all() == there
    assert run(["down", "-n", "first"]).code == 0
    assert run(["up", "-n", "second"]).code == 0


def test_a_range_that_is_none_is_the_user_s_mistake(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(subnets.SETTING, "10.213.0.1/16")
    outcome = run(["up", "-n", "rangeless"])
    assert (outcome.code, traces.all()) == (2, set())
    assert outcome.messages == [f"mailstack: {subnets.SETTING}: '10.213.0.1/16': 10.213.0.1/16 has host bits set"]


# ── somebody who is faster ─────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _port(name: str) -> Iterator[None]:
    """Start a program that listens on a port that the lab has chosen."""
    found = homes.directory(engines.here(), name).load()
    assert found
    with socket.create_server(("127.0.0.1", found.ports["imaps"])):
        yield


@contextlib.contextmanager
def _subnet(name: str) -> Iterator[None]:
    """Create an unknown network on a subnet that the lab has chosen."""
    found = homes.directory(engines.here(), name).load()
    assert found
    pool = docker.types.IPAMPool(found.subnets["mail"])
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    made = docker.from_env().networks.create(f"faster-{secrets.token_hex(4)}", ipam=ipam)
    try:
        yield
    finally:
        made.remove()


Somebody = Callable[[str], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize("somebody", [_port, _subnet])
def test_what_is_taken_after_it_was_chosen_is_chosen_again(somebody: Somebody, labs: Labs) -> None:
    name = labs.new_name("late")
    wanted: list[state.State | None] = []
    said: list[str] = []
    with contextlib.ExitStack() as stack:

        def progress(line: str) -> None:
            said.append(line)
            if line == "starting the containers" and not wanted:
                wanted.append(homes.directory(engines.here(), name).load())
                stack.enter_context(somebody(name))

        report = lab.up(engines.here(), lab.Request(name), progress)
        running = RunningLab(name, engines.here())
    assert wanted[0] and (wanted[0].ports, wanted[0].subnets) != (running.state.ports, running.state.subnets)
    assert [line for line in said if line.startswith("another process has taken ")]
    assert networks(name) == running.state.subnets and len(running.state.subnets) == 2
    assert {each: endpoint.port for each, endpoint in report.endpoints.items()} == running.state.ports
    for service in ("postfix", "dovecot"):
        assert set(running.service(service).ports.values()) <= set(running.state.ports.values())
    labs.down(name)


def test_somebody_who_is_faster_each_time_is_named_and_nothing_is_left(traces: Traces) -> None:
    faster = []
    with contextlib.ExitStack() as stack:

        def progress(line: str) -> None:
            if line.startswith("starting the containers"):
                faster.append(line)
                stack.enter_context(_port("faster"))

        with pytest.raises(HostError, match=r"could not be started; 127\.0\.0\.1:\d+ is in use$"):
            lab.up(engines.here(), lab.Request("faster"), progress)
    assert len(faster) == 3
    assert traces.all() == set()


def test_a_lab_that_is_up_keeps_its_ports_and_says_which_is_taken(labs: Labs) -> None:
    with labs.one("keeps") as running:
        taken = running.state.ports["imaps"]
        running.engine.stop(running.service("dovecot").container, seconds=1)
        with socket.create_server(("127.0.0.1", taken)):
            with pytest.raises(HostError, match=rf"could not be started; .*127\.0\.0\.1:{taken} is in use$") as caught:
                labs.up(running.name)
            assert "a new lab chooses others" in caught.value.remedy
        assert labs.up(running.name).state.ports == running.state.ports


# ── two people on one engine ───────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def somebody_else() -> Iterator[tuple[Traces, dict[str, str]]]:
    """Return another owner, and the environment of its commands."""
    with alone("other") as traces:
        yield traces, {"MAILSTACK_OWNER": traces.owner, "MAILSTACK_RUNTIME_DIR": str(traces.directory)}


def containers(traces: Traces) -> set[str]:
    """Return the ids of an owner's containers: a recreated container has a new one."""
    found = docker.from_env().containers.list(filters={"label": f"mailstack.owner={traces.owner}"})
    return {str(each.id) for each in found}


def test_of_two_people_with_one_name_at_one_moment_the_second_is_refused_and_touches_nothing() -> None:
    """The other one's lab comes up after this one's `up` has seen that there is none, and before it makes anything."""
    name = f"both-{secrets.token_hex(4)}"
    with somebody_else() as (other, theirs), alone("side") as traces:
        before: list[set[str]] = []

        def progress(line: str) -> None:
            if line == "reading the definition":
                assert run(["up", "-n", name], theirs).code == 0
                before.append(containers(other))

        with pytest.raises(InputError, match=f"a lab “{name}” of {other.owner} is on this engine"):
            lab.up(engines.here(), lab.Request(name), progress)
        assert containers(other) == before[0] and len(before[0]) == 3
        assert traces.all() == set()
        assert run(["send", "-n", name, "--to", "bob@example.com"], theirs).code == 0


def test_whoever_brings_up_a_name_at_the_same_time_one_has_it_and_the_other_is_told() -> None:
    name = f"race-{secrets.token_hex(4)}"
    with somebody_else() as (first, one), somebody_else() as (second, two):
        ended = together([("up", "-n", name)] * 2, [one, two])
        assert sorted(code for code, _, _ in ended) == [0, 2], ended
        winner, loser = (first, second) if ended[0][0] == 0 else (second, first)
        assert f"a lab “{name}” of {winner.owner} is on this engine" in next(err for code, _, err in ended if code)
        assert (len(containers(winner)), loser.all()) == (3, set())


def test_what_one_takes_down_is_never_somebody_else_s(labs: Labs) -> None:
    """`down --all` and `down --stale`, also where a directory of one's own has the name of the other's lab."""
    with labs.one("theirs") as theirs, alone("side") as traces:
        there = {each.container for each in theirs.services()}
        assert run(["up", "-n", "own"]).code == 0
        left = homes.directory(engines.here(), theirs.name)
        left.make()
        left.save(state.State(theirs.name, traces.owner, "never", "", (), {}, stays=False))
        assert f"belongs to {theirs.state.owner}" in run(["down", "-n", theirs.name]).err
        assert not left.path.exists()
        left.make()
        assert json.loads(run(["down", "--stale", "--json"]).out)["removed"] == []
        assert json.loads(run(["down", "--all", "--json"]).out)["removed"] == ["own"]
        assert {each.container for each in theirs.services()} == there
        assert traces.all() == set()


# ── four at once ───────────────────────────────────────────────────────────────────────────────────────────────────


def together(commands: Sequence[Sequence[str]], environments: Sequence[dict[str, str]]) -> list[tuple[int, str, str]]:
    """Run commands of mailstack at the same time; return the exit code, the output and the messages of each."""
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    (MAILSTACK, *words), stdout=-1, stderr=-1, text=True, env={**os.environ, **environment}
                )
            )
            for words, environment in zip(commands, environments, strict=True)
        ]
        # One after the other is early enough: what they say fits into a pipe's buffer.
        outputs = [process.communicate(timeout=300) for process in running]
    return [(process.returncode, *said) for process, said in zip(running, outputs, strict=True)]


def test_four_labs_of_two_people_come_up_pass_checks_and_go_at_once() -> None:
    with somebody_else() as (first, one), somebody_else() as (second, two):
        names = [f"four-{number}-{secrets.token_hex(3)}" for number in range(4)]
        owners = [one, two] * 2

        def everywhere(*words: str) -> list[dict[str, Any]]:
            ended = together([(*words, "-n", name, "--json") for name in names], owners)
            # 1 with an answer: a check failed, and the answer says which.
            assert [(code, err) for code, out, err in ended if code > 1 or not out] == []
            return [json.loads(out) for _, out, _ in ended]

        up = everywhere("up")
        ports = [endpoint["port"] for each in up for endpoint in each["endpoints"].values()]
        assert len(set(ports)) == len(ports) == 4 * 7
        found = [IPv4Network(subnet) for name in names for subnet in networks(name).values()]
        assert len(found) == 8 and not any(a.overlaps(b) for a, b in itertools.combinations(found, 2))
        assert {each.prefixlen for each in found} == {27}
        for checked in everywhere("check", "auth", "closed", "relay"):
            assert [(each["id"], each["evidence"]) for each in checked["checks"] if each["verdict"] != "pass"] == []
            assert checked["passed"] > 35
        everywhere("down")
        assert (first.all(), second.all()) == (set(), set())
