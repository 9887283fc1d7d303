"""The rows of the course's main.cf: each setting, its value in effect, and a verdict with reason and remedy.

Pure functions of `Facts`. A row is judged by what its setting leads to, and not by the spelling of the lab's own
configuration: `hash:` is as good as `lmdb:`, and `smtp_use_tls = yes` as `smtp_tls_security_level = may`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailstack.checks.client import course, names, passwords, relay, tls
from mailstack.checks.client.facts import Facts
from mailstack.checks.client.finding import Finding
from mailstack.model import Json

Judge = Callable[[Facts], Finding]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the course: a setting, and how it is judged. Only a `vital` one decides whether mail is sent safely."""

    setting: str
    original: str  # its value in the course; "" where the course does not set it
    judge: Judge
    vital: bool = True
    task: str = ""  # what the student does, as a sentence, where it is more than to set the original value

    @property
    def sentence(self) -> str:
        """Return what the student does, as a sentence."""
        return self.task or f"The student adds to main.cf: {self.setting} = {self.original}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A row with its verdict."""

    row: Row
    finding: Finding

    @property
    def sentence(self) -> str:
        """Return setting, value and problem in one line."""
        value = f" = {self.finding.value}" if self.finding.value and self.row not in MACHINE else ""
        return f"{self.row.setting}{value}: {self.finding.problem or 'right'}"

    def json(self) -> Json:
        """Return the row in the format of the experiment's document."""
        found = self.finding
        return {
            "setting": self.row.setting,
            "original": self.row.original,
            "value": found.value,
            "verdict": "fail" if found.problem else "pass",
            "reason": found.problem or found.note,
            "remedy": found.remedy,
        }


# The state of the machine comes first: without it, no other row can be judged.
MACHINE = (
    Row("main.cf", "", course.main_cf, task="The student edits main.cf, and Postfix can read it afterwards."),
    Row(
        "postfix",
        "restarted after each change",
        course.service,
        task="The student restarts Postfix after each change of its configuration.",
    ),
)

ROWS = (
    *MACHINE,
    Row(
        "myorigin",
        "example.com (the system mail name)",
        names.mailname,
        task="The student chooses the system mail name example.com, which myorigin names.",
    ),
    Row(
        "mydestination",
        "without the recipients' domain",
        names.mydestination,
        task="The student takes the recipients' domain out of mydestination, so that their mail leaves the machine.",
    ),
    Row(
        "relayhost",
        "[the provider]:587",
        relay.relayhost,
        task="The student sets relayhost to the provider's submission service, on port 587.",
    ),
    Row("smtp_sasl_auth_enable", "yes", relay.auth_enable),
    Row("smtp_sasl_security_options", "noanonymous", relay.security_options),
    Row("smtp_sasl_password_maps", "hash:/etc/postfix/sasl_passwd", passwords.maps),
    Row(
        "sasl_passwd",
        "user name and password, for the relayhost",
        passwords.credentials,
        task="The student writes user name and password for the relayhost into sasl_passwd, and runs postmap on it.",
    ),
    Row("smtp_use_tls", "yes", tls.client_level),
    Row("smtp_tls_CAfile", "/etc/ssl/certs/ca-certificates.crt", tls.authorities),
    Row(
        "mynetworks",
        "this machine alone",
        names.mynetworks,
        task="The student lets only the machine itself send mail through it (mynetworks).",
    ),
    Row("readme_directory", "no", course.readme_directory, vital=False),
    Row("smtpd_tls_cert_file", "/etc/ssl/certs/ssl-cert-snakeoil.pem", tls.certificate, vital=False),
    Row("smtpd_tls_key_file", "/etc/ssl/private/ssl-cert-snakeoil.key", tls.key, vital=False),
    Row("smtpd_use_tls", "yes", tls.server_level, vital=False),
    Row("smtpd_tls_session_cache_database", "btree:${data_directory}/smtpd_scache", tls.server_cache, vital=False),
    Row("smtp_tls_session_cache_database", "btree:${data_directory}/smtp_scache", tls.client_cache, vital=False),
)


def judged(facts: Facts) -> list[Judged]:
    """Return every row with its verdict; just those of the machine while its configuration cannot be read."""
    rows: Sequence[Row] = ROWS if not facts.error else MACHINE
    return [Judged(row, row.judge(facts)) for row in rows]


def wrong(facts: Facts) -> list[Judged]:
    """Return the vital rows that are wrong."""
    return [each for each in judged(facts) if each.row.vital and each.finding.problem]


def report(found: Sequence[Judged]) -> str:
    """Return wrong rows as text: setting, value and problem, and the remedy below; each remedy once."""
    told: set[str] = set()
    lines = []
    for each in found:
        lines.append(each.sentence)
        if each.finding.remedy not in told:
            lines.append(f"  → {each.finding.remedy}")
        told.add(each.finding.remedy)
    return "\n".join([*lines, *(["then, for what waits: sudo postqueue -f"] if found else [])])
