"""What a failed mail of a lab needs: the setting that its failure is about, its value in effect, and a command."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from mailstack.engine.engine import Engine
from mailstack.errors import MailstackError
from mailstack.lab.running import RunningLab
from mailstack.model import Json
from mailstack.roles import Role
from mailstack.trace import pending
from mailstack.trace.journey import ARRIVED, Journey, Outcome

_MAIN_CF = "/etc/postfix/main.cf"
_DOVECOT_CONF = "/etc/dovecot/dovecot.conf"
_RELOAD = "postfix reload; postqueue -f"


@dataclass(frozen=True, slots=True)
class Repair:
    """A setting in effect on a machine of a lab, and the command that repairs it; "" where none is known."""

    machine: str
    file: str
    setting: str
    value: str
    command: str = ""  # to be run on the machine, or one of mailstack

    def json(self) -> Json:
        return {
            "machine": self.machine,
            "file": self.file,
            "setting": self.setting,
            "value": self.value,
            "command": self.command,
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """The setting that a known failure is about: on the client, the server or the mail store; and its repair.

    In a command, {next} is the lab's own relay host, {value} the value in effect and {recipient} an address.
    """

    side: str
    setting: str
    command: str = ""
    words: tuple[str, ...] = ()  # of a command of mailstack instead


_RELAYHOST = Rule("client", "relayhost", f"postconf 'relayhost = [{{next}}]:587'; {_RELOAD}")
_PASSWORDS = Rule("client", "smtp_sasl_password_maps", f"postmap {{value}}; {_RELOAD}")
_CA_FILE = Rule("client", "smtp_tls_CAfile", f"postconf smtp_tls_CAfile=/run/relay/ca-certificates.crt; {_RELOAD}")
RULES = {
    "connection-refused": _RELAYHOST,
    "connection-timed-out": _RELAYHOST,
    "no-route": _RELAYHOST,
    "name-not-resolved": _RELAYHOST,
    "certificate-for-another-name": _RELAYHOST,
    "tls-from-the-start": _RELAYHOST,
    "ca-file-unusable": _CA_FILE,
    "certificate-issuer-unknown": _CA_FILE,
    "starttls-required": Rule(
        "client", "smtp_tls_security_level", f"postconf smtp_tls_security_level=secure; {_RELOAD}"
    ),
    "map-missing": _PASSWORDS,
    "map-stale": _PASSWORDS,
    "wrong-password": _PASSWORDS,
    "login-required": _PASSWORDS,
    "too-large": Rule("server", "message_size_limit", "postconf message_size_limit=BYTES; postfix reload"),
    "refused-by-rule": Rule("server", "header_checks", "postconf -X header_checks; postfix reload"),
    "mailbox-unknown": Rule("server", "virtual_mailbox_maps", words=("account", "add", "{recipient}")),
    "lab-closed": Rule("server", "default_transport"),
    "authentication-unavailable": Rule("server", "smtpd_sasl_path", words=("up",)),
    "mailbox-server-down": Rule("client", "virtual_transport", words=("up",)),
    "over-quota": Rule("store", "quota_storage_size", "doveadm expunge -u {recipient} mailbox INBOX all"),
}


@dataclass(frozen=True, slots=True)
class Advice:
    """What to tell about a mail of a lab that has not arrived."""

    next_hop: str = ""
    waits_for: str = ""
    repair: Repair | None = None

    def json(self) -> Json:
        """Return the keys that `explain --json` adds to a mail."""
        repair = self.repair.json() if self.repair else None
        return {"next_hop": self.next_hop, "waits_for": self.waits_for, "repair": repair}


def advice(lab: RunningLab, journey: Journey, now: float) -> Advice:
    """Return the next hop of a mail and what it waits for, if it waits, and how its failure is repaired."""
    outcome = pending.open_outcome(journey)
    hop = next_hop(lab, outcome) if outcome else ""
    return Advice(hop, pending.waits_for(journey, now), of(lab, journey))


def of(lab: RunningLab, journey: Journey) -> Repair | None:
    """Return the setting that a mail's failure is about, as it is in effect; None if it is not known."""
    outcome = next((each for each in journey.outcomes if each.status not in ARRIVED), None)
    rule = RULES.get(journey.failure.id) if journey.failure else None
    if outcome is None or rule is None:
        return None
    relay = lab.defined.name(Role.SUBMISSION)
    store = lab.defined.name(Role.STORE)
    machine = machine_of(rule.side, outcome, [service.name for service in lab.services()], relay, store)
    program = "doveconf" if rule.side == "store" else "postconf"
    value = in_effect(lab, machine, rule.setting, program)
    if value is None:
        return None
    words = {"next": relay, "value": value, "recipient": outcome.recipient}
    # The values that a lab has at first are not those of a relay host outside.
    command = "" if lab.state.relay and rule.side == "client" else filled(rule, words, lab.line)
    return Repair(machine, _DOVECOT_CONF if rule.side == "store" else _MAIN_CF, rule.setting, value, command)


def next_hop(lab: RunningLab, outcome: Outcome) -> str:
    """Return the next hop of a mail that waits, with the setting that names it; "" if it is not known."""
    if outcome.relay:
        return outcome.relay
    sender = outcome.service in lab.defined.names(Role.SENDER)
    setting = "relayhost" if sender else "virtual_transport"
    value = in_effect(lab, outcome.service, setting)
    return f"{value} ({setting} on the machine {outcome.service})" if value else ""


def in_effect(lab: RunningLab, machine: str, setting: str, program: str = "postconf") -> str | None:
    """Return the value of a setting on a machine; None if the machine does not run or does not know it."""
    containers = {service.name: service.container for service in lab.services() if service.state == "running"}
    if machine not in containers:
        return None
    return _asked(lab.engine, containers[machine], [program, "-h", setting], lab.blotter().clean)


def _asked(engine: Engine, container: str, command: list[str], clean: Callable[[str], str]) -> str | None:
    try:
        result = engine.execute(container, command)
    except MailstackError:
        return None
    return clean(result.stdout.strip()) if result.code == 0 else None


def machine_of(side: str, outcome: Outcome, services: list[str], relay: str, store: str) -> str:
    """Return the machine whose setting counts; "" if it is not known, as of a client that was refused."""
    if side == "store":
        return store
    if side == "client" or not outcome.queue_id:
        return outcome.service if outcome.queue_id or side == "server" else ""
    peer = outcome.relay.partition("[")[0].partition(".")[0]
    refused_here = outcome.status == "rejected" or (peer not in services and outcome.service == relay)
    return outcome.service if refused_here else peer if peer in services else relay


def filled(rule: Rule, words: dict[str, str], line: Callable[..., str]) -> str:
    """Return a rule's command with its words filled in; `line` makes one of mailstack's."""
    if rule.words:
        return line(*[_replaced(word, words) for word in rule.words])
    return _replaced(rule.command, {**words, "recipient": shlex.quote(words["recipient"])})


def _replaced(text: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text
