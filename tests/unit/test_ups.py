"""Complete `up` runs on an engine in memory: what they create and change, and what is left after a failure."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from mailstack import state
from mailstack.errors import CheckFailed, EngineError, HostError, InputError, Interrupted
from mailstack.lab import up
from mailstack.lab.up import Request
from mailstack.model import SERVICES
from tests.unit.fake_engine import Thing, role
from tests.unit.world import NAME, PROJECT, WHOLE, World, tag

pytestmark = pytest.mark.sockets  # free ports are looked for

# ── new ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_lab_is_made_and_proven(world: World) -> None:
    report = world.up()
    assert world.api.all() == WHOLE
    assert world.verbs() == ["config", "up"]
    assert world.proved == [{name: endpoint.port for name, endpoint in report.endpoints.items()}]
    assert (report.verified.message_id, report.accounts) == (
        "<1@example.com>",
        ("alice@example.com", "bob@example.com"),
    )
    assert list(report.json()["seconds"]) == ["definition", "files", "compose", "ready", "total"]
    found = world.directory.load()
    assert found and found.stays and found.subnets.keys() == {"mail", "edge"}
    assert (world.directory.files / "accounts").stat().st_mode & 0o777 == 0o600
    assert world.said == ["reading the definition", "starting the containers", "sending the mails that prove the lab"]


def test_the_plan_of_a_new_lab_says_all_that_up_makes_and_makes_nothing(world: World) -> None:
    steps = world.steps()
    assert [step for step, _, _ in steps] == [
        *("make directory", "record", "claim name", "write files", "create networks", "create volumes"),
        *("create containers", "prove", "record"),
    ]
    assert ("create containers", SERVICES, "the lab is new") in steps
    assert (world.api.all(), world.files(), world.verbs()) == (set(), set(), ["config"])
    assert {step for step, _, _ in steps} & {"build images"} == set()


def test_images_that_are_missing_are_planned_and_built_and_the_containers_made_anew(world: World) -> None:
    wanted = {name for name in world.api.images if name.startswith("mailstack/")}
    world.api.images -= wanted
    (built,) = [names for step, names, _ in world.steps() if step == "build images"]
    assert set(built) == wanted
    world.runner.commands.clear()
    world.up()
    assert world.verbs() == ["config", "up", "build", "up"]
    assert "--force-recreate" in world.runner.lines[-1]
    assert world.api.all() == WHOLE and len(world.proved) == 1


def test_a_lab_that_is_not_to_stay_for_ever_says_when_it_goes(world: World) -> None:
    world.up(Request(NAME, ttl=3600))
    found = world.directory.load()
    assert found and found.expires.isdigit()
    again = world.up(Request(NAME, ttl=60))
    assert again.notes == ("--ttl is ignored: an existing lab keeps its expiry",)
    assert world.directory.load() == found


# ── running ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_up_of_a_lab_that_is_up_changes_nothing_and_proves_it(standing: World) -> None:
    before = _snapshot(standing)
    assert [step for step, _, _ in standing.steps()] == ["prove"]
    standing.runner.commands.clear()
    standing.up()
    assert (_snapshot(standing), standing.verbs(), len(standing.proved)) == (before, ["config", "up"], 2)


def _snapshot(world: World) -> dict[str, Any]:
    every = (path for path in world.home.root.rglob("*") if path.is_file() and path.parent.name != "changes")
    files = {path: path.read_bytes() for path in every}
    containers = {name: (each.state, each.labels) for name, each in world.api.containers_.items()}
    return {"files": files, "containers": containers}


def test_a_changed_definition_is_written_and_read_again_by_its_services(standing: World) -> None:
    standing.compose.block = {**standing.compose.block, "limits": {"message_size": "2M"}}
    steps = standing.steps()
    assert ("write files", ("postfix.cf",), "the definition asks for other ones") in steps
    assert ("restart services", ("postfix",), "changed: postfix.cf") in steps
    assert ("record", ("lab.json", "subnets.yaml"), "its definition changed") in steps
    standing.runner.commands.clear()
    standing.up()
    assert standing.verbs() == ["config", "up", "restart"]
    assert standing.runner.lines[-1].endswith("restart --no-deps postfix")
    assert [step for step, _, _ in standing.steps()] == ["prove"]


def test_a_changed_service_is_made_again_and_one_more_is_created(standing: World) -> None:
    standing.compose.services = {
        "sender": {
            "image": f"mailstack/sender:{tag()}",
            "labels": role("sender"),
            "configs": [{"source": "sender.cf"}, {"source": "ca.pem"}],
            "environment": {"TZ": "UTC"},
        },
        "application": {"image": f"mailstack/sender:{tag()}", "labels": {}},
    }
    steps = standing.steps()
    assert ("create containers", ("application",), "the engine does not have it") in steps
    assert ("recreate containers", ("sender",), "its definition changed") in steps
    standing.up()
    assert f"{PROJECT}-application-1" in standing.api.containers_
    standing.compose.services = {}
    assert ("remove containers", ("application",), "not in the definition") in standing.steps()
    standing.up()
    assert standing.api.all() == WHOLE


def test_containers_that_are_missing_stopped_or_of_another_image_are_named(standing: World) -> None:
    postfix, dovecot, sender = (f"{PROJECT}-{service}-1" for service in SERVICES)
    del standing.api.containers_[postfix]
    standing.api.containers_[dovecot].state = "exited"
    standing.api.containers_[sender].image = "mailstack/sender:older"
    assert standing.steps()[:3] == [
        ("create containers", ("postfix",), "the engine does not have it"),
        ("recreate containers", ("sender",), "its image is mailstack/sender:older"),
        ("start containers", ("dovecot",), "its container is exited"),
    ]
    standing.up()
    assert {each.state for each in standing.api.containers_.values()} == {"running"}


def test_what_does_not_come_up_is_made_what_it_was(standing: World) -> None:
    before = _snapshot(standing)
    standing.compose.block = {**standing.compose.block, "limits": {"message_size": "2M"}}
    standing.proof = _raise(CheckFailed("no mail"))
    with pytest.raises(CheckFailed, match="no mail"):
        standing.up()
    assert "restoring the previous lab" in standing.said
    assert standing.verbs() == ["config", "up", "restart", "up", "up"]
    after = _snapshot(standing)
    assert {path: text for path, text in after.items() if path != "mtime"} == before


def _raise(error: BaseException) -> Callable[[], None]:
    def happens() -> None:
        raise error

    return happens


# ── half made ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_killed_up_left_is_finished(standing: World) -> None:
    """Killed before the proof: a lab that is not to stay, with one container that was not started."""
    found = standing.directory.load()
    assert found
    standing.directory.save(replace(found, stays=False))
    standing.api.containers_[f"{PROJECT}-sender-1"].state = "created"
    assert standing.steps() == [
        ("start containers", ("sender",), "its container is created"),
        ("prove", ("alice@example.com", "bob@example.com"), "a mail tells whether the lab works"),
        ("record", ("lab.json", "subnets.yaml"), "proven: the lab stays when `up` ends"),
    ]
    standing.up()
    assert standing.directory.load() == found


def test_a_lab_of_which_only_the_engine_knows_gets_a_directory(standing: World) -> None:
    standing.directory.remove()
    steps = standing.steps()
    assert [step for step, _, _ in steps][:3] == ["make directory", "record", "write files"]
    standing.up()
    assert standing.api.all() == WHOLE and standing.directory.load()


# ── others ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _theirs(world: World) -> None:
    labels = {"mailstack.lab": NAME, "mailstack.owner": "somebody"}
    world.api.volumes_[f"{PROJECT}_mailboxes"] = Thing(labels)


def test_a_name_that_is_taken_is_refused_with_nothing_made(world: World) -> None:
    _theirs(world)
    there = world.api.all()
    for attempt in (world.up, world.steps):
        with pytest.raises(InputError, match=f"a lab “{NAME}” of somebody is on this engine"):
            attempt()
    assert (world.api.all(), world.verbs()) == (there, ["config", "config"])
    assert not world.directory.path.exists()


def test_a_name_that_is_taken_a_moment_later_is_refused_and_what_was_made_is_removed(world: World) -> None:
    world.api.before["create volume"] = lambda: _theirs(world)
    with pytest.raises(InputError, match="of somebody is on this engine"):
        world.up()
    assert (world.api.all(), "up" in world.verbs()) == ({f"{PROJECT}_mailboxes"}, False)
    assert not world.home.path.exists()


# ── ports and subnets that were lost ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def listening(world: World) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Return a failure of Compose: another program listens on a port of Dovecot."""
    with ExitStack() as stack:

        def fails(document: dict[str, Any]) -> str:
            found = world.directory.load()
            assert found
            for name, network in document["networks"].items():
                world.compose.network(PROJECT, network, found.subnets[name])
            port = int(document["services"]["dovecot"]["ports"][0]["published"])
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return f"Error response from daemon: 127.0.0.1:{port}: bind: address already in use"

        yield fails


