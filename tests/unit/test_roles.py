"""Roles of a definition's services, from their labels: read, kept, checked, and found in a running lab."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailstack import roles, state
from mailstack.actions import queues
from mailstack.config import files
from mailstack.definition import bundled, schema
from mailstack.definition.schema import BLOCK, InvalidDefinition
from mailstack.errors import HostError, InputError, LabFileError
from mailstack.lab import resolve
from mailstack.lab.running import RunningLab
from mailstack.model import Account, Domain, Lab, ServiceState
from mailstack.roles import LABEL, STANDARD, Role, Service
from tests.unit.fakes import FakeTarget

STORE = Service("dovecot", Role.STORE, ("dovecot.conf", "dovecot.pem", "accounts", "relay"))
SUBMISSION = Service("postfix", Role.SUBMISSION, ("postfix.cf", "aliases", "postfix.pem"))
SENDER = Service("sender", Role.SENDER, ("sender.cf", "ca.pem", "relay"))
GATEWAY = Service("gateway", Role.MTA, ("aliases",))
WEBMAIL = Service("webmail")
LAB = Lab("a.test", (Domain("a.test"),), (Account("x@a.test"),), services=(SUBMISSION, STORE, SENDER, GATEWAY, WEBMAIL))


def service(role: str | None, *sources: str) -> dict[str, Any]:
    """Return a service of a resolved document."""
    labels = {"mailstack.lab": "a", **({} if role is None else {LABEL: role})}
    configs = [{"source": source, "target": f"/run/{source}"} for source in sources]
    return {"image": "debian", "labels": labels, "configs": configs, "secrets": None}


def document(**services: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved document, with the standard services unless they are replaced."""
    standard = {name: service(role) for role, name in STANDARD.items()}
    block = {"domains": {"a.test": None}, "accounts": {"x@a.test": None}}
    return {BLOCK: block, "services": {**standard, **services}}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_labs_own_services_have_the_standard_roles() -> None:
    document = yaml.safe_load(bundled.compose_file("lab.yaml").read_text())
    found = {roles.of_labels(each["labels"]): name for name, each in document["services"].items()}
    assert found == STANDARD


def test_submission_and_sender_are_mtas_and_the_store_is_none() -> None:
    assert [role for role in Role if role.is_a(Role.MTA)] == [Role.SUBMISSION, Role.SENDER, Role.MTA]
    assert [role for role in Role if role.is_a(Role.SENDER)] == [Role.SENDER]


def test_services_are_read_with_their_roles_and_files_those_without_a_role_last() -> None:
    found = schema.services(
        document(webmail=service(None), gateway=service("mta", "aliases", "owners"), archive=service("mta"))
    )
    assert [each.name for each in found] == ["postfix", "dovecot", "sender", "archive", "gateway", "webmail"]
    assert found[-2:] == (Service("gateway", Role.MTA, ("aliases", "owners")), Service("webmail"))


@pytest.mark.parametrize("services", [{"plain": {"image": "debian"}}, {"plain": {"labels": {LABEL: ""}}}, None, {}])
def test_a_service_without_labels_has_no_role(services: Any) -> None:
    assert [each.role for each in schema.services({"services": services})] == [None] * len(services or {})


@pytest.mark.parametrize("role", ["smtp", "MTA", "mta ", "mta,store", "\x1b[31m"])
def test_a_role_that_is_not_known_is_refused_with_those_that_are(role: str) -> None:
    with pytest.raises(InvalidDefinition) as misfit:
        schema.parse(document(extra=service(role)))
    assert misfit.value.keys == ("services", "extra", "labels", LABEL)
    assert misfit.value.message == f"{role!r} is not a role; roles are submission, store, sender, mta"


def test_a_containers_role_that_is_not_known_is_none() -> None:
    assert roles.of_labels({LABEL: "smtp"}) is None
    assert roles.of_labels(None) is None


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(overlay: Path, text: str, document: dict[str, Any]) -> str:
    """Return the error about a definition with this overlay, with its position."""
    overlay.write_text(text)
    with pytest.raises(LabFileError) as error:
        resolve.read_definition(document, [bundled.compose_file("lab.yaml"), overlay])
    return error.value.message


