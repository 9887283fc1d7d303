"""The same wheel on another engine: Debian trixie's version 26, nested in a container."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailstack import state
from mailstack.model import SERVICES
from tests import engines
from tests.docker import nested
from tests.docker.bad import run
from tests.docker.conftest import Labs
from tests.docker.hostile_places import snapshot
from tests.docker.nested.installed import installed
from tests.kills.engine import engine_trials

pytestmark = [pytest.mark.docker, pytest.mark.engine26]


@pytest.fixture(scope="module")
def machine(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Machine]:
    """Yield a machine with the wheel of this checkout, and the images of the host."""
    if os.geteuid() != 0:
        pytest.skip("a nested engine needs root on this host")
    with installed(images, tmp_path_factory.mktemp("dist")) as made:
        yield made


def test_a_lab_comes_up_passes_every_check_and_goes_on_engine_26(machine: nested.Machine) -> None:
    assert machine.engine.version()["Version"].startswith("26.")
    up = machine.json("up", "-n", "newer")
    assert up["verified"]["milliseconds"] > 0
    done = machine.json("check", "-n", "newer")["checks"]
    assert [(check["id"], check["evidence"]) for check in done if check["verdict"] != "pass"] == []
    assert Counter(check["verdict"] for check in done)["pass"] > 80
    assert machine.json("down", "-n", "newer") == {"removed": ["newer"]}
    assert machine.engine.containers.list(all=True) == []
    assert machine.engine.volumes.list() == []
    assert {network.name for network in machine.engine.networks.list()} == {"bridge", "host", "none"}


def test_two_accounts_of_a_machine_have_a_lab_each_by_the_same_words(machine: nested.Machine) -> None:
    def types(login: str, words: str) -> Any:
        return json.loads(machine.run("su", "-", login, "-c", f"/opt/mailstack/bin/mailstack {words} --json"))

    for login in ("ada", "ben"):
        machine.run("useradd", "--create-home", "--groups", "docker", login)
    for login in ("ada", "ben", "root"):
        assert types(login, "up")["verified"]["milliseconds"] > 0
    named = {each.name for each in machine.engine.containers.list()}
    assert named == {
        f"{project}-{service}-1"
        for project in ("mailstack_ada_lab", "mailstack_ben_lab", "mailstack-lab")
        for service in SERVICES
    }
    types("ada", "send --to bob@example.com --subject ada")
    assert [len(types(login, "inbox bob@example.com")["mails"]) for login in ("ada", "ben")] == [1, 0]
    assert types("ada", "down --all") == {"removed": ["lab"]}
    assert {each.name for each in machine.engine.containers.list()} == {name for name in named if "ada" not in name}
    assert types("ada", "down --stale") == {"removed": []}
    for login in ("ben", "root"):
        assert {each["state"] for each in types(login, "status --probe")["services"]} == {"running"}
        assert types(login, "down") == {"removed": ["lab"]}
    assert machine.engine.containers.list(all=True) == [] and machine.engine.volumes.list() == []
    assert {network.name for network in machine.engine.networks.list()} == {"bridge", "host", "none"}


def test_an_engine_that_is_killed_under_up_or_down_leaves_nothing_that_the_next_command_does_not_heal(
    machine: nested.Machine,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    assert [str(trial) for trial in engine_trials(machine, 3, seed) if trial.wrong] == []


def test_a_command_on_one_engine_neither_sees_nor_touches_the_labs_on_another(
    machine: nested.Machine, labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with labs.one("first") as lab:
        before = snapshot(lab.directory.path)
        with monkeypatch.context() as other:
            other.setenv("DOCKER_HOST", f"unix://{machine.socket}")
            seen = run(["status", "-n", lab.name])
            assert seen.code == 2 and f"it is at {lab.directory.home.endpoint}" in seen.err
            removed = run(["down", "-n", lab.name])
            assert (removed.code, removed.out) == (0, "nothing to remove\n")
            assert f"a lab “{lab.name}” of yours is at {lab.directory.home.endpoint}" in removed.err
            for many in ("--all", "--stale"):
                assert run(["down", many]).out == "nothing to remove\n"
        assert snapshot(lab.directory.path) == before
        assert run(["send", "-n", lab.name, "--to", "alice@example.com"]).code == 0


def test_nothing_of_a_nested_machine_stays_behind(machine: nested.Machine) -> None:
    with nested.machine(state.owner()) as other:
        name, volume = other.container.name, next(m for m in other.container.attrs["Mounts"] if m["Type"] == "volume")
    assert engines.here().leftovers(name, state.owner()) == []
    client = other.container.client
    assert volume["Name"] not in [each.name for each in client.volumes.list()]
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{name}"))
    assert not Path(other.socket).parent.exists()
