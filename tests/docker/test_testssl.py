"""testssl.sh finds no fault in any published TLS service, except what a private CA cannot offer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from mailstack.lab.running import RunningLab
from mailstack.model import PORTS, Json, Port
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

# Forward secrecy follows from the ciphers (--std), and what browsers would agree to is none of a mail server's affair.
SECTIONS = ("--protocols", "--std", "--server-preference", "--server-defaults")
# Known vulnerabilities are of a server's library and settings, which its ports share: one port of each is looked at.
THOROUGH = {"submission": ("--vulnerable",), "imaps": ("--vulnerable",)}
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
def reports(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[Json]]]]:
    """Return the report on each port. All run in parallel, as each takes half a minute of a processor."""
    program, directory = program_path(), tmp_path_factory.mktemp("testssl")
    with labs.one("testssl") as lab, ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {port.name: pool.submit(report, program, lab, port, directory) for port in PORTS}


def report(program: str, lab: RunningLab, port: Port, directory: Path) -> list[Json]:
    """Return the findings on a port; repeat the scan if it could not find something out (WARN)."""
    findings = run(program, lab, port, directory)
    unsure = any(each["severity"] == "WARN" and each["id"] not in OWN for each in findings)
    return run(program, lab, port, directory) if unsure else findings


def run(program: str, lab: RunningLab, port: Port, directory: Path) -> list[Json]:
    """Run testssl.sh on a port; return its findings."""
    file = directory / f"{port.name}.json"
    argv = [program, "--quiet", "--warnings", "off", "--color", "0", "--ip", "one", "--nodns", "min", *SECTIONS]
    argv += THOROUGH.get(port.name, ())
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


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port.name)
def test_testssl_finds_nothing_but_what_a_private_ca_cannot_have(
    port: Port, reports: dict[str, Future[list[Json]]]
) -> None:
    findings = reports[port.name].result()
    assert wrong(findings) == []
    severity = {each["id"]: each["severity"] for each in findings}
    # It has really looked: at the server's ciphers, at its certificate by the lab's CA, at what is known to go wrong.
    assert {"TLS1_2", "cipherlist_aNULL", "cert_chain_of_trust", "cert_trust"} <= set(severity)
    assert ("LUCKY13" in severity) == (port.name in THOROUGH)
    assert severity["cipherlist_aNULL"] == severity["cert_chain_of_trust"] == "OK"


def test_what_is_weak_is_found_wrong() -> None:
    findings = [
        {"id": "cipherlist_aNULL", "severity": "HIGH", "finding": "offered"},
        {"id": "cert_revocation", "severity": "HIGH", "finding": "Neither CRL nor OCSP URI provided"},
        {"id": "TLS1_2", "severity": "OK", "finding": "offered"},
    ]
    assert wrong(findings) == ["HIGH cipherlist_aNULL: offered"]