def test_a_second_store_is_refused_where_the_overlay_has_it(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    text = "services:\n  archive:\n    labels:\n      mailstack.role: store\n"
    assert refused(overlay, text, document(archive=service("store"))) == (
        f"{overlay}:4:7: services.archive.labels.mailstack.role: "
        "exactly one service must have the role store, not dovecot and archive"
    ).replace("dovecot and archive", "archive and dovecot")


def test_a_role_that_is_taken_away_is_missed(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    text = "services:\n  postfix:\n    labels:\n      mailstack.role: mta\n"
    assert refused(overlay, text, document(postfix=service("mta"))) == (
        f"{overlay}:4:7: services.postfix.labels.mailstack.role: "
        "exactly one service must have the role submission, not none"
    )


def test_a_role_that_is_not_known_is_refused_with_its_place(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    text = "services:\n  extra:\n    image: debian\n    labels: [mailstack.role=mda]\n"
    said = refused(overlay, text, document(extra=service("mda")))
    assert said.startswith(f"{overlay}:4:5: services.extra.labels.mailstack.role: 'mda' is not a role;")


def test_another_service_may_take_the_place_of_a_standard_one() -> None:
    whole = document(mailboxes=service("store"))
    del whole["services"]["dovecot"]
    assert resolve.read_definition(whole, []).name(Role.STORE) == "mailboxes"


# ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_services_of_a_lab_are_kept_between_two_commands(tmp_path: Path) -> None:
    block = {"domains": {"a.test": None}, "accounts": {"x@a.test": None}}
    kept = state.State("a", "me", "never", "tag", (), {}, document=block, services=LAB.services)
    path = tmp_path / "lab.json"
    path.write_text(json.dumps(dataclasses.asdict(kept)))
    found = state.read(path)
    assert found == kept and found.definition().services == LAB.services


@pytest.mark.parametrize("services", [[5], ["postfix"], [{"name": "x"}], [{"name": "x", "role": "y", "files": []}], 5])
def test_a_lab_whose_services_were_damaged_is_not_known(tmp_path: Path, services: Any) -> None:
    kept = dataclasses.asdict(state.State("a", "me", "never", "tag", (), {}))
    path = tmp_path / "lab.json"
    path.write_text(json.dumps({**kept, "services": services}))
    assert state.read(path) is None


# ── going by them ────────────────────────────────────────────────────────────────────────────────────────────────


def test_queues_are_looked_at_in_the_order_of_a_mails_way() -> None:
    assert queues.services(LAB) == ["sender", "gateway", "postfix"]


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"aliases"}, ["gateway", "postfix"]),
        ({"postfix.cf"}, ["postfix"]),
        ({"sender.cf"}, ["sender"]),
        ({"dovecot.conf"}, ["dovecot", "postfix"]),
        ({"ca.pem", "dovecot.pem", "postfix.pem"}, ["dovecot", "postfix", "sender"]),
        ({"accounts", "relay", "addresses"}, []),
        ({"accounts", "aliases"}, ["gateway", "postfix"]),
        (set(), []),
    ],
)
def test_services_are_started_again_for_the_files_that_they_read(changed: set[str], again: list[str]) -> None:
    assert files.readers(changed, LAB.services) == again


class Engine:
    """An engine with these containers."""

    def __init__(self, *containers: ServiceState) -> None:
        self._containers = containers

    def services(self, project: str, name: str = "", *, role: Role | None = None) -> list[ServiceState]:
        """Return the containers, or those of a name or a role."""
        found = [each for each in self._containers if not name or each.name == name]
        return [each for each in found if not role or (each.role and each.role.is_a(role))]


def container(service: Service, state: str = "running") -> ServiceState:
    """Return a service's container."""
    return ServiceState(service.name, "debian", state, "", f"id-{service.name}", {}, {}, role=service.role)


def running(*containers: ServiceState, services: tuple[Service, ...] = LAB.services) -> RunningLab:
    """Return a lab with these containers."""
    lab = RunningLab.__new__(RunningLab)
    lab.name, lab.engine, lab.defined = "a", Engine(*containers), dataclasses.replace(LAB, services=services)  # type: ignore[assignment]
    lab.target = FakeTarget()
    return lab


def test_the_one_service_of_a_role_is_found_by_its_container() -> None:
    lab = running(container(SUBMISSION), container(Service("mailboxes", Role.STORE)), container(GATEWAY))
    assert lab.one(Role.STORE).name == "mailboxes"
    assert [each.name for each in lab.by_role(Role.MTA)] == ["postfix", "gateway"]


@pytest.mark.parametrize(
    ("containers", "message"),
    [
        ([], "lab “a” has no dovecot"),
        ([container(STORE, "exited")], "dovecot of lab “a” is not running (exited)"),
        ([container(STORE), container(Service("b", Role.STORE))], "dovecot and b of lab “a” have the role store"),
    ],
)
def test_none_several_and_one_that_does_not_run_are_told_apart(containers: list[ServiceState], message: str) -> None:
    with pytest.raises(HostError) as error:
        running(*containers).one(Role.STORE)
    assert error.value.message == message


def test_a_name_is_a_services_of_the_definition_or_of_a_container() -> None:
    lab = running(container(Service("stray")))
    lab.check_names(["webmail", "stray", "postfix"])
    with pytest.raises(InputError, match="lab “a” has no service 'exim'") as error:
        lab.check_names(["webmail", "exim"])
    assert error.value.remedy == "services: dovecot, gateway, postfix, sender, stray, webmail"


def test_where_there_is_another_mta_a_mail_that_moves_back_is_not_overlooked() -> None:
    queue = {"sender": [], "gateway": ["A"], "postfix": []}
    looks: list[str] = []

    def look(name: str) -> list[Any]:
        if looks and looks[-1] == "sender":  # while the gateway is not looked at yet, its mail goes back
            queue["sender"], queue["gateway"] = ["A"], []
        looks.append(name)
        return [queues.Entry(name, "active", each, 0, 1, "", ()) for each in queue[name]]

    assert [entry.service for entry in queues.inspect_all(look, list(queue))] == ["sender"]
    assert looks == ["sender", "gateway", "postfix", "gateway", "sender"]
    looks.clear()
    queues.inspect_all(look, ["sender", "postfix"])
    assert looks == ["sender", "postfix"]
