"""Evidence for a mail that did not arrive: the lab's knowledge of a mailbox, as text for people."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mailstack.actions import queues, tracing
from mailstack.config import files
from mailstack.errors import MailstackError
from mailstack.message import attachments
from mailstack.testing.mailbox import Mailbox, MailboxUnmet
from mailstack.testing.received import Message
from mailstack.text.durations import spoken
from mailstack.text.printable import printable
from mailstack.trace import event_text
from mailstack.trace.journey import Journey

_LINES = 10  # of each service's log and of each mail's text
_MAX_SHOWN = 5  # mails and journeys shown in full


def sections(mailbox: Mailbox) -> list[tuple[str, str]]:
    """Return (title, text) of the mailbox, the queues, the journeys and the last log lines.

    The texts have no control characters, and none of the lab's secrets.
    """
    lab = mailbox.lab
    found = [
        (f"mailstack: the mailbox of {mailbox.address}", _or_error(lambda: _mails(mailbox))),
        ("mailstack: the queues", _or_error(lambda: _queues(mailbox))),
        (f"mailstack: journeys of mails for {mailbox.address}", _or_error(lambda: _journeys(mailbox))),
    ]
    found += [(f"mailstack: the last lines of {name}", text) for name, text in _logs(mailbox, _LINES)]
    return [(title, _safe(mailbox, text)) for title, text in found if text] or [("mailstack", f"no lab {lab.name}")]


def write_files(mailbox: Mailbox, directory: Path, texts: list[tuple[str, str]]) -> None:
    """Create a directory with the same sections as files, and with complete logs, mails and journeys.

    Raises InputError when it cannot be written to.
    """
    kept = [(f"{title.removeprefix('mailstack: ')}.txt", text) for title, text in texts if "last lines" not in title]
    kept += [(f"{name}.log", _safe(mailbox, text)) for name, text in _logs(mailbox, None)]
    kept += [(f"{message.uid}.eml", _without_secrets(mailbox, message.raw)) for message in mailbox.seen()]
    try:
        now = time.time()
        document = [journey.json(now) for journey in tracing.of_lab(mailbox.lab, mailbox.address)]
        kept.append(("journeys.json", json.dumps(mailbox.lab.blotter().document(document), indent=1)))
    except MailstackError:
        pass  # the text says which parts could not be read
    named = [(attachments.safe_name(name), text.encode("utf-8", "surrogateescape")) for name, text in kept]
    attachments.save(directory, named)


def directory_name(test: str) -> str:
    """Return the name of a test's directory, by its node id."""
    return attachments.safe_name(re.sub(r"[/\\]|::", "-", test))


def _or_error(read: Callable[[], str]) -> str:
    try:
        return read()
    except (MailstackError, OSError) as error:
        return f"could not be read: {error.whole() if isinstance(error, MailstackError) else error}"


def _safe(mailbox: Mailbox, text: str) -> str:
    blotted = files.blot(mailbox.lab.directory.files, text)
    return "\n".join(printable(line) for line in blotted.split("\n"))


def _without_secrets(mailbox: Mailbox, raw: bytes) -> str:
    return files.blot(mailbox.lab.directory.files, raw.decode("utf-8", "surrogateescape"))


def _mails(mailbox: Mailbox) -> str:
    messages = mailbox.seen()
    shown = "\n\n".join(_mail(message) for message in messages[-_MAX_SHOWN:])
    before = f"{len(messages) - _MAX_SHOWN} earlier mails are not shown\n\n" if len(messages) > _MAX_SHOWN else ""
    return before + shown or "no mail has arrived"


def _mail(message: Message) -> str:
    lines = [line for line in message.readable.splitlines() if line.strip()]
    text = [f"    {line[:200]}" for line in lines[:_LINES]] + (["    …"] if len(lines) > _LINES else [])
    names = [f"    attached: {each.name}" for each in message.attachments]
    return "\n".join([f"{message!r}", f"    {message.message_id}", *text, *names])


def _queues(mailbox: Mailbox) -> str:
    lab = mailbox.lab
    entries = queues.of(lab.engine, queues.containers(lab))
    own = [each for each in entries if mailbox.address in (each.sender, *(one.address for one in each.recipients))]
    lines = []
    for entry in own:
        age = spoken(max(0.0, time.time() - entry.arrived))
        when = "" if entry.next_try is None else f", next try in {spoken(max(0.0, entry.next_try - time.time()))}"
        lines.append(
            f"{entry.queue_id} in {entry.service}, {entry.name} for {age}{when}: from {entry.sender or '<>'} to"
        )
        lines += [f"    {each.address}: {each.reason or 'not tried yet'}" for each in entry.recipients]
    others = len(entries) - len(own)
    if others:
        lines.append(f"{others} mail{'s' if others > 1 else ''} for other addresses")
    return "\n".join(lines) or "no mails"


def _journeys(mailbox: Mailbox) -> str:
    now = time.time()
    traced = tracing.search_lab(mailbox.lab, mailbox.address)
    found = traced.journeys
    lost = [each.sentence() for each in traced.rotated if each.begins is None or each.begins > mailbox.created]
    if found:
        before = f"{len(found) - _MAX_SHOWN} earlier journeys are not shown\n\n" if len(found) > _MAX_SHOWN else ""
        return "\n\n".join([*lost, before + "\n\n".join(_journey(each, now) for each in found[-_MAX_SHOWN:])])
    latest = [each for each in tracing.of_lab(mailbox.lab) if (each.started or 0) >= mailbox.created]
    lines = [*lost, "the remaining log lines have no mail for it" if lost else "no server has logged a mail for it"]
    if latest:
        lines.append("other mails since the mailbox was created:")
        lines += [f"    from {each.sender or '<>'}: {each.sentence(now)}" for each in latest[-_MAX_SHOWN:]]
    return "\n".join(lines)


def _journey(journey: Journey, now: float) -> str:
    known = f"<{journey.message_id}> " if journey.message_id else ""
    lines = [f"{known}from {journey.sender or '<>'}: {journey.sentence(now)}"]
    for event in journey.events:
        lines += event_text.lines(event, journey)
    lines += [f"not in the logs: {text}" for text in journey.missing]
    if journey.failure:
        lines += [f"cause: {journey.failure.cause}", f"remedy: {journey.failure.remedy}"]
    return "\n".join(lines)


def _logs(mailbox: Mailbox, tail: int | None) -> Iterator[tuple[str, str]]:
    """Yield each service's log since the mailbox was created: its last lines, or all."""
    lab = mailbox.lab
    try:
        services = lab.services()
    except MailstackError as error:
        yield "the services", f"could not be listed: {error.whole()}"
        return
    for service in services:
        text = _or_error(lambda each=service: lab.engine.logs(each.container, tail=tail, since=mailbox.created))  # type: ignore[misc]
        state = "" if service.state == "running" else f"not running: {service.state}\n"
        yield service.name, state + text.rstrip("\n") or "nothing since the mailbox was created"


def collect(failure: MailboxUnmet, directory: Path | None) -> list[tuple[str, str]]:
    """Return the sections about a failed wait; write them to a directory if one is given. Never raises."""
    found: list[tuple[str, str]] = []
    try:
        found += sections(failure.mailbox)
        if directory is not None:
            write_files(failure.mailbox, directory, found)
    except Exception as error:  # report the test's own failure, not this one
        reason = error.whole() if isinstance(error, MailstackError) else error
        found.append(("mailstack", f"the lab's evidence could not be collected: {type(error).__name__}: {reason}"))
    return found
