"""What a failed mail of a lab needs: the setting that its failure is about, its value in effect, and a command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mailstack.actions import lab_settings, next_hops, repairs_by_size
from mailstack.lab.running import RunningLab
from mailstack.model import Json
from mailstack.roles import Role
from mailstack.trace import pending
from mailstack.trace.journey import ARRIVED, FINAL, Journey, Outcome

_MAIN_CF = "/etc/postfix/main.cf"
_DOVECOT_CONF = "/etc/dovecot/dovecot.conf"
# The old daemons end when they are next idle: until then, one of them may take what waits, and fail as before.
_RELOAD = "postfix reload; sleep 1; postqueue -f"


@dataclass(frozen=True, slots=True)
class Repair:
    """A setting in effect on a machine of a lab, and the command that repairs it; "" where none is known."""

    machine: str
    file: str
    setting: str
    value: str
    command: str = ""
    run_on: str = ""  # the machine for the command; "" for this computer, with mailstack
    again: bool = False  # whether the mail has to be sent again after the repair

    def json(self) -> Json:
        return {
            "machine": self.machine,
            "file": self.file,
            "setting": self.setting,
            "value": self.value,
            "command": self.command,
            "run_on": self.run_on,
            "send_again": self.again,
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
    lab_value: str = ""  # the lab's own; with it, something else than the setting is wrong: a machine is down


_RELAYHOST = Rule("client", "relayhost", f"postconf 'relayhost = [{{next}}]:587'; {_RELOAD}", lab_value="[{next}]:587")
_MAP = "lmdb:/run/relay/sasl_passwd"
_PASSWORDS = Rule(
    "client",
    "smtp_sasl_password_maps",
    f"relay-credentials < /run/secrets/relay; postconf smtp_sasl_auth_enable=yes smtp_sasl_password_maps={_MAP}; "
    + _RELOAD,
)
# A map that somebody wrote by hand: a line of its source has the relay host, then the lab's user and password.
_OWN_PASSWORDS = Rule(
    "client",
    "smtp_sasl_password_maps",
    "{ postconf -h relayhost | tr '\\n' ' '; cat /run/secrets/relay; } > {source}; postmap {value}; "
    f"postconf smtp_sasl_auth_enable=yes; {_RELOAD}",
)
_CA_FILE = Rule("client", "smtp_tls_CAfile", f"postconf smtp_tls_CAfile=/run/relay/ca-certificates.crt; {_RELOAD}")
_AUTH_OFF = Rule("client", "smtp_sasl_auth_enable", f"postconf smtp_sasl_auth_enable=yes; {_RELOAD}")
_STALE = Rule("client", "smtp_sasl_password_maps", f"postmap {{value}}; {_RELOAD}")
_FROM = ("send", "--from", "{account}", "--to", "{recipient}")
_INSIDE = ("send", "--from", "{account}", "--to", "{address}")  # a mail that the lab can deliver
RULES = {
    "connection-refused": _RELAYHOST,
    "connection-timed-out": _RELAYHOST,
    "no-route": _RELAYHOST,
    "name-not-resolved": _RELAYHOST,
    "certificate-for-another-name": _RELAYHOST,
    "tls-from-the-start": _RELAYHOST,
    "relay-denied": Rule("server", "virtual_mailbox_domains", words=_INSIDE),
    "ca-file-unusable": _CA_FILE,
    "certificate-issuer-unknown": _CA_FILE,
    "starttls-required": Rule(
        "client", "smtp_tls_security_level", f"postconf smtp_tls_security_level=secure; {_RELOAD}"
    ),
    "map-missing": _PASSWORDS,
    "no-password-map": _PASSWORDS,
    "map-stale": _STALE,
    "wrong-password": _PASSWORDS,
    "login-required": _PASSWORDS,
    "too-large": Rule("server", "message_size_limit", "postconf message_size_limit={bytes}; postfix reload"),
    "refused-by-rule": Rule("server", "header_checks", "postconf -X header_checks; postfix reload"),
    "mailbox-unknown": Rule("server", "virtual_mailbox_maps", words=("account", "add", "{recipient}")),
    "taken-for-local": Rule("client", "mydestination", "postconf mydestination=localhost; postfix reload"),
    "sender-not-owned": Rule("server", "smtpd_sender_login_maps", words=_FROM),
    "lab-closed": Rule("server", "default_transport", words=_INSIDE),
    "authentication-unavailable": Rule("server", "smtpd_sasl_path", words=("up",)),
    "mailbox-server-down": Rule("client", "virtual_transport", words=("up",)),
    "over-quota": Rule("store", "quota_storage_size"),
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
    if outcome is None:
        return Advice(repair=of(lab, journey))
    waits = pending.waits_for(journey, now)
    if outcome.status == "held":
        waits = f"its release from hold: `{lab.line('queue', 'release', outcome.queue_id)}`"
    return Advice(next_hops.of(lab, outcome.service, outcome.recipient, outcome.relay), waits, of(lab, journey))


def of(lab: RunningLab, journey: Journey) -> Repair | None:
    """Return the setting that a mail's failure is about, as it is in effect; None if it is not known."""
    outcome = next((each for each in journey.outcomes if each.status not in ARRIVED), None)
    failure = journey.failure
    rule = RULES.get(failure.id) if failure else None
    if outcome is None or rule is None or failure is None:
        return None
    relay, store = lab.defined.name(Role.SUBMISSION), lab.defined.name(Role.STORE)
    machine = machine_of(rule.side, outcome, [service.name for service in lab.services()], relay, store)
    again = outcome.status in FINAL
    if failure.id == "over-quota":
        return _of_quota(lab, journey, outcome, Repair(store, _DOVECOT_CONF, rule.setting, "", again=again))
    if failure.id == "login-required" and lab_settings.in_effect(lab, machine, _AUTH_OFF.setting) == "no":
        rule = _AUTH_OFF
    value = lab_settings.in_effect(lab, machine, rule.setting)
    if value is None:
        return None
    words = {"next": relay, "value": value, "recipient": outcome.recipient, **_addresses(lab, journey, outcome)}
    words["bytes"] = str(repairs_by_size.size_limit(journey, value))
    # The values that a lab has at first are not those of a relay host outside.
    if lab.state.relay and rule.side == "client":
        return Repair(machine, _MAIN_CF, rule.setting, value)
    if rule is _PASSWORDS and (source := _own_source(lab, machine, value)):
        rule, words["source"] = _STALE if failure.id == "map-missing" else _OWN_PASSWORDS, source
    if rule.lab_value and value == _replaced(rule.lab_value, words):
        rule = Rule(rule.side, rule.setting, words=("up",))
    again = again and "send" not in rule.words
    if failure.id == "mailbox-server-down" and lab_settings.output(lab, store, ["true"]) is not None:
        return Repair(machine, _MAIN_CF, rule.setting, value, "doveadm reload", store)  # it runs, but not all of it
    command = lab_settings.up_line(lab) if rule.words == ("up",) else filled(rule, words, lab.line)
    run_on = "" if rule.words else machine
    return Repair(machine, _MAIN_CF, rule.setting, value, command, run_on if command else "", again)


