"""Plan `up`: compute the steps from the observed and the desired lab. Pure functions of data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mailstack.config import files
from mailstack.definition import schema
from mailstack.engine import projects
from mailstack.engine.inventory import PAUSED, RUNNING, Container, Inventory
from mailstack.errors import InputError
from mailstack.lab import by_hand, claims
from mailstack.lab.observation import Failure, Observation
from mailstack.lab.steps import (
    BuildImages,
    ClaimName,
    CleanUp,
    ComposeUp,
    ForwardPorts,
    LogIn,
    MakeDirectory,
    Move,
    Plan,
    Prove,
    Record,
    RemoveContainers,
    RemoveVolumes,
    Restart,
    Row,
    Step,
    UndoChanges,
    Unpause,
    WriteFiles,
    grouped,
)
from mailstack.model import LABEL_LAB, Json, Lab
from mailstack.roles import Role
from mailstack.secret import Secret
from mailstack.state import State
from mailstack.text import hint

_NEW = "the lab is new"
_RECORD = ("lab.json", "subnets.yaml")


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired lab."""

    state: State
    lab: Lab
    document: Json  # the compose files, resolved
    texts: Mapping[str, Secret]  # the files for its containers


def desired_lab(draft: State, seen: Observation) -> Desired:
    """Return the desired lab, with its definition and subnets.

    Raises InputError when another owner has this user's lab of this name on the engine, when another user has it with
    the same owner, or when the lab's files are in another directory.
    """
    refuse_others(draft, seen.inventory.owners())
    if astray := seen.inventory.astray(draft.owner):
        raise InputError(
            f"a lab “{draft.lab}” of {draft.owner} is on this engine, and is not in the Compose project"
            f" {seen.inventory.project}: {astray[0]}",
            remedy="if it is another user's with the same owner, set MAILSTACK_OWNER to your own; if an earlier version"
            f" of mailstack made it, `{hint.line('down', lab=draft.lab, host=seen.host)}` removes it",
        )
    if seen.elsewhere:
        raise InputError(
            f"lab “{draft.lab}” is on this engine already, and its files are in {seen.elsewhere[0]}",
            remedy=f"`{hint.line('down', lab=draft.lab, host=seen.host)}` removes it",
        )
    state = replace(draft, document=seen.document[schema.BLOCK], services=seen.lab.services, subnets=dict(seen.subnets))
    if seen.state is None and not seen.is_new:
        state = replace(state, stays=True)  # its record was lost: nothing removes it when this `up` fails
    return Desired(state, seen.lab, seen.document, seen.texts)


def refuse_others(desired: State, owners: set[str]) -> None:
    """Raise InputError for another owner's lab of this name: Compose would take it for this lab and change it."""
    if others := sorted(owners - {desired.owner}):
        raise InputError(
            f"a lab “{desired.lab}” of {', '.join(others)} is on this engine", remedy="choose another name with -n"
        )


def plan_up(desired: Desired, seen: Observation, *, log_in: bool, reset: bool = False) -> Plan:
    """Return the plan of `up`. `log_in`: try the user's credentials on the outside relay. `reset`: see Request."""
    start = _start(desired, seen, reset=reset)
    return Plan(desired.state.lab, (*_prepare(desired, seen), *start, *_prove(desired, seen, log_in)))


def _prepare(desired: Desired, seen: Observation) -> Iterator[Step]:
    """Yield the steps before the containers: directory, record, name, files, ports."""
    new, state = seen.is_new, desired.state
    if not seen.made:
        yield MakeDirectory(_NEW if new else "it is not there", (str(seen.path),))
    if seen.state is None or not seen.recorded or seen.state != state:
        yield Record("written before anything is made" if new else _difference(seen.state, state), _RECORD, state)
    volume = claims.name_volume(projects.project_name(state.lab), desired.document)
    if volume and volume[0] not in [each.name for each in seen.inventory.volumes]:
        yield ClaimName("the engine does not have it", (volume[0],))
    if any(change.accounts for change in seen.unfinished):
        yield UndoChanges("they were interrupted", _commands(seen))
    names = files.differing(desired.texts, seen.handed)
    if names or seen.host:
        cause = _NEW if new else "the definition asks for other ones" if names else "its host may have lost them"
        yield WriteFiles(cause, names)
    if seen.host:
        yield ForwardPorts("the lab is on another host", tuple(f"127.0.0.1:{port}" for port in state.ports.values()))


