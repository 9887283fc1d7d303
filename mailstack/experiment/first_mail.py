"""Steps 3, 5 and 6: the first mail, from the student's terminal to the recipient's mailbox, and the reply to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace

from mailstack.actions import replying, sending
from mailstack.checks.judging import expect
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.machines import ARRIVAL_SECONDS, expect_sent
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps
from mailstack.model import STUDENT, Deadline
from mailstack.trace.events import Event
from mailstack.trace.journey import Journey

steps = Steps()

SUBJECT = "CCN Lab"
BODY = "This is the first mail of the lab."


@steps(
    "send",
    "A mail is sent from the terminal",
    row="Step 5: the student sends a mail from the terminal: echo "
    f"“This is the first mail …” | mail -s “{SUBJECT}” RECIPIENT.",
    done=f"As the user “student” on the student's machine: echo “{BODY}” | mail -s “{SUBJECT}” RECIPIENT; with a "
    "Message-ID of its own, by which the mail is found again.",
    expected="Postfix on the student's machine accepts the mail, and delivers it to the provider: status=sent (250 …).",
    needs=("credentials",),
)
def mail_is_sent(scene: Scene, show: Evidence) -> None:
    # Without `-r`, mail(1) makes the sender's address from the system mail name.
    argv = ["mail", "-s", SUBJECT, "-a", f"Message-ID: {scene.first_mail}", scene.recipient]
    done = scene.execute("sender", *argv, user=STUDENT, input=f"{BODY}\n".encode())
    show.text("at the terminal", f"$ {shlex.join(('echo', BODY))} | {shlex.join(argv)}\n{done.stderr}")
    expect(done.code == 0 and not done.stderr.strip(), f"`mail` ended with code {done.code}: {done.stderr.strip()}")
    lines = scene.lines("sender", scene.first_mail, "status=")
    show.text("the log of Postfix on the student's machine", "\n".join(lines))
    expect_sent(lines)


@steps(
    "tls-and-sasl",
    "The provider saw TLS and the authenticated user",
    row="Step 3: the provider's submission service on port 587 is used with authentication and TLS.",
    done="Read the provider's log lines about the connection that carried the first mail.",
    expected="The submission service took the connection, encrypted before the mail was sent; the SASL user is "
    "the one in the map of credentials; the student's machine had verified the provider's certificate.",
    needs=("send",),
)
def provider_sees_tls_and_sasl(scene: Scene, show: Evidence) -> None:
    scene.lines("postfix", scene.first_mail, "client=")
    journey = scene.trace(scene.first_mail)
    accepted = event(journey, "postfix", "accepted")
    sent = event(journey, "sender", "attempt")
    show.text("the provider's log", accepted.line.text)
    if line := tls_line(scene.log("sender").splitlines(), sent.line.text):
        show.text("the log of the student's machine: its TLS connection", line)
    show.table(
        "the connection, as logged on both sides",
        ("what", "the provider", "the student's machine"),
        [
            ("program", accepted.line.program, sent.line.program),
            ("peer", accepted.peer, sent.peer),
            ("TLS", accepted.tls or "none", sent.tls or "none"),
            ("SASL user", accepted.sasl_user or "nobody", scene.login),
        ],
    )
    expect("/submission" in accepted.line.program, f"it was accepted by {accepted.line.program}, not by submission")
    expect(sent.peer.endswith((":587", ":465")), f"it was sent to {sent.peer}, not to port 587 or 465")
    expect(accepted.tls, "the provider logged no TLS for this connection")
    expect(accepted.sasl_user, "no user was authenticated")
    expect(accepted.sasl_user == scene.login, f"{accepted.sasl_user} was authenticated, not {scene.login}")
    expect(scene.is_verified(sent.tls), f"the provider's certificate was not verified: {sent.tls}")


def tls_line(log: Iterable[str], attempt: str) -> str:
    """Return the client's line about the TLS connection of a delivery attempt; "" if it logged none.

    smtp(8) logs the connection before the attempt, in the same process, from smtp_tls_loglevel = 1 on.
    """
    connections: dict[str, str] = {}  # process -> its last TLS connection
    for line in log:
        found = re.search(r"postfix/smtp\[\d+\]: ", line)
        if found and "TLS connection established to " in line:
            connections[found[0]] = line
        elif found and line.endswith(attempt):
            return connections.get(found[0], "")
    return ""


def event(journey: Journey, service: str, kind: str) -> Event:
    """Return the last event of a kind at a service. Raises Unmet."""
    found = [each for each in journey.events if (each.service, each.kind) == (service, kind)]
    expect(found, f"{service} logged no event “{kind}” for {journey.message_id}")
    return found[-1]


@steps(
    "arrive",
    "The mail is in the recipient's mailbox",
    row=f"Step 6: the student sees the mail arrive in the recipient's mailbox, subject “{SUBJECT}”.",
    done="Watched the recipient's mailbox over IMAP until the mail arrived.",
    expected=f"Exactly one copy, from the student, with the subject “{SUBJECT}” and the text that was sent.",
    needs=("send",),
)
def mail_arrives(scene: Scene, show: Evidence) -> None:
    copies = scene.arrived(scene.recipient, scene.first_mail)
    found = scene.first()
    sender, to, subject = next(iter(found.addresses("from")), ""), found.addresses("to"), found.field("subject")
    show.table(
        f"in the mailbox of {scene.recipient}",
        ("from", "to", "subject", "date", "bytes"),
        [(sender, ", ".join(to), subject, found.field("date"), len(found.raw))],
    )
    show.text("the mail", plain(found.raw))
    expect(len(copies) == 1, f"{len(copies)} copies")
    expect(subject == SUBJECT, f"the subject is “{subject}”")
    expect(sender == scene.student, f"the sender is {sender}, not {scene.student}")
    expect(found.text.strip() == BODY, f"the text is “{found.text.strip()}”")


def plain(raw: bytes) -> str:
    """Return a mail as text with LF line ends."""
    return raw.decode(errors="replace").replace("\r\n", "\n")


@steps(
    "answer",
    "The recipient answers, and the student gets the answer",
    row="Step 6: the recipient can answer the mail.",
    done="As the recipient, submitted an answer to the first mail with the recipient's own password; "
    "read the student's mailbox.",
    expected="One copy of the answer in the student's mailbox, which names the first mail (In-Reply-To).",
    needs=("arrive",),
)
def recipient_answers(scene: Scene, show: Evidence) -> None:
    letter = replying.answer(scene.lab.definition(), scene.recipient, scene.first(), "It has arrived.")
    letter = replace(letter, mark=scene.mark)
    sent = sending.send(scene.lab, letter, "submission", Deadline.after(ARRIVAL_SECONDS))
    copies = scene.arrived(scene.student, sent.message_id)
    found = scene.message(scene.student, sent.message_id)
    show.text("the answer, in the student's mailbox", plain(found.raw))
    answered, subject = found.field("in-reply-to"), found.field("subject")
    expect(len(copies) == 1, f"{len(copies)} copies")
    expect(answered == scene.first_mail, f"In-Reply-To is {answered or 'missing'}, not the first mail's Message-ID")
    expect(subject == f"Re: {SUBJECT}", f"the subject is “{subject}”")
