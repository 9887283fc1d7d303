"""Changes that break a lab, and what several tables of broken labs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mailstack import state
from mailstack.config import pki
from mailstack.config.files import SERVER_NAMES
from mailstack.engine import projects
from mailstack.lab import claims, homes
from mailstack.lab.running import RunningLab
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, PORTS, SERVICES
from mailstack.secret import write_private
from tests import engines
from tests.docker.reload import RELOAD

PROVIDER = [port.name for port in PORTS]


def for_each(names: list[str], pattern: str) -> dict[str, str]:
    """Return the same pattern of evidence for several checks."""
    return dict.fromkeys(names, pattern)


def certificates(names: Mapping[str, tuple[str, ...]], days: int) -> Callable[[str], None]:
    """Certificates of this kind, there before `up` would make its own: it keeps those that hold."""

    def prepare(name: str) -> None:
        directory = homes.directory(engines.here(), name)
        directory.make()
        made = pki.make({**SERVER_NAMES, **names}, days=days)
        write_private(directory.files / "ca.pem", made.ca)
        for service, pem in made.servers.items():
            write_private(directory.files / f"{service}.pem", pem.reveal())

    return prepare


def public_ca(lab: RunningLab, patch: pytest.MonkeyPatch) -> None:
    """The servers' certificates are by a CA that this machine trusts anyway, and the lab's CA is another."""
    public = lab.directory.path / "public-ca.pem"
    write_private(public, lab.ca_file.read_text())
    patch.setenv("SSL_CERT_FILE", str(public))  # where OpenSSL looks for the system's CAs
    write_private(lab.ca_file, pki.make({}).ca)


def readable_map(lab: RunningLab, _: pytest.MonkeyPatch) -> None:
    """Let other users of the sender read the relay's credentials."""
    done = lab.engine.execute(lab.service("sender").container, ["chmod", "0644", "/run/relay/sasl_passwd"])
    assert done.code == 0, done.stderr


def without_authority(lab: RunningLab, _: pytest.MonkeyPatch) -> None:
    """The sender goes on without being able to verify the provider's certificate: the lab's CA is not in its file."""
    settings = "postconf smtp_tls_security_level=encrypt smtp_tls_CAfile=/etc/ssl/certs/ca-certificates.crt\n"
    done = lab.engine.execute(lab.service("sender").container, ["sh", "-c", settings + RELOAD])
    assert done.code == 0, done.stderr


def network_outside(name: str) -> None:
    """The network on which the checks put their listener, so that an overlay can join the lab to it."""
    labels = {LABEL_LAB: name, LABEL_OWNER: state.owner(), LABEL_EXPIRES: "never"}
    assert claims.make_network(engines.here(), f"{projects.project_name(name)}-outside", labels)


def everywhere(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change to every service of the lab."""
    return {"services": dict.fromkeys(SERVICES, change)}
