"""Twelve wrong configurations, each made by hand on the sender: named with cause and remedy, and, repaired, green.

The lab's sender was set up by hand before, in the course's spelling: `hash:`, `smtp_use_tls`, an account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mailstack import checks
from mailstack.checks.bench import Bench
from mailstack.experiment import own
from mailstack.lab.running import RunningLab
from mailstack.model import CheckResult, Json, Verdict
from tests.docker import by_hand
from tests.docker.bad import run
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker


@dataclass(frozen=True)
class Wrong:
    """A wrong configuration: how it is made, the row that names it, its reason and remedy, and the repair."""

    what: str
    made: str  # a script for root; PASSWORD is the student's, OTHER alice's
    row: str
    reason: str  # a regex
    remedy: str  # a regex
    repair: str = ""  # "" to type the remedy as it is


WRITE = "umask 077; echo '[postfix]:587 {}' > /etc/postfix/sasl_passwd; postmap hash:/etc/postfix/sasl_passwd"
RIGHT = WRITE.format("student@example.com:PASSWORD")
RELAYHOST = r"^sudo postconf 'relayhost = \[postfix\]:587'; sudo postfix reload"

CASES = (
    Wrong(
        "password wrong",
        WRITE.format("student@example.com:not-this-one"),
        "sasl_passwd",
        r"^the password of student@example\.com is wrong \(535\)$",
        r"\(`mailstack secrets reveal -n .* relay --login` shows both\); sudo nano .*; sudo postmap hash:",
        RIGHT,
    ),
    Wrong(
        "map not hashed",
        "rm /etc/postfix/sasl_passwd.db",
        "smtp_sasl_password_maps",
        r"^it is not hashed: there is no /etc/postfix/sasl_passwd\.db$",
        r"^sudo postmap hash:/etc/postfix/sasl_passwd; sudo postfix reload$",
    ),
    Wrong("wrong relayhost", "postconf 'relayhost = [postfx]:587'", "relayhost", r"^postfx is not the pro", RELAYHOST),
    Wrong(
        "brackets missing",
        "postconf 'relayhost = postfix:587'",
        "relayhost",
        r"^without brackets, Postfix looks for the MX of “postfix”",
        RELAYHOST,
    ),
    Wrong(
        "port 465 without wrapper mode",
        "postconf 'relayhost = [postfix]:465'",
        "relayhost",
        r"^port 465 speaks TLS from the start.*smtp_tls_wrappermode = no$",
        RELAYHOST + "; or stay with 465: ",
        "postconf 'relayhost = [postfix]:587'",
    ),
    Wrong(
        "CA missing",
        "postconf smtp_tls_CAfile=",
        "smtp_tls_CAfile",
        r"^no CA is known",
        r"^sudo postconf 'smtp_tls_CAfile = /run/relay/ca-certificates\.crt'; sudo postfix reload$",
    ),
    Wrong(
        "TLS off",
        "postconf smtp_use_tls=no",
        "smtp_use_tls",
        r"^TLS is off: the provider lets nobody log in in the clear$",
        r"^sudo postconf 'smtp_tls_security_level = secure'; sudo postfix reload$",
    ),
    Wrong(
        "wrong mailname",
        "postconf myorigin=exmaple.com",
        "myorigin",
        r"^mail of this machine comes from student@exmaple\.com, but the system mail name is example\.com",
        r"^sudo postconf 'myorigin = example\.com'; sudo postfix reload$",
    ),
    Wrong(
        "mynetworks open",
        "postconf 'mynetworks = 127.0.0.0/8 0.0.0.0/0'",
        "mynetworks",
        r"^0\.0\.0\.0/0: hosts there may send mail .* \(an open relay\)$",
        r"^sudo postconf 'mynetworks = 127\.0\.0\.0/8'; sudo postfix reload$",
    ),
    Wrong(
        "relay user of somebody else",
        WRITE.format("alice@example.com:OTHER"),
        "sasl_passwd",
        r"^alice@example\.com is somebody else: the provider refuses mail from student@example\.com \(553\)$",
        r"^write `\[postfix\]:587 USER:PASSWORD` \(.*; sudo nano /etc/postfix/sasl_passwd; sudo postmap hash:",
        RIGHT,
    ),
    Wrong(
        "main.cf with a syntax error",
        "echo 'relayhost [postfix]:587' >> /etc/postfix/main.cf",
        "main.cf",
        r"^Postfix cannot read its configuration: /etc/postfix/main\.cf, line \d+: missing '=' after attribute name",
        r"^correct the line \(`name = value`\): sudo nano \+\d+ /etc/postfix/main\.cf; then sudo service postfix",
        "sed -i '$d' /etc/postfix/main.cf; service postfix restart",
    ),
    # Besides the twelve of the issue.
    Wrong(
        "edited without a reload",
        "touch -d '+2 seconds' /etc/postfix/main.cf",
        "postfix",
        r"^/etc/postfix/main\.cf was changed after Postfix had read it",
        r"^sudo postfix reload$",
        "touch -d '-1 minute' /etc/postfix/main.cf",
    ),
    Wrong(
        "Postfix stopped",
        "service postfix stop",
        "postfix",
        r"^Postfix is stopped: mail stays in the queue of this machine$",
        r"^sudo service postfix start$",
    ),
)


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab whose sender was set up by hand, and is green."""
    with labs.one("by-hand") as running:
        by_hand.set_up(running)
        assert green(running) == []
        yield running


