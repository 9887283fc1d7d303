"""Plans: from the observed state to steps, each with its cause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mailstack.engine.inventory import Container, Inventory, Volume
from mailstack.errors import InputError
from mailstack.lab import plan
from mailstack.lab.observation import Failure, Observation
from mailstack.lab.plan import Desired
from mailstack.lab.remains import Remains, plan_down
from mailstack.lab.steps import Plan, Step
from mailstack.model import Account, Domain, Json, Lab, Network, Relay
from mailstack.roles import Role, Service
from mailstack.secret import Secret
from mailstack.state import State

OWN = {"mailstack.lab": "a", "mailstack.owner": "me"}
SERVICES = (
    Service("postfix", Role.SUBMISSION, ("postfix.cf",)),
    Service("dovecot", Role.STORE, ("dovecot.conf", "accounts")),
)
ACCOUNTS = (Account("a@example.com"), Account("b@example.com"))
LAB = Lab("example.com", (Domain("example.com"),), ACCOUNTS, services=SERVICES)
DOCUMENT: Json = {
    "services": {"postfix": {"image": "mailstack/postfix:1"}, "dovecot": {"image": "mailstack/dovecot:1"}},
    "networks": {"mail": {"name": "mailstack-a_mail"}, "others": {"name": "others", "external": True}},
    "volumes": {"queue": {"name": "mailstack-a_queue", "labels": OWN}, "data": {"name": "mailstack-a_data"}},
    "x-mailstack": {},
}
STATE = State("a", "me", "never", "1", ("lab.yaml",), {"imaps": 20001}, {"mail": "10.213.0.0/27"}, services=SERVICES)
TEXTS = {"postfix.cf": Secret("one"), "accounts": Secret("two")}


def container(service: str, state: str = "running", digest: str = "same") -> Container:
    labels = {**OWN, "com.docker.compose.service": service, "com.docker.compose.config-hash": digest}
    return Container(f"mailstack-a-{service}-1", labels, state, f"mailstack/{service}:1")


WHOLE = Inventory(
    "a",
    (container("postfix"), container("dovecot")),
    (Volume("mailstack-a_queue", OWN),),
    (Network("mailstack-a_mail", OWN, ("10.213.0.0/27",)),),
)
UP = Observation(
    state=STATE,
    path=Path("/labs/a"),
    made=True,
    recorded=True,
    inventory=WHOLE,
    elsewhere=(),
    document=DOCUMENT,
    lab=LAB,
    subnets=STATE.subnets,
    handed=TEXTS,
    texts=TEXTS,
    hashes={"postfix": "same", "dovecot": "same"},
)


def steps(seen: Observation, draft: State = STATE, *, log_in: bool = False) -> list[str]:
    """Return a line for each step of an `up`."""
    made = plan.plan_up(plan.desired_lab(draft, seen), seen, log_in=log_in)
    return [f"{row.step}: {', '.join(row.concerns)} ({row.cause})" for row in made.rows()]


PROOF = "prove: a@example.com, b@example.com (a mail tells whether the lab works)"


def test_a_lab_that_is_well_is_proven_and_that_is_all() -> None:
    assert steps(UP) == [PROOF]


def test_without_digests_it_is_left_to_compose_to_compare() -> None:
    compare = "compare containers: postfix, dovecot (Compose compares them with their definition)"
    assert steps(replace(UP, hashes=None)) == [compare, PROOF]


@pytest.mark.parametrize(
    ("found", "step"),
    [
        (
            container("postfix", "paused"),
            "unpause containers: mailstack-a-postfix-1 (Compose does not start a paused container)",
        ),
        (container("postfix", digest="old"), "recreate containers: postfix (its definition changed)"),
        (replace(container("postfix"), image="x"), "recreate containers: postfix (its image is x)"),
        (replace(container("postfix"), labels=OWN), "create containers: postfix (the engine does not have it)"),
    ],
)
def test_a_container_that_is_not_as_it_should_be_is_named_with_the_cause(found: Container, step: str) -> None:
    inventory = replace(WHOLE, containers=(found, container("dovecot")))
    assert steps(replace(UP, inventory=inventory)) == [step, PROOF]


def test_networks_and_volumes_that_are_missing_are_named_but_no_external_ones() -> None:
    assert steps(replace(UP, inventory=replace(WHOLE, volumes=(), networks=()))) == [
        "claim name: mailstack-a_queue (the engine does not have it)",
        "create networks: mailstack-a_mail (the engine does not have it)",
        "create volumes: mailstack-a_queue (the engine does not have it)",
        PROOF,
    ]


def test_services_that_read_changed_files_are_restarted_unless_they_are_started_anyway() -> None:
    changed = replace(UP, texts={**TEXTS, "postfix.cf": Secret("new"), "dovecot.conf": Secret("new")})
    write = "write files: dovecot.conf, postfix.cf (the definition asks for other ones)"
    restart = "restart services: dovecot, postfix (changed: dovecot.conf, postfix.cf)"
    assert steps(changed) == [write, restart, PROOF]
    stopped = replace(WHOLE, containers=(container("postfix", "exited"), container("dovecot")))
    assert steps(replace(changed, inventory=stopped)) == [
        write,
        "start containers: postfix (its container is exited)",
        "restart services: dovecot (changed: dovecot.conf)",
        PROOF,
    ]


def test_passwords_that_changed_restart_nothing() -> None:
    assert steps(replace(UP, texts={**TEXTS, "accounts": Secret("new")})) == [
        "write files: accounts (the definition asks for other ones)",
        PROOF,
    ]


@pytest.mark.parametrize(
    ("draft", "cause"),
    [
        (replace(STATE, files=("lab.yaml", "more.yaml")), "its definition changed"),
        (replace(STATE, tag="2", relay="mx:25"), "its images, its relay changed"),
        (replace(STATE, engine="unix:///other"), "its engine's address changed"),
    ],
)
def test_what_differs_from_the_record_is_recorded_first(draft: State, cause: str) -> None:
    assert steps(UP, draft)[0] == f"record: lab.json, subnets.yaml ({cause})"


def test_a_record_of_which_a_part_is_missing_is_written_again() -> None:
    assert steps(replace(UP, recorded=False))[0] == "record: lab.json, subnets.yaml (a part of it is not there)"


def test_a_lab_on_another_host_is_handed_its_files_and_its_ports_lead_there() -> None:
    assert steps(replace(UP, host="box")) == [
        "write files:  (its host may have lost them)",
        "forward ports: 127.0.0.1:20001 (the lab is on another host)",
        PROOF,
    ]


def test_a_relay_outside_is_tried_after_the_proof() -> None:
    seen = replace(UP, lab=replace(LAB, relay=Relay("mx.example.net", 465)))
    assert steps(seen) == [PROOF]
    assert steps(seen, log_in=True) == [
        PROOF,
        "log in to relay: mx.example.net:465 (its credentials are tried before a mail needs them)",
    ]


def test_files_elsewhere_and_another_owners_lab_are_refused() -> None:
    with pytest.raises(InputError, match="its files are in /other/a"):
        steps(replace(UP, elsewhere=(Path("/other/a"),)))
    with pytest.raises(InputError, match="a lab “a” of me is on this engine"):
        steps(UP, replace(STATE, owner="somebody"))


def recovery(failure: Failure) -> tuple[Step, ...]:
    return plan.recovery(failure, Desired(STATE, LAB, DOCUMENT, TEXTS))


def test_after_a_failure_images_are_built_or_the_lab_moves_or_nothing_is_tried() -> None:
    shown = Plan("a", recovery(Failure(missing_images=("mailstack/postfix:1",)))).json()["steps"]
    assert [(step["step"], step["concerns"]) for step in shown] == [
        ("build images", ["mailstack/postfix:1"]),
        ("compare containers", ["postfix", "dovecot"]),
    ]
    move, again = recovery(Failure(lost_ports=("127.0.0.1:20001",), lost_subnets=("10.213.0.0/27",)))
    assert (move.kind, move.names) == ("move", ("127.0.0.1:20001", "10.213.0.0/27"))
    assert again.kind == "compare containers"
    assert recovery(Failure(disk_full=True)) == ()


def test_a_down_names_what_compose_removes_and_what_is_removed_by_labels() -> None:
    outside = Container("mailstack-a-outside", OWN)
    seen = Remains("a", Path("/labs/a"), True, STATE, replace(WHOLE, containers=(*WHOLE.containers, outside)))
    shown = [(row.step, len(row.concerns)) for row in plan_down(seen, "me").rows()]
    assert shown == [("compose down", 4), ("remove", 1), ("remove directory", 1)]
    assert plan_down(Remains("a", Path("/labs/a"), False, None, Inventory("a")), "me").rows() == []