def test_a_port_that_was_lost_makes_a_new_lab_choose_others(
    world: World, listening: Callable[[dict[str, Any]], str]
) -> None:
    world.compose.failures = [listening]
    report = world.up()
    assert world.verbs() == ["config", "up", "down", "config", "up"]
    moved = next(line for line in world.said if line.startswith("another process has taken"))
    assert world.said[world.said.index(moved) :].count("starting the containers again") == 1
    found = world.directory.load()
    assert found and found.stays and found.ports == {name: each.port for name, each in report.endpoints.items()}
    assert world.proved[-1] == found.ports and world.api.all() == WHOLE


def test_a_port_that_is_lost_each_time_is_named_and_nothing_is_left(
    world: World, listening: Callable[[dict[str, Any]], str]
) -> None:
    world.compose.failures = [listening] * 4
    with pytest.raises(HostError, match=r"could not be started; 127\.0\.0\.1:\d+ is in use$"):
        world.up()
    assert world.verbs().count("up") == 3
    assert (world.api.all(), world.home.path.exists()) == (set(), False)


def test_a_lab_that_is_up_keeps_its_ports(standing: World, listening: Callable[[dict[str, Any]], str]) -> None:
    standing.api.containers_[f"{PROJECT}-dovecot-1"].state = "exited"
    before = standing.directory.load()
    standing.compose.failures = [listening]
    with pytest.raises(HostError, match=r"dovecot exited with code 1; 127\.0\.0\.1:\d+ is in use$") as caught:
        standing.up()
    assert "a new lab chooses others" in caught.value.remedy
    assert standing.directory.load() == before


