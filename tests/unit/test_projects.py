"""Users of one engine: each has a lab of each name, and neither sees, changes nor removes the other's."""

from __future__ import annotations

import itertools
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from mailstack.engine import projects
from mailstack.engine.inventory import Container, Inventory, Volume
from mailstack.engine.projects import User, current_user, in_project, project_name
from mailstack.errors import InputError
from mailstack.lab import down
from mailstack.lab.remains import observe_remains, plan_down
from mailstack.model import Network
from mailstack.state import is_name
from tests.unit.world import NAME, PROJECT, WHOLE, World

ALICE = User(1001, "alice")
AS_ALICE = f"mailstack_alice_{NAME}"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (User(0, "root"), "mailstack-lab"),
        (User(0, "toor"), "mailstack-lab"),
        (ALICE, "mailstack_alice_lab"),
        (User(1002, "a-b"), "mailstack_a-b_lab"),
        (User(1003, "Alice"), "mailstack_alice--1003_lab"),
        (User(1004, "a--b"), "mailstack_a-b--1004_lab"),
        (User(1005, "a_b"), "mailstack_a-b--1005_lab"),
        (User(1006, "anna.maria.schmidt"), "mailstack_anna-m--1006_lab"),
        (User(1007, "maria.schmidt@school.example"), "mailstack_maria--1007_lab"),
        (User(1008, "Ü"), "mailstack_user--1008_lab"),
        (User(1010, "annamariaschmidt"), "mailstack_annama--1010_lab"),
        (User(1009, ""), "mailstack_user--1009_lab"),
    ],
    ids=str,
)
def test_a_project_is_named_after_its_user_and_its_lab(user: User, name: str) -> None:
    assert project_name("lab", user) == name
    assert len(f"{project_name('x' * 30, user)}-postfix-1") <= 63 + 2


def test_no_two_users_have_a_project_in_common() -> None:
    logins = ("a", "a-b", "a--1002", "a--1003", "A", "a_b", "a.b", "lab", "0", "a-1002", "-a", "a" * 12, "a" * 13)
    users = [User(0, "root"), *(User(1000 + number, login) for number, login in enumerate(logins))]
    labs = [name for name in ("a", "lab", "b-lab", "a-b", "0") if is_name(name)]
    named = [project_name(lab, user) for user in users for lab in labs]
    assert len(set(named)) == len(users) * len(labs)
    begins = [project_name("", user) for user in users]
    assert not [pair for pair in itertools.permutations(begins, 2) if pair[0].startswith(pair[1])]


def test_the_user_is_the_one_who_runs_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    assert current_user() == User(os.getuid(), pwd.getpwuid(os.getuid()).pw_name)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert current_user().prefix == "user--4000000000_"


def test_an_object_that_compose_did_not_create_is_in_a_project_by_its_name() -> None:
    assert in_project("mailstack-a", "mailstack-a_world", {}) and in_project("mailstack-a", "mailstack-a-outside", {})
    assert not in_project("mailstack-a", "mailstack_a_a_world", {})
    assert not in_project("mailstack-a", "mailstack-a_mail", {projects.LABEL_PROJECT: "mailstack_b_a"})


def test_of_an_inventory_only_ones_own_project_and_owner_remain() -> None:
    def labels(owner: str, project: str) -> dict[str, str]:
        return {"mailstack.lab": "a", "mailstack.owner": owner, projects.LABEL_PROJECT: project}

    mine, foreign = labels("me", "mailstack-a"), labels("alice", "mailstack_alice_a")
    squatter, namesake = labels("you", "mailstack-a"), labels("me", "mailstack_alice_a")
    seen = Inventory(
        "a",
        tuple(Container(name, each) for name, each in zip("mfsn", (mine, foreign, squatter, namesake), strict=True)),
        (Volume("v", mine), Volume("w", foreign)),
        (Network("n", mine, ()), Network("o", foreign, ())),
    ).of_user("me")
    assert ([each.name for each in seen.containers], [each.name for each in seen.volumes]) == (["m", "s", "n"], ["v"])
    assert len(seen.networks) == 2  # their subnets are in use
    assert (seen.owners(), seen.astray("me")) == ({"me", "you"}, ["container n"])


@pytest.fixture
def as_alice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Return a function after whose call this process is another user's."""

    def become() -> None:
        monkeypatch.setattr(projects, "current_user", lambda: ALICE)
        monkeypatch.setenv("MAILSTACK_OWNER", "alice@here")
        monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "alice"))

    return become


@pytest.fixture
def alice(standing: World, as_alice: Callable[[], None], tmp_path: Path) -> World:
    """Return another user's world on the engine on which a lab of the same name stands."""
    as_alice()
    return World(tmp_path / "alice", standing.api)


@pytest.mark.sockets
def test_two_users_have_a_lab_of_one_name_and_each_removes_only_ones_own(standing: World, alice: World) -> None:
    assert ("claim name", (f"{AS_ALICE}_mailboxes",), "the engine does not have it") in alice.steps()
    alice.up()
    assert standing.api.all() == WHOLE | {name.replace(PROJECT, AS_ALICE) for name in WHOLE}
    first, second = standing.directory.load(), alice.directory.load()
    assert first and second and not set(first.ports.values()) & set(second.ports.values())
    assert len({*first.subnets.values(), *second.subnets.values()}) == 4
    shown = plan_down(observe_remains(alice.tools, alice.directory), "alice@here").rows()
    assert not [thing for row in shown for thing in row.concerns if PROJECT in thing]
    assert down.remove_all(alice.tools.engine, alice.said.append, alice.tools) == [NAME]
    assert standing.api.all() == WHOLE and not alice.directory.path.exists()


@pytest.mark.sockets
def test_a_user_without_a_lab_removes_nothing_of_another_one(standing: World, alice: World) -> None:
    assert plan_down(observe_remains(alice.tools, alice.directory), "alice@here").rows() == []
    assert down.remove_all(alice.tools.engine, alice.said.append, alice.tools) == []
    assert not down.down(alice.tools.engine, NAME, alice.said.append, using=alice.tools)
    assert standing.api.all() == WHOLE


@pytest.mark.sockets
def test_two_users_with_one_owner_are_told_so(standing: World, alice: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_OWNER", "me")
    with pytest.raises(InputError, match=f"a lab “{NAME}” of me is .* not in the Compose project {AS_ALICE}") as caught:
        alice.up()
    assert "MAILSTACK_OWNER" in caught.value.remedy and standing.api.all() == WHOLE


@pytest.mark.sockets
def test_a_lab_that_an_earlier_version_made_under_the_old_name_is_removed_by_its_labels(
    standing: World, alice: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_OWNER", "me")
    seen = observe_remains(alice.tools, alice.directory)
    assert seen.any and [row.step for row in plan_down(seen, "me").rows() if row.step != "remove directory"] == [
        "remove"
    ]
    assert down.remove_all(alice.tools.engine, alice.said.append, alice.tools) == [NAME]
    assert standing.api.all() == set() and "down" not in alice.verbs()


@pytest.mark.sockets
def test_one_user_with_two_owners_is_refused(standing: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_OWNER", "you")
    with pytest.raises(InputError, match=f"a lab “{NAME}” of me is on this engine"):
        World(standing.home.root.parent / "other", standing.api).up()
    assert standing.api.all() == WHOLE