def _difference(before: State | None, state: State) -> str:
    """Return the reason why the record of a lab is written again."""
    if before is None:
        return "it was lost"
    if before == state:
        return "a part of it is not there"
    parts = {
        "its definition": (before.document, before.files, before.services)
        != (state.document, state.files, state.services),
        "its images": before.tag != state.tag,
        "its subnets": before.subnets != state.subnets,
        "its relay": before.relay != state.relay,
    }
    changed = [part for part, differs in parts.items() if differs] or ["its engine's address"]
    return f"{', '.join(changed)} changed"


def _commands(seen: Observation) -> tuple[str, ...]:
    return tuple(dict.fromkeys(change.subject for change in seen.unfinished))


def _start(desired: Desired, seen: Observation, *, reset: bool) -> Iterator[Step]:
    """Yield the steps that start containers, and restart those that must read files again."""
    if seen.missing_images:
        yield BuildImages("the engine does not have them", seen.missing_images)
    if paused := tuple(each.name for each in seen.inventory.containers if each.service and each.state == PAUSED):
        yield Unpause("Compose does not start a paused container", paused)
    # The inventory after Unpause.
    running = (replace(each, state=RUNNING) if each.name in paused else each for each in seen.inventory.containers)
    inventory = replace(seen.inventory, containers=tuple(running))
    if cut_off := _cut_off(desired.document, inventory):
        yield RemoveContainers("they lack their networks or their names", tuple(each.name for each in cut_off))
        kept = tuple(each for each in inventory.containers if each not in cut_off)
        inventory = replace(inventory, containers=kept)
    if reset:
        yield from _remove_edits(desired.document, inventory)
    changes = tuple(compose_changes(desired.document, inventory, seen.hashes, new=seen.is_new))
    if changes or reset or seen.hashes is None:
        services = tuple(desired.document["services"])
        anew = reset or (seen.state is None and not seen.is_new)
        if anew:  # containers see files that were removed until they are created anew
            changes = (Row("recreate containers", services, "--reset" if reset else "the lab's files were lost"),)
        yield ComposeUp("Compose compares them with their definition", services, changes, anew=anew)
    if seen.state is not None and not reset:
        yield from _restarts(desired, seen, changes)


def _remove_edits(document: Json, inventory: Inventory) -> Iterator[Step]:
    """Yield the steps that remove volumes with edited configuration, and first the containers that have them."""
    present = {volume.name for volume in inventory.volumes}
    edited = {name: volume for name, volume in by_hand.volumes(document).items() if volume in present}
    if edited:
        containers = tuple(each.name for each in inventory.containers if each.service in edited)
        yield RemoveContainers("--reset", containers)
        yield RemoveVolumes("--reset", tuple(edited.values()))


def _cut_off(document: Json, inventory: Inventory) -> list[Container]:
    """Return the containers that Compose takes as they are, although it would make them otherwise.

    They lack a network of their service, or are on one that was removed and made again; or they have the interim name
    that an interrupted Compose gave them.
    """
    present = {network.name: network.id for network in inventory.networks}

    def connected(container: Container, network: str) -> bool:
        # A container that was never started has no network id yet.
        return network in present and container.networks.get(network) in ("", present[network])

    found = []
    for name, service in document["services"].items():
        required = [document["networks"][key]["name"] for key in service.get("networks") or ()]
        called = service.get("container_name") or f"{projects.project_name(inventory.lab)}-{name}-1"
        container = inventory.service(name)
        if container and (container.name != called or not all(connected(container, each) for each in required)):
            found.append(container)
    return found


