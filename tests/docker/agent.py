"""A mail reader on a lab: deliver mails to read, and run the commands that read them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import unicodedata
from email.message import EmailMessage

from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from tests import forked
from tests.docker.test_lab import MAILSTACK

ARRIVAL_SECONDS = 20


def deliver(lab: RunningLab, raw: bytes, to: str, message_id: str) -> int:
    """Submit a mail unchanged as student@example.com, and wait for it; return its UID."""
    context = trust.tls_context(lab.ca_file)
    student = "student@example.com"
    with smtp.Smtp(
        smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
    ) as session:
        session.login(student, lab.password(student).reveal())
        assert session.sendmail(student, [to], raw) == {}
    return uid(lab, to, message_id)


def deliver_from_nobody(lab: RunningLab, raw: bytes, to: str, message_id: str) -> int:
    """Send a mail to the MX with the null envelope sender, as for a bounce, and wait for it; return its UID."""
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
        assert session.sendmail("", [to], raw) == {}
    return uid(lab, to, message_id)


def uid(lab: RunningLab, address: str, message_id: str) -> int:
    """Wait for a mail; return its UID."""
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
        found = imap.wait_for(box, message_id, Deadline.after(ARRIVAL_SECONDS))
    return int(found.uid or 0)


def written(message_id: str, **fields: str) -> EmailMessage:
    """Return a mail to deliver, with these fields."""
    made = EmailMessage()
    made["From"] = "student@example.com"
    made["To"] = "bob@example.com"
    made["Message-ID"] = message_id
    for field, value in fields.items():
        del made[field]
        made[field.replace("_", "-")] = value
    made.set_content("Hello\nyou\n")
    return made


def refused(*words: str, code: int) -> str:
    """Run a command that ends with this code and without a traceback; return its standard error."""
    result = forked.run_text(words)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def on_a_terminal(*words: str) -> str:
    """Run a command with a terminal as its output; return the output."""
    master, slave = os.openpty()
    command = subprocess.Popen([MAILSTACK, *words], stdin=slave, stdout=slave, stderr=slave, env=os.environ | NO_COLOUR)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed when the command ends (EIO)
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    assert command.wait() == 0, shown
    return shown.decode()


NO_COLOUR = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}


def harmful(shown: str) -> set[str]:
    """Return the characters in an output that could control a terminal, except carriage returns at line ends."""
    text = shown.replace("\r\n", "\n")
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") and c != "\n"}
