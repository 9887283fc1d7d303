"""Observe a lab, before `up` changes it: its directory, its engine, this host. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mailstack.config import files
from mailstack.definition import bundled
from mailstack.engine.inventory import Inventory
from mailstack.host import requirements
from mailstack.lab import claims, elsewhere
from mailstack.lab.request import RelayFiles
from mailstack.lab.resolve import read_definition, resolve
from mailstack.lab.running import project
from mailstack.lab.tools import Tools
from mailstack.model import Deadline, Json, Lab
from mailstack.runner.local import must
from mailstack.secret import Secret
from mailstack.state import LabDirectory, State

_HASH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What there is of a lab, and what its definition asks for."""

    state: State | None  # how it was brought up; None: it was not
    path: Path
    made: bool  # whether its directory is there
    recorded: bool  # whether what Compose reads of it is there, beside its files
    inventory: Inventory
    elsewhere: tuple[Path, ...]  # directories of this user's lab that another runtime directory has
    document: Json  # the compose files, resolved
    lab: Lab
    subnets: Mapping[str, str]  # network → subnet: free ones, or those that it has
    handed: Mapping[str, Secret]  # the files that its containers were handed
    texts: Mapping[str, Secret]  # the same files as they should be
    host: str = ""  # the host over SSH that it is on; "" for an engine that this machine reaches itself
    # Asked for a plan that is shown. While a lab is brought up, Compose finds these out: to ask would cost time.
    missing_images: tuple[str, ...] = ()
    hashes: Mapping[str, str] | None = None  # service → Compose's digest of its definition; None: not known


def observe(
    tools: Tools,
    directory: LabDirectory,
    wanted: State,
    before: State | None,
    given: RelayFiles,
    pool: ThreadPoolExecutor,
    *,
    closely: bool = False,
) -> Observation:
    """Read the definition of the lab that is `wanted`, and look at what there is. `closely`: also images and digests.

    Raises LabFileError, HostError.
    """
    from mailstack.config import pki

    paths = [Path(name) for name in wanted.files]
    # Done while Compose reads: certificates, and what the engine is asked. Begun now, and not sooner, since
    # Python computes one thing at a time. Heavy imports are left for when Compose starts the containers.
    fresh = None
    if not files.certificates_hold(directory.files):
        fresh = pool.submit(pki.make, files.SERVER_NAMES)
    asked = pool.submit(_ask, tools, directory.name)
    document = resolve(tools.runner, project(tools.target, tools.runner, wanted, directory), paths)
    lab = read_definition(document, paths)
    inventory = asked.result()
    made = directory.is_made()
    seen = Observation(
        state=before,
        path=directory.path,
        made=made,
        recorded=before is not None and directory.subnets_file.is_file() and (directory.files / "added").is_dir(),
        inventory=inventory,
        elsewhere=tuple(elsewhere.find(tools.target, inventory, directory)) if before is None else (),
        document=document,
        lab=lab,
        subnets=_subnets(tools, wanted, before, document, inventory),
        handed=files.kept(directory.files) if made else {},
        texts=files.wanted(
            directory.files,
            lab,
            fresh=fresh.result() if fresh else None,
            outside=given.credentials,
            relay_ca=given.authorities,
        ),
        host=tools.target.host,
    )
    return _closely(tools, directory, wanted, seen) if closely else seen


def _ask(tools: Tools, name: str) -> Inventory:
    requirements.refuse_old(tools.engine)
    return tools.engine.inventory(name)


def _subnets(
    tools: Tools, wanted: State, before: State | None, document: Json, inventory: Inventory
) -> Mapping[str, str]:
    if inventory.owners() - {wanted.owner}:
        return {}  # another owner's lab: the plan refuses it
    return claims.of_subnets(
        tools.target, tools.home, wanted, document, inventory.networks, before.subnets if before else {}
    )


def _closely(tools: Tools, directory: LabDirectory, wanted: State, seen: Observation) -> Observation:
    """Add what Compose would find out: images that are not there, and definitions that have changed."""
    hashes = None
    if seen.state:
        told = must(
            tools.runner,
            project(tools.target, tools.runner, wanted, directory, seen.document).hashes(),
            deadline=Deadline.after(_HASH_SECONDS),
        )
        hashes = dict(line.split(" ", 1) for line in told.stdout.splitlines())
    return replace(seen, missing_images=missing_images(tools, wanted), hashes=hashes)


def references(wanted: State) -> tuple[str, ...]:
    """The images of a lab."""
    return tuple(bundled.images(wanted.tag).values())


def missing_images(tools: Tools, wanted: State) -> tuple[str, ...]:
    """The images of a lab that its engine does not have. Raises EngineError."""
    return tuple(each for each in references(wanted) if not tools.engine.has_image(each))


@dataclass(frozen=True, slots=True)
class Failure:
    """What there is after Compose could not start a lab: that, and not the words of Compose, tells the reason."""

    missing_images: tuple[str, ...] = ()
    disk_full: bool = False
    lost_ports: tuple[str, ...] = ()  # ports of the lab on which something else listens
    lost_subnets: tuple[str, ...] = ()  # subnets of the lab that the engine did not give it


def observe_failure(tools: Tools, wanted: State, document: Json, *, new: bool, images: bool) -> Failure:
    """Look for the reason why Compose failed: at `images` first, then, for a `new` lab, at what others have taken."""
    if images and (missing := missing_images(tools, wanted)):
        return Failure(missing_images=missing)
    if not new:  # a lab that is up keeps what it has
        return Failure()
    if requirements.disk_is_full(tools.engine):
        return Failure(disk_full=True)
    idle = idle_services(tools, wanted, document)
    return Failure(
        lost_ports=tuple(claims.lost_ports(tools.target, wanted, document, idle)),
        lost_subnets=tuple(claims.lost_subnets(tools.engine, wanted, document)),
    )


def idle_services(tools: Tools, wanted: State, document: Json) -> list[str]:
    """The services of a lab that do not run. Raises EngineError."""
    inventory = tools.engine.inventory(wanted.lab)
    running = {each.service for each in inventory.containers if each.state == "running"}
    return sorted(set(document["services"]) - running)