def checked(lab: RunningLab, *ids: str) -> list[CheckResult]:
    """Return the results of some checks."""
    with Bench(lab) as bench:
        return checks.run(bench, checks.select(ids), lambda result: None)


def green(lab: RunningLab) -> list[str]:
    """Return the evidence of what is not green: the settings, and a mail."""
    results = checked(lab, "relay.settings", "relay.mail-s")
    return [result.evidence for result in results if result.verdict is not Verdict.PASS]


def row_of(document: Json, case: Wrong) -> Json:
    """Return the row of the report that names a wrong setting."""
    found: Json = next(row for row in document["settings"] if row["setting"] == case.row)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_a_wrong_configuration_is_named_with_cause_and_remedy_and_is_green_once_repaired(
    case: Wrong, lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "AFTER", ("send",))  # the others take their time, and are in the last test
    by_hand.root(lab, case.made)
    by_hand.reload(lab)
    try:
        (settings,) = checked(lab, "relay.settings")
        document = own.perform_on(lab.engine, lab.name, "Robin", lambda text: None).document
        row = row_of(document, case)
    finally:
        by_hand.root(lab, case.repair) if case.repair else by_hand.student(lab, row["remedy"])
        by_hand.reload(lab)
    assert re.search(case.reason, row["reason"]), row
    assert re.search(case.remedy, row["remedy"]), row
    assert (row["verdict"], document["verdict"]) == ("fail", "fail")
    reasons = [step["reason"] for step in document["steps"] if step["verdict"] == "fail"]
    assert f"{row['reason']}\n→ {row['remedy']}" in reasons
    assert settings.verdict is Verdict.FAIL
    assert f"{row['reason']}\n  → {row['remedy']}" in settings.evidence
    assert green(lab) == []


def test_all_of_it_is_green_in_the_end_and_nothing_is_left_of_it(lab: RunningLab) -> None:
    outcome = run(["experiment", "--on", lab.name, "--author", "Robin Example"])
    assert outcome.code == 0, outcome
    assert [line for line in outcome.out.splitlines() if len(line) > 80] == []
    assert "no mail waits" in run(["queue", "-n", lab.name]).out
    for account in ("alice", "bob", "student"):
        assert "is empty" in run(["inbox", "-n", lab.name, f"{account}@example.com"]).out
    assert "no known failures" in run(["explain", "-n", lab.name, "--all"]).out