def _own_source(lab: RunningLab, machine: str, value: str) -> str:
    """Return the text that postmap(1) makes a map from, if it exists, and the map is not the lab's own; else ""."""
    kind, _, path = value.partition(":")
    if value == _MAP or kind not in ("hash", "lmdb", "btree"):
        return ""
    return path if lab_settings.output(lab, machine, ["test", "-f", path]) is not None else ""


def _of_quota(lab: RunningLab, journey: Journey, outcome: Outcome, repair: Repair) -> Repair | None:
    quota = repairs_by_size.quota(lab, repair.machine, outcome.recipient)
    if quota is None:
        return None
    command, on_store = repairs_by_size.quota_command(lab, repair.machine, quota, repairs_by_size.size(journey))
    return Repair(
        repair.machine,
        repair.file,
        repair.setting,
        f"{quota.limit // 1024} KiB for {quota.user}, of which {quota.used // 1024} KiB are used",
        command,
        repair.machine if on_store else "",
        repair.again,
    )


def _addresses(lab: RunningLab, journey: Journey, outcome: Outcome) -> dict[str, str]:
    """Return an account that may send in place of the mail's sender, and one that can receive it."""
    accounts = lab.definition().addresses()
    account = next((each for each in accounts if each == journey.sender), next(iter(accounts), ""))
    local = outcome.recipient.partition("@")[0]
    others = [each for each in accounts if each != account] or [account]
    address = next((each for each in others if each.partition("@")[0] == local), others[0])
    return {"account": account, "address": address}


def machine_of(side: str, outcome: Outcome, services: list[str], relay: str, store: str) -> str:
    """Return the machine whose setting counts; "" if it is not known, as of a client that was refused."""
    if side == "store":
        return store
    if side == "client" or not outcome.queue_id:
        return outcome.service if outcome.queue_id or side == "server" else ""
    peer = outcome.relay.partition("[")[0].partition(".")[0]
    refused_here = outcome.status == "rejected" or (peer not in services and outcome.service == relay)
    return outcome.service if refused_here else peer if peer in services else relay


def filled(rule: Rule, words: Mapping[str, str], line: Callable[..., str]) -> str:
    """Return a rule's command with its words filled in; `line` makes one of mailstack's."""
    if rule.words:
        return line(*[_replaced(word, words) for word in rule.words])
    quoted = {name: shlex.quote(words[name]) for name in ("recipient", "source", "value") if name in words}
    return _replaced(rule.command, {**words, **quoted})


def _replaced(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text