def test_a_subnet_that_the_engine_refuses_makes_a_new_lab_choose_another(world: World) -> None:
    refused: list[str] = []

    def fails(document: dict[str, Any]) -> str:
        found = world.directory.load()
        assert found
        refused.append(found.subnets["mail"])
        world.compose.network(PROJECT, document["networks"]["edge"], found.subnets["edge"])
        return "Error response from daemon: invalid pool request"

    world.compose.failures = [fails]
    world.up()
    found = world.directory.load()
    assert found and found.subnets["mail"] not in refused
    assert world.api.networks_[f"{PROJECT}_mail"].subnet == found.subnets["mail"]
    assert f"another process has taken {refused[0]}" in world.said


# ── engines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_an_engine_nothing_is_made(world: World) -> None:
    world.api.gone = True
    for attempt in (world.up, world.steps):
        with pytest.raises(EngineError, match="no Docker engine answers"):
            attempt()
    assert "up" not in world.verbs() and not world.home.path.exists()


def test_an_old_engine_is_refused_before_anything_is_made(world: World) -> None:
    world.api.release = "19.03.8"
    with pytest.raises(EngineError, match=r"19\.03\.8: 20\.10 or newer is needed"):
        world.up()
    assert (world.api.all(), world.home.path.exists()) == (set(), False)


# ── failing, and interrupted ───────────────────────────────────────────────────────────────────────────────────────


def test_a_proof_that_fails_removes_what_was_made_and_shows_what_servers_said(world: World) -> None:
    world.proof = _raise(CheckFailed("no mail"))
    with pytest.raises(CheckFailed, match="no mail") as caught:
        world.up()
    assert f"sender | the last words of {PROJECT}-sender-1" in caught.value.details
    assert (world.api.all(), world.home.path.exists()) == (set(), False)
    assert world.verbs() == ["config", "up", "down"]


def test_what_is_to_be_kept_stays_when_the_proof_fails(world: World) -> None:
    world.proof = _raise(CheckFailed("no mail"))
    with pytest.raises(CheckFailed) as caught:
        world.up(Request(NAME, keep=True))
    assert caught.value.remedy == f"it was kept: mailstack logs -n {NAME}"
    assert world.api.all() == WHOLE and world.directory.load()


def test_an_interrupted_up_removes_also_what_the_engine_is_still_making(world: World) -> None:
    """Compose was ended while the engine made a network for it, which is there only when `up` has begun to tidy up."""
    labels = {"mailstack.lab": NAME, "mailstack.owner": "me"}

    def interrupted(document: dict[str, Any]) -> str:
        late = lambda: world.api.networks_.update({f"{PROJECT}_mail": Thing(labels)})  # noqa: E731
        world.api.before["networks"] = lambda: world.api.before.update(networks=late)
        return f" Network {PROJECT}_mail  Creating"

    world.compose.failures = [interrupted]
    world.on["build"] = _raise(Interrupted("interrupted"))
    world.api.images = {"debian:trixie-slim"}
    with pytest.raises(Interrupted):
        world.up()
    assert (world.api.all(), world.home.path.exists()) == (set(), False)


def test_documents_of_plans_have_no_secrets(world: World) -> None:
    text = json.dumps(up.dry_run(world.tools.engine, Request(NAME), world.said.append, world.tools).json())
    world.up()
    assert (world.directory.files / "accounts").read_text().split(":")[1] not in text
    assert state.owner() == "me"
