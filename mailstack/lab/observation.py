"""Observe a lab before `up` changes it: its directory, its engine and this host. Changes nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mailstack.config import files
from mailstack.definition import bundled
from mailstack.engine.inventory import Inventory
from mailstack.host import requirements
from mailstack.lab import changes, claims, elsewhere
from mailstack.lab.changes import Unfinished
from mailstack.lab.request import RelayFiles
from mailstack.lab.resolve import read_definition, resolve
from mailstack.lab.running import project
from mailstack.lab.tools import Tools
from mailstack.model import Deadline, Json, Lab
from mailstack.network import subnets
from mailstack.runner.local import run_checked
from mailstack.secret import Secret
from mailstack.state import LabDirectory, State

_HASH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Observation:
    """The present state of a lab, and its definition."""

    state: State | None  # how it was brought up; None for a new lab
    path: Path
    made: bool  # whether its directory exists
    recorded: bool  # whether the other inputs of Compose exist: the subnets file and `added/`
    inventory: Inventory
    elsewhere: tuple[Path, ...]  # directories of this user's lab in another runtime directory
    document: Json  # the compose files, resolved
    lab: Lab
    subnets: Mapping[str, str]  # network → subnet: a free one, or its present one
    handed: Mapping[str, Secret]  # the files that its containers have now
    texts: Mapping[str, Secret]  # the same files as they should be
    unfinished: tuple[Unfinished, ...] = ()  # changes that were interrupted
    host: str = ""  # its host over SSH; "" for an engine that this machine reaches directly
    # Set only for a plan that is shown. `up` saves the time: Compose finds these out itself.
    missing_images: tuple[str, ...] = ()
    hashes: Mapping[str, str] | None = None  # service → Compose's digest of its definition; None when unknown

    @property
    def is_new(self) -> bool:
        """Whether the engine has nothing of the lab. A lab whose record was lost is not new: it has its mail."""
        return self.state is None and not self.inventory.owners()


def observe(
    tools: Tools,
    directory: LabDirectory,
    desired: State,
    before: State | None,
    relay_files: RelayFiles,
    pool: ThreadPoolExecutor,
    *,
    in_detail: bool = False,
) -> Observation:
    """Read the definition of the `desired` lab and observe its present state; `in_detail`: also images and digests.

    Raises LabFileError, HostError.
    """
    from mailstack.config import pki

    paths = [Path(name) for name in desired.files]
    # Make certificates and query the engine while Compose reads the files. Not earlier: Python runs one thread at a
    # time. Heavy imports wait until Compose starts the containers.
    fresh = None
    if not files.certificates_valid(directory.files):
        fresh = pool.submit(pki.make, files.SERVER_NAMES)
    inventory_query = pool.submit(_supported_inventory, tools, directory.name)
    document = resolve(tools.runner, project(tools.target, tools.runner, desired, directory), paths)
    lab = read_definition(document, paths)
    inventory = inventory_query.result()
    made = directory.is_made()
    seen = Observation(
        state=before,
        path=directory.path,
        made=made,
        recorded=before is not None and _recorded(directory, before),
        inventory=inventory,
        elsewhere=tuple(elsewhere.find(tools.target, inventory, directory)) if before is None else (),
        document=document,
        lab=lab,
        subnets=_subnets(tools, desired, before, document, inventory),
        handed=files.snapshot(directory.files) if made else {},
        texts=files.desired(
            directory.files,
            lab,
            fresh=fresh.result() if fresh else None,
            outside=relay_files.credentials,
            relay_ca=relay_files.authorities,
        ),
        unfinished=tuple(changes.unfinished(directory.path)) if made else (),
        host=tools.target.host,
    )
    return _with_details(tools, directory, desired, seen) if in_detail else seen


def _recorded(directory: LabDirectory, before: State) -> bool:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = directory.subnets_file.read_text(encoding="utf-8")
        return text == json.dumps(subnets.overlay(before.subnets)) and (directory.files / "added").is_dir()
    return False


def _supported_inventory(tools: Tools, name: str) -> Inventory:
    requirements.refuse_old(tools.engine)
    return tools.engine.inventory(name)


def _subnets(
    tools: Tools, desired: State, before: State | None, document: Json, inventory: Inventory
) -> Mapping[str, str]:
    if inventory.owners() - {desired.owner}:
        return {}  # another owner's lab: the plan refuses it
    return claims.allocate_subnets(
        tools.target, tools.home, desired, document, inventory.networks, before.subnets if before else {}
    )


def _with_details(tools: Tools, directory: LabDirectory, desired: State, seen: Observation) -> Observation:
    """Add missing images and the digests of the definitions, which Compose would find out itself."""
    hashes = None
    if seen.state:
        result = run_checked(
            tools.runner,
            project(tools.target, tools.runner, desired, directory, seen.document).hashes(),
            deadline=Deadline.after(_HASH_SECONDS),
        )
        hashes = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    return replace(seen, missing_images=missing_images(tools, desired), hashes=hashes)


def missing_images(tools: Tools, desired: State) -> tuple[str, ...]:
    """Return the images of a lab that its engine does not have. Raises EngineError."""
    return tuple(each for each in bundled.images(desired.tag).values() if not tools.engine.has_image(each))


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why Compose could not start a lab, observed on the engine and host, not read from Compose's output."""

    missing_images: tuple[str, ...] = ()
    disk_full: bool = False
    lost_ports: tuple[str, ...] = ()  # ports of the lab on which another process listens
    lost_subnets: tuple[str, ...] = ()  # subnets of the lab that the engine did not give it


def observe_failure(tools: Tools, desired: State, document: Json, *, new: bool, images: bool) -> Failure:
    """Find the reason why Compose failed: missing `images` first; for a `new` lab also the disk, ports and subnets."""
    if images and (missing := missing_images(tools, desired)):
        return Failure(missing_images=missing)
    if not new:  # a lab that is up keeps its ports and subnets
        return Failure()
    if requirements.disk_is_full(tools.engine):
        return Failure(disk_full=True)
    idle = idle_services(tools, desired, document)
    return Failure(
        lost_ports=tuple(claims.lost_ports(tools.target, desired, document, idle)),
        lost_subnets=tuple(claims.lost_subnets(tools.engine, desired, document)),
    )


def idle_services(tools: Tools, desired: State, document: Json) -> list[str]:
    """Return the services of a lab that do not run. Raises EngineError."""
    inventory = tools.engine.inventory(desired.lab)
    running = {each.service for each in inventory.containers if each.state == "running"}
    return sorted(set(document["services"]) - running)
