"""testssl.sh finds no fault in any published TLS service, except what a private CA cannot offer.

The ports of a server share its library, its settings and its certificate. testssl.sh scans one port of each server;
the others must give the same answers to the same Client Hellos, for every version and every cipher suite.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from mailstack.config import pki
from mailstack.lab.running import RunningLab
from mailstack.model import PORTS, Json, Port
from mailstack.roles import Role
from tests.docker import hellos
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

# Forward secrecy follows from the ciphers (--std), and what browsers would agree to is none of a mail server's affair.
SECTIONS = ("--protocols", "--std", "--server-preference", "--server-defaults", "--vulnerable")
# By role, the port of the server that testssl.sh scans: one with STARTTLS, one without.
SCANNED = {Role.SUBMISSION: "submission", Role.STORE: "imaps"}
OTHERS = [port for port in PORTS if port.name not in SCANNED.values()]
# STARTTLS, where the port does not begin with TLS (RFC 8314).
STARTTLS = {"smtp": "smtp", "submission": "smtp", "imap": "imap", "pop3": "pop3"}
SECONDS = 600.0

GOOD = {"OK", "INFO", "DEBUG"}
# What a lab's CA cannot have: it is asked by nobody whether a certificate was revoked, and no zone names it.
EXEMPT = {"cert_revocation", "DNS_CAArecord"}
# Not about what is safe: testssl.sh's own OpenSSL has no GOST; and whether a session can be taken up again, which it
# cannot find out on a busy machine.
OWN = {"engine_problem", "sessionresumption_ticket", "sessionresumption_ID"}
# A lab's certificates hold for 30 days (`tls.lifetime-…` of mailstack/checks), which testssl.sh takes for nearly over.
DAYS = {"DAYS2WARN1": "20", "DAYS2WARN2": "10"}


def program_path() -> str:
    """Return the path of testssl.sh. Without it these tests are skipped, but never if CI=true."""
    found = shutil.which("testssl") or shutil.which("testssl.sh")
    if found is None:
        reason = "there is no testssl.sh; tests/provision installs it (Debian; root or sudo)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("testssl") as running:
        yield running


@pytest.fixture(scope="module")
def reports(lab: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[Json]]]]:
    """Return the reports on the scanned ports. They run in parallel, as each takes a minute of a processor."""
    program, directory = program_path(), tmp_path_factory.mktemp("testssl")
    scanned = [port for port in PORTS if port.name in SCANNED.values()]
    with ThreadPoolExecutor(len(scanned)) as pool:
        yield {port.name: pool.submit(report, program, lab, port, directory) for port in scanned}


def report(program: str, lab: RunningLab, port: Port, directory: Path) -> list[Json]:
    """Return the findings on a port; repeat the scan if it could not find something out (WARN)."""
    findings = run(program, lab, port, directory)
    unsure = any(each["severity"] == "WARN" and each["id"] not in OWN for each in findings)
    return run(program, lab, port, directory) if unsure else findings


def run(program: str, lab: RunningLab, port: Port, directory: Path) -> list[Json]:
    """Run testssl.sh on a port; return its findings."""
    file = directory / f"{port.name}.json"
    argv = [program, "--quiet", "--warnings", "off", "--color", "0", "--ip", "one", "--nodns", "min", *SECTIONS]
    argv += ["--add-ca", str(lab.ca_file), "--jsonfile", str(file)]
    argv += ["--starttls", STARTTLS[port.name]] if port.name in STARTTLS else []
    argv += [f"localhost:{lab.endpoints[port.name].port}"]
    file.unlink(missing_ok=True)  # it writes over nothing
    ended = subprocess.run(
        argv,
        env=os.environ | DAYS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,  # its code counts what it finds
    )
    found: list[Json] = json.loads(file.read_text())
    assert found, (ended.stdout, ended.stderr)
    return found


def wrong(findings: list[Json]) -> list[str]:
    """Return the findings that are worse than good and not exempt."""
    return [
        f"{each['severity']} {each['id']}: {each['finding']}"
        for each in findings
        if each["severity"] not in GOOD and each["id"] not in EXEMPT | OWN
    ]


@pytest.mark.parametrize("name", SCANNED.values())
def test_testssl_finds_nothing_but_what_a_private_ca_cannot_have(
    name: str, reports: dict[str, Future[list[Json]]]
) -> None:
    findings = reports[name].result()
    assert wrong(findings) == []
    severity = {each["id"]: each["severity"] for each in findings}
    # It has really looked: at the server's ciphers, at its certificate by the lab's CA, at what is known to go wrong.
    assert {"TLS1_2", "cipherlist_aNULL", "cert_chain_of_trust", "cert_trust", "LUCKY13"} <= set(severity)
    assert severity["cipherlist_aNULL"] == severity["cert_chain_of_trust"] == "OK"


def test_what_is_weak_is_found_wrong() -> None:
    findings = [
        {"id": "cipherlist_aNULL", "severity": "HIGH", "finding": "offered"},
        {"id": "cert_revocation", "severity": "HIGH", "finding": "Neither CRL nor OCSP URI provided"},
        {"id": "TLS1_2", "severity": "OK", "finding": "offered"},
    ]
    assert wrong(findings) == ["HIGH cipherlist_aNULL: offered"]


def offer(lab: RunningLab, name: str) -> dict[str, tuple[hellos.Answer, ...]]:
    """Return what a port of the lab offers."""
    return hellos.offer(lab.endpoints[name], STARTTLS.get(name, ""))


@pytest.mark.parametrize("port", OTHERS, ids=lambda port: port.name)
def test_every_other_port_offers_what_the_scanned_port_of_its_server_offers(port: Port, lab: RunningLab) -> None:
    offered = offer(lab, port.name)
    assert offered == offer(lab, SCANNED[port.role])
    assert [version for version, answers in offered.items() if answers] == ["TLSv1.2", "TLSv1.3"]
    assert all(answer.chain for answer in offered["TLSv1.2"])


# Settings for port 465 alone; "CERTIFICATE" is a file with another certificate.
DIFFERENT = {
    "an older version": {
        "smtpd_tls_mandatory_protocols": ">=TLSv1",
        "smtpd_tls_exclude_ciphers": "aNULL",
        "tls_medium_cipherlist": "ALL:@SECLEVEL=0",
    },
    "one suite less": {"smtpd_tls_exclude_ciphers": "aNULL,SHA1,SHA256,SHA384,CHACHA20"},
    "the client's order": {"tls_preempt_cipherlist": "no"},
    "another group": {"tls_eecdh_auto_curves": "prime256v1"},
    "another certificate": {"smtpd_tls_chain_files": "CERTIFICATE"},
}


# The last on the lab, as Postfix is reloaded: the scans are over by then.
@pytest.mark.parametrize("settings", DIFFERENT.values(), ids=DIFFERENT)
def test_a_port_that_differs_from_the_others_of_its_server_is_noticed(
    settings: dict[str, str], lab: RunningLab, reports: dict[str, Future[list[Json]]]
) -> None:
    wait(reports.values())
    with changed(lab, settings):
        assert offer(lab, "submissions") != offer(lab, "submission")
    assert offer(lab, "submissions") == offer(lab, "submission")


@contextlib.contextmanager
def changed(lab: RunningLab, settings: dict[str, str]) -> Iterator[None]:
    """Change settings of Postfix for port 465 alone."""
    certificate = "/tmp/another.pem"
    run_inside(lab, f"umask 077; cat > {certificate}", pki.make({"postfix": ["localhost"]}).servers["postfix"].reveal())
    words = [f"submissions/inet/{name}={value}".replace("CERTIFICATE", certificate) for name, value in settings.items()]
    run_inside(lab, f"cp /etc/postfix/master.cf /tmp && postconf -P {shlex.join(words)} && postfix reload")
    try:
        yield
    finally:
        run_inside(lab, f"cp /tmp/master.cf /etc/postfix && postfix reload; rm {certificate}")


def run_inside(lab: RunningLab, script: str, data: str = "") -> None:
    """Run a script in Postfix's container."""
    argv = ["sh", "-c", script]
    done = lab.engine.execute(lab.service("postfix").container, argv, user="root", input=data.encode())
    assert done.code == 0, done.stderr