def _restarts(desired: Desired, seen: Observation, changes: Sequence[Row]) -> Iterator[Restart]:
    """Yield the restart of services whose files changed, whose server left, or that an interrupted command touched."""
    # A service that Compose starts in this step reads its files anyway.
    made = {name for change in changes if change.step != "remove containers" for name in change.concerns}
    services = desired.state.services
    changed = files.differing(desired.texts, seen.handed)
    stale = set(files.readers(changed, services, gone={name for name in changed if name not in seen.handed})) - made
    read = [name for name in changed if any(name in each.files for each in services if each.name in stale)]
    causes = [f"changed: {', '.join(read)}"] if stale else []
    if made.intersection(desired.lab.names(Role.STORE)) and not made.issuperset(desired.lab.names(Role.SUBMISSION)):
        # A process of Postfix that started while Dovecot was away has no SASL mechanisms until it is restarted.
        stale.update(desired.lab.names(Role.SUBMISSION))
        causes.append("Dovecot was away")
    if any(change.servers for change in seen.unfinished):
        stale.update(service.name for service in services)
        causes.append(f"interrupted: {', '.join(_commands(seen))}")
    if stale := stale - made:
        yield Restart("; ".join(causes), tuple(sorted(stale)))


def _prove(desired: Desired, seen: Observation, log_in: bool) -> Iterator[Step]:
    addresses = desired.lab.addresses()
    pair = (addresses[0], addresses[-1])
    yield Prove("a mail tells whether the lab works", pair, beside=seen.is_new)
    if seen.unfinished:
        yield CleanUp("it was left behind", _commands(seen))
    if log_in and desired.lab.relay:
        relay = desired.lab.relay
        yield LogIn("its credentials are tried before a mail needs them", (f"{relay.host}:{relay.port}",))
    if not desired.state.stays:
        yield Record("proven: the lab stays when `up` ends", _RECORD, replace(desired.state, stays=True))


def compose_changes(
    document: Json, inventory: Inventory, hashes: Mapping[str, str] | None, *, new: bool
) -> Iterator[Row]:
    """Predict the changes of `docker compose up`, by comparing the containers with the definition.

    `hashes` are Compose's digests of the services' definitions. Without them, only a change of the image is noticed.
    """
    absent = _NEW if new and not inventory.containers else "the engine does not have it"
    networks = _missing(document.get("networks"), {each.name for each in inventory.networks})
    yield from grouped("create networks", dict.fromkeys(networks, absent), networks)
    volumes = _missing(document.get("volumes"), {each.name for each in inventory.volumes}, labelled=not new)
    yield from grouped("create volumes", dict.fromkeys(volumes, absent), volumes)
    create: dict[str, str] = {}
    recreate: dict[str, str] = {}
    start: dict[str, str] = {}
    for name, service in document["services"].items():
        if (container := inventory.service(name)) is None:
            create[name] = absent
        elif container.image != service.get("image", container.image):
            recreate[name] = f"its image is {container.image}"
        elif hashes is not None and container.config_hash != hashes.get(name):
            recreate[name] = "its definition changed"
        elif container.state != RUNNING:
            start[name] = f"its container is {container.state}"
    names = list(document["services"])
    yield from grouped("create containers", create, names)
    yield from grouped("recreate containers", recreate, names)
    yield from grouped("start containers", start, names)
    surplus = [each.service for each in inventory.containers if each.service and each.service not in names]
    yield from grouped("remove containers", dict.fromkeys(surplus, "not in the definition"), surplus)


def _missing(section: Mapping[str, Json] | None, present: set[str], *, labelled: bool = False) -> list[str]:
    """Return the names of the networks or volumes to create.

    `labelled`: only those with the lab's label, because no other volumes are observed.
    """
    return [
        each["name"]
        for each in (section or {}).values()
        if not each.get("external") and each["name"] not in present and (not labelled or LABEL_LAB in _labels(each))
    ]


def _labels(section: Json) -> Mapping[str, str]:
    return section.get("labels") or {}


def recovery(failure: Failure, desired: Desired) -> tuple[Step, ...]:
    """Return the steps after Compose could not start a lab; none when no remedy is known."""
    services = tuple(desired.document["services"])
    if failure.missing_images:
        # Recreate the containers: those of the first attempt may lack a network, which Compose does not notice.
        return (
            BuildImages("the engine does not have them", failure.missing_images),
            ComposeUp("the images are there now", services, anew=True),
        )
    if lost := failure.lost_ports + failure.lost_subnets:
        return (
            Move("another process has taken them", lost),
            ComposeUp("the lab has other ports and subnets now", services),
        )
    return ()
