"""Verify a lab after a trial: it is proven, each account exists completely or not at all, and nothing is left."""

from __future__ import annotations

import json
import smtplib

from mailstack.config import files
from mailstack.engine import projects
from mailstack.errors import MailstackError
from mailstack.lab import changes, proof
from mailstack.lab.running import RunningLab
from mailstack.protocol import imap, smtp, trust
from mailstack.secret import Secret
from tests.docker.bad import Traces, run


def is_up(lab: str) -> bool:
    """Return whether every service of the lab runs."""
    return run(["status", "-n", lab]).code == 0


def accounts(lab: str) -> set[str]:
    """Return the lab's accounts."""
    outcome = run(["status", "-n", lab, "--json"])
    return set(json.loads(outcome.out)["accounts"]) if outcome.out else set()


def unproven(lab: RunningLab) -> list[str]:
    """Return why the lab is not proven on both paths."""
    try:
        proof.probe(lab)
    except MailstackError as error:
        return [f"not proven: {error.whole()}"]
    stopped = [service.name for service in lab.services_with_missing() if not service.runs]
    return [f"not running: {stopped}"] if stopped else []


def remains(lab: RunningLab, traces: Traces) -> list[str]:
    """Return what an interrupted command has left in a lab that is up."""
    found = [f"unfinished: {change.command}" for change in changes.unfinished(lab.directory.path)]
    foreign = {thing for thing in traces.engine() if projects.project_name(lab.name) in thing and "outside" in thing}
    if foreign:
        found.append(f"left: {sorted(foreign)}")
    context = trust.tls_context(lab.ca_file)
    for address in lab.definition().addresses():
        with imap.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
            for subject in ("mailstack check", "is this lab ready"):
                if uids := box.uids(f'SUBJECT "{subject}"'):
                    found.append(f"{len(uids)} mails “{subject}” in the mailbox of {address}")
    return found


def halves(lab: RunningLab, address: str) -> list[str]:
    """Return the facts about an account that exists only in part."""
    listed = files.is_added(lab.directory.files, address)
    facts = {"listed": listed, "takes mail": _takes_mail(lab, address), "has a mailbox": _has_mailbox(lab, address)}
    if listed:
        facts["logs in"] = _logs_in(lab, address, lab.password(address))
        facts["has a mailbox"] = True  # it is made with the first mail
    return [] if len(set(facts.values())) == 1 else [f"{address}: {facts}"]


def _takes_mail(lab: RunningLab, address: str) -> bool:
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost", tls="none", helo="client.test") as session:
        session.ehlo()
        session.mail("someone@elsewhere.example")
        return session.rcpt(address)[0] == 250


def _logs_in(lab: RunningLab, address: str, password: Secret) -> bool:
    context = trust.tls_context(lab.ca_file)
    try:
        with smtp.Smtp(
            smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
        ) as session:
            session.login(address, password.reveal())
        with imap.mailbox(lab.endpoints["imaps"], context, address, password):
            return True
    except (MailstackError, smtplib.SMTPException, OSError):
        return False


def _has_mailbox(lab: RunningLab, address: str) -> bool:
    store = lab.service("dovecot").container
    return lab.engine.execute(store, ["test", "-e", f"/srv/mail/{address}"]).code == 0
