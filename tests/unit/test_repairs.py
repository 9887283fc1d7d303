"""`up` on a lab that is not well, on an engine in memory: what it repairs, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mailstack.config import files
from mailstack.errors import CheckFailed
from mailstack.lab import changes
from mailstack.lab.changes import Change
from mailstack.lab.up import Request
from mailstack.model import SERVICES, Account
from mailstack.roles import Role, Service
from mailstack.secret import Secret
from tests.unit.world import NAME, PROJECT, WHOLE, World

pytestmark = pytest.mark.sockets  # free ports are looked for


def _container(service: str) -> str:
    return f"{PROJECT}-{service}-1"


def _interrupt(world: World, command: str, *addresses: str, mark: str = "") -> None:
    """Put on record a change whose process is gone."""
    change = Change(world.directory.path, command, mark)
    change.note(addresses)
    change._close()


def _fails(times: int, says: str = "no mail") -> Callable[[], None]:
    """Return what fails so many times."""
    left = [None] * times

    def fails() -> None:
        if left:
            left.pop()
            raise CheckFailed(says)

    return fails


def test_a_paused_container_runs_again(standing: World) -> None:
    standing.api.containers_[_container("dovecot")].state = "paused"
    assert ("unpause containers", (_container("dovecot"),)) in [each[:2] for each in standing.steps()]
    standing.up()
    assert "unpause" in standing.api.asked and {each.state for each in standing.api.containers_.values()} == {"running"}


@pytest.mark.parametrize("cut", [{}, {f"{PROJECT}_mail": "another id"}])
def test_a_container_that_is_not_on_its_network_is_created_anew(standing: World, cut: dict[str, str]) -> None:
    standing.api.containers_[_container("sender")].networks = cut
    assert ("remove containers", (_container("sender"),)) in [each[:2] for each in standing.steps()]
    standing.up()
    assert standing.api.containers_[_container("sender")].networks == {f"{PROJECT}_mail": f"id of {PROJECT}_mail"}
    assert standing.api.all() == WHOLE


def test_a_removed_file_has_its_readers_restarted_although_they_would_notice_a_change() -> None:
    services = (Service("dovecot", Role.STORE, ("accounts",)), Service("postfix", Role.SUBMISSION))
    assert files.readers({"accounts"}, services) == []
    assert files.readers({"accounts"}, services, gone={"accounts"}) == ["dovecot", "postfix"]


def test_postfix_is_restarted_when_dovecot_was_away(standing: World) -> None:
    standing.api.containers_[_container("dovecot")].state = "exited"
    assert ("restart services", ("postfix",), "Dovecot was away") in standing.steps()


@pytest.mark.parametrize("path", ["proof", "relay"])
def test_a_lab_that_does_not_answer_on_either_path_gets_new_containers(standing: World, path: str) -> None:
    setattr(standing, path, _fails(1))
    standing.up()
    assert standing.verbs() == ["config", "up", "up"] and "--force-recreate" in standing.runner.lines[-1]
    assert "the lab does not answer as it should: creating its containers anew" in standing.said


def test_what_new_containers_do_not_mend_is_told_after_one_attempt(standing: World) -> None:
    standing.proof = _fails(2)
    with pytest.raises(CheckFailed, match="no mail"):
        standing.up()
    assert "restoring the previous lab" in standing.said


def test_a_change_by_hand_is_named_and_kept(standing: World) -> None:
    standing.api.prints[_container("postfix")] = "/etc/postfix/main.cf\n"
    report = standing.up()
    assert report.notes == (
        f"changed by hand, and kept: postfix: /etc/postfix/main.cf; `mailstack up -n {NAME} --reset` undoes it",
    )
    assert standing.verbs() == ["config", "up"]


def test_a_lab_that_was_changed_by_hand_and_does_not_answer_keeps_its_containers(standing: World) -> None:
    standing.api.prints[_container("postfix")] = "/etc/postfix/main.cf\n"
    standing.proof = _fails(1)
    with pytest.raises(CheckFailed):
        standing.up(Request(NAME, keep=True))
    assert standing.verbs() == ["config", "up"]


def test_a_sender_that_was_changed_by_hand_need_not_relay(standing: World) -> None:
    standing.api.prints[_container("sender")] = "/etc/postfix/main.cf\n"
    standing.relay = _fails(1, "it did not arrive")
    report = standing.up()
    assert report.verified.relayed is None and "not proven: it did not arrive" in report.notes


def test_what_was_repaired_is_named(standing: World) -> None:
    assert [row.step for row in standing.up().changes] == []
    standing.api.containers_[_container("sender")].state = "paused"
    standing.api.containers_[_container("dovecot")].state = "exited"
    assert [(row.step, row.concerns) for row in standing.up().changes] == [
        ("unpause containers", (_container("sender"),)),
        ("start containers", ("dovecot",)),
        ("restart services", ("postfix",)),
    ]
    standing.proof = _fails(1)
    (row,) = standing.up().changes
    assert (row.step, row.concerns, row.cause) == (
        "recreate containers",
        SERVICES,
        "the lab did not answer as it should",
    )


def test_the_proof_of_a_new_lab_is_on_record_until_it_ends(world: World) -> None:
    on_record: list[str] = []

    def proof() -> None:
        on_record.extend(path.read_text() for path in (world.directory.path / "changes").iterdir())

    world.proof = proof
    world.up()
    assert ['"command": "proof"' in text for text in on_record] == [True]
    assert list((world.directory.path / "changes").iterdir()) == []


def test_reset_creates_all_containers_anew(standing: World) -> None:
    request = Request(NAME, reset=True)
    assert ("recreate containers", SERVICES, "--reset") in standing.steps(request)
    standing.up(request)
    assert "--force-recreate" in standing.runner.lines[-1]


def test_reset_removes_the_volume_with_edited_configuration_and_first_its_container(standing: World) -> None:
    mount = {"type": "volume", "source": "mailboxes", "target": "/etc/postfix"}
    standing.compose.services["gateway"] = {"image": "gateway", "volumes": [mount]}
    standing.api.images.add("gateway")
    standing.up()
    request = Request(NAME, reset=True)
    steps = standing.steps(request)
    assert [each for each in steps if each[0].startswith("remove")] == [
        ("remove containers", (_container("gateway"),), "--reset"),
        ("remove volumes", (f"{PROJECT}_mailboxes",), "--reset"),
    ]
    assert not [each for each in standing.steps() if each[0].startswith("remove")]
    standing.up(request)
    assert f"{PROJECT}_mailboxes" in standing.api.all()


def test_an_interrupted_command_on_the_servers_has_them_restarted_and_is_struck_out(standing: World) -> None:
    _interrupt(standing, "secrets rotate")
    steps = [each[:2] for each in standing.steps()]
    assert ("restart services", ("dovecot", "postfix", "sender")) in steps
    assert ("clean up", ("secrets rotate",)) in steps
    standing.up()
    assert changes.unfinished(standing.directory.path) == []


def test_accounts_that_were_being_added_are_wholly_removed_without_a_restart(standing: World) -> None:
    files.add(standing.directory.files, {Account("zoe@example.com"): Secret("a password")})
    _interrupt(standing, changes.ACCOUNTS, "zoe@example.com")
    standing.up()
    assert not files.is_added(standing.directory.files, "zoe@example.com")
    assert [command[1:] for command in standing.api.executed if command[1] in ("accounts", "xargs")] == [
        ("accounts",),
        ("xargs", "-0", "rm", "-rf", "--"),
    ]
    assert standing.verbs() == ["config", "up"] and changes.unfinished(standing.directory.path) == []


def test_an_account_of_the_definition_is_never_removed(standing: World) -> None:
    _interrupt(standing, changes.ACCOUNTS, "alice@example.com", "../../etc/passwd")
    standing.up()
    assert [command for command in standing.api.executed if command[1] == "accounts"] == []


def test_an_up_that_works_leaves_no_record(standing: World) -> None:
    standing.up()
    assert list((standing.directory.path / "changes").iterdir()) == []


def test_a_failed_up_that_was_rolled_back_leaves_only_its_mails_on_record(standing: World) -> None:
    standing.proof = _fails(2)
    with pytest.raises(CheckFailed):
        standing.up()
    (record,) = (standing.directory.path / "changes").iterdir()
    assert '"command": "proof"' in record.read_text()


def test_a_lab_whose_record_was_lost_gets_new_containers_and_is_never_removed(standing: World) -> None:
    standing.directory.remove()
    assert ("recreate containers", SERVICES, "the lab's files were lost") in standing.steps()
    standing.proof = _fails(3)
    with pytest.raises(CheckFailed):
        standing.up()
    assert standing.api.all() == WHOLE
    standing.proof = lambda: None
    standing.up()
    record = standing.directory.load()
    assert record and record.stays and standing.api.all() == WHOLE


def test_a_container_with_the_interim_name_of_an_interrupted_compose_is_created_anew(standing: World) -> None:
    container = standing.api.containers_.pop(_container("sender"))
    standing.api.containers_[f"824325cd8b32_{_container('sender')}"] = container
    standing.up()
    assert standing.api.all() == WHOLE
