"""Labs with wrong certificates, open sockets or a way out, and the checks that each turns red."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mailstack import state
from mailstack.config import pki
from mailstack.config.files import SERVER_NAMES
from mailstack.engine import compose
from mailstack.lab import claims, homes
from mailstack.lab.running import RunningLab
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, PORTS, SERVICES
from mailstack.secret import write_private
from tests import engines
from tests.docker.red import Broken, Case

PROVIDER = [port.name for port in PORTS]


def _each(names: list[str], pattern: str) -> dict[str, str]:
    return dict.fromkeys(names, pattern)


# ── what is done to labs ───────────────────────────────────────────────────────────────────────────────────────────


def _certificates(names: Mapping[str, tuple[str, ...]], days: int) -> Callable[[str], None]:
    """Certificates of this kind, there before `up` would make its own: it keeps those that hold."""

    def prepare(name: str) -> None:
        directory = homes.directory(engines.here(), name)
        directory.make()
        made = pki.make({**SERVER_NAMES, **names}, days=days)
        write_private(directory.files / "ca.pem", made.ca)
        for service, pem in made.servers.items():
            write_private(directory.files / f"{service}.pem", pem.reveal())

    return prepare


def _public_ca(lab: RunningLab, patch: pytest.MonkeyPatch) -> None:
    """The servers' certificates are by a CA that this machine trusts anyway, and the lab's CA is another."""
    public = lab.directory.path / "public-ca.pem"
    write_private(public, lab.ca_file.read_text())
    patch.setenv("SSL_CERT_FILE", str(public))  # where OpenSSL looks for the system's CAs
    write_private(lab.ca_file, pki.make({}).ca)


def _readable_map(lab: RunningLab, _: pytest.MonkeyPatch) -> None:
    done = lab.engine.execute(lab.service("sender").container, ["chmod", "0644", "/run/relay/sasl_passwd"])
    assert done.code == 0, done.stderr


def _network_outside(name: str) -> None:
    """The network on which the checks put their listener, so that an overlay can join the lab to it."""
    labels = {LABEL_LAB: name, LABEL_OWNER: state.owner(), LABEL_EXPIRES: "never"}
    assert claims.make_network(engines.here(), f"{compose.project_name(name)}-outside", labels)


def _everywhere(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change to every service of the lab."""
    return {"services": dict.fromkeys(SERVICES, change)}


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────

CASES = (
    Case(
        "tls",
        (
            Broken(
                "Postfix takes TLS 1.0, and has no need of a certificate",
                {
                    **_each([f"tls.old-{name}" for name in PROVIDER[:3]], r"^the server agreed to TLSv1"),
                    **_each([f"tls.anonymous-{name}" for name in PROVIDER[:3]], r"^the server agreed to (ADH|AECDH)-"),
                },
                postfix={
                    "smtpd_tls_exclude_ciphers": "",
                    "smtpd_tls_protocols": ">=TLSv1",
                    "smtpd_tls_mandatory_protocols": ">=TLSv1",
                    "tls_medium_cipherlist": "ALL:@SECLEVEL=0",
                },
            ),
            Broken(
                "Dovecot takes TLS 1.0, and has no need of a certificate",
                {
                    **_each([f"tls.old-{name}" for name in PROVIDER[3:]], r"^the server agreed to TLSv1"),
                    **_each([f"tls.anonymous-{name}" for name in PROVIDER[3:]], r"^the server agreed to (ADH|AECDH)-"),
                },
                dovecot="ssl_min_protocol = TLSv1\nssl_cipher_list = ALL:@SECLEVEL=0",
            ),
            Broken(
                "certificates last for two months, Postfix's has not its name, and Dovecot's has another besides",
                {
                    **_each(
                        [f"tls.verified-{name}" for name in PROVIDER[:3]],
                        r"^by the name postfix: .*[Hh]ostname mismatch",
                    ),
                    **_each(
                        [f"tls.verified-{name}" for name in PROVIDER[3:]], r"accepted for another name, another\.test"
                    ),
                    **_each(["tls.lifetime-postfix", "tls.lifetime-dovecot"], r"^from 20\d\d-.* to 20\d\d-"),
                },
                before=_certificates(
                    {
                        "postfix": ("localhost", "127.0.0.1"),
                        "dovecot": ("dovecot", "localhost", "127.0.0.1", "another.test"),
                    },
                    days=60,
                ),
            ),
        ),
        green=("tls.untrusted-imaps", "auth.imap-clear", "auth.starttls-first"),
    ),
    Case(
        "public-ca",
        (
            Broken(
                "the certificates are by a CA that everybody trusts, and not by the lab's",
                {
                    **_each([f"tls.untrusted-{name}" for name in PROVIDER], r"does not know the lab's CA accepted"),
                    **_each([f"tls.verified-{name}" for name in PROVIDER], r"CERTIFICATE_VERIFY_FAILED"),
                },
                after=_public_ca,
            ),
            Broken(
                "LMTP and SASL are open to all who reach Dovecot's address",
                {"exposure.ports": r"^listens for the network, and is not published: dovecot:24, dovecot:12345$"},
                dovecot="service lmtp {\n inet_listener lmtp {\n port = 24\n }\n}\n"
                "service auth {\n inet_listener sasl {\n port = 12345\n }\n}",
            ),
            Broken(
                "the sender has the sockets of LMTP and SASL, too",
                {"exposure.sockets": r"^mailstack-LAB_sockets is mounted by sender, too$"},
                compose={"services": {"sender": {"volumes": ["sockets:/run/sockets"]}}},
            ),
        ),
        green=("tls.old-imaps", "tls.lifetime-postfix", "auth.imap-clear"),
    ),
    Case(
        "ways-out",
        (
            Broken(
                "the lab is on a network with others",
                _each(
                    [f"closed.no-way-out-{name}" for name in SERVICES],
                    r"reached \d+\.\d+\.\d+\.\d+:2525 on the network mailstack-LAB-outside$",
                ),
                compose={
                    **_everywhere({"networks": {"outside": {}}}),
                    "networks": {"outside": {"external": True, "name": "mailstack-LAB-outside"}},
                },
                before=_network_outside,
            ),
            Broken(
                "packets live long enough for a router to pass them on",
                _each(
                    [f"closed.no-forwarding-{name}" for name in SERVICES],
                    r"^a default route, and packets that live for 64",
                ),
                compose=_everywhere({"sysctls": {"net.ipv4.ip_default_ttl": 64}}),
            ),
            Broken(
                "there is somebody to ask for outside names",
                _each([f"closed.names-{name}" for name in SERVICES], r"^code 0 after .* 192\.0\.2\.1 "),
                compose=_everywhere({"extra_hosts": {"outside.test": "192.0.2.1"}}),
            ),
            Broken(
                "a port is published for everybody",
                {"closed.loopback": r"^published elsewhere: 0\.0\.0\.0:\d+"},
                compose={"services": {"postfix": {"ports": ["0.0.0.0::25"]}}},
            ),
        ),
        green=("closed.submission", "delivery.one-copy"),
    ),
)
