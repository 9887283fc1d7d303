"""The request for a lab: the options of `up`, the user's files for a relay, and the resulting state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mailstack import state
from mailstack.config import user_files
from mailstack.definition import bundled
from mailstack.images import build
from mailstack.model import Relay
from mailstack.secret import Secret

READY_SECONDS = 30.0

_BUNDLED = ("lab.yaml", "relay.yaml", "blank.yaml")


@dataclass(frozen=True, slots=True)
class Request:
    """The options of `up`."""

    name: str = "lab"
    overlays: tuple[Path, ...] = ()
    relay: Relay | None = None
    credentials: Path | None = None
    relay_ca: Path | None = None
    keep: bool = False
    ttl: float | None = None  # seconds
    patience: float = READY_SECONDS  # seconds that the mails that prove the lab may take
    reset: bool = False  # create all containers anew, which undoes changes by hand
    again: bool = False  # keep the lab's present files for an outside relay
    blank: bool | None = None  # whether the sender is as Debian leaves it; None: as it was when the lab was new

    @classmethod
    def of(cls, lab: state.State) -> Request:
        """Return the request that brings a lab up again with its present definition."""
        own = {str(bundled.compose_file(name)) for name in _BUNDLED}
        host, _, port = lab.relay.rpartition(":")
        relay = Relay(host, int(port)) if lab.relay else None
        return Request(lab.lab, tuple(Path(file) for file in lab.files if file not in own), relay, again=True)


@dataclass(frozen=True, slots=True)
class RelayFiles:
    """The contents of the user's files for an outside relay: credentials, and certificate authorities to trust."""

    credentials: Secret | None = None
    authorities: str | None = ""  # None: keep the present ones


def read_relay_files(request: Request) -> RelayFiles:
    """Read the user's files. Raises CredentialsError, InputError."""
    return RelayFiles(
        user_files.read_credentials(request.credentials) if request.credentials else None,
        user_files.read_authorities(request.relay_ca) if request.relay_ca else None if request.again else "",
    )


def draft(request: Request, before: state.State | None, ports: dict[str, int], url: str, now: float) -> state.State:
    """Return the desired state of a lab, before its definition is read; an existing lab keeps its ports and expiry.

    `before` is the state of the existing lab, `ports` are free ports for a new one, `url` is the engine's address,
    `now` is in seconds of the epoch.
    """
    paths = [bundled.compose_file("lab.yaml")]
    if request.relay:
        paths.append(bundled.compose_file("relay.yaml"))
    if request.blank or (request.blank is None and is_blank(before)):
        paths.append(bundled.compose_file("blank.yaml"))
    paths += [path.absolute() for path in request.overlays]
    expires = "never" if request.ttl is None else str(int(now + request.ttl))
    return state.State(
        lab=request.name,
        owner=state.owner(),
        expires=before.expires if before else expires,
        tag=build.content_tag(bundled.stack()),
        files=tuple(str(path) for path in paths),
        ports=before.ports if before else ports,
        relay=f"{request.relay.host}:{request.relay.port}" if request.relay else "",
        engine=url,
        stays=before.stays if before else request.keep,
    )


def is_blank(lab: state.State | None) -> bool:
    """Return whether there is a lab whose sender is blank by its definition; see compose/blank.yaml."""
    return lab is not None and lab.document.get("blank") is True


def notes(request: Request, before: state.State | None) -> tuple[str, ...]:
    """Return notes for the user on options without effect."""
    if request.ttl is None or before is None:
        return ()
    return ("--ttl is ignored: an existing lab keeps its expiry",)
