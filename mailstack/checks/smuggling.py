"""SMTP smuggling: no MTA of the lab splits one mail into two, at any listener or at the next hop."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from email.message import EmailMessage
from smtplib import SMTPServerDisconnected

from mailstack.checks import Concurrency, Family
from mailstack.checks.bench import Bench
from mailstack.checks.deliveries import uids
from mailstack.checks.judging import Unmet, expect
from mailstack.checks.listeners import PROVIDER, SENDER, STRANGER, Mta, envelope, session
from mailstack.errors import DeadlinePassed
from mailstack.model import Deadline
from mailstack.protocol import imap
from mailstack.protocol.smtp import Smtp

family = Family("smuggling")

# Sequences that some servers accept as the end of a message: SEC Consult's “SMTP smuggling”, 2023.
ENDINGS = {
    "LF . LF": b"\n.\n",
    "LF . CR LF": b"\n.\r\n",
    "CR LF . LF": b"\r\n.\n",
    "CR . CR LF": b"\r.\r\n",
    "CR LF . CR": b"\r\n.\r",
    "CR . CR": b"\r.\r",
}

# Timeout in seconds for the mails of a check: half a dozen in a row, next to other labs on a small machine.
ARRIVAL_SECONDS = 30.0

# The command that begins the smuggled message. A server that refuses a pipelined DATA (postconf(5),
# smtpd_forbid_unauth_pipelining) may still accept BDAT (RFC 3030), which waits for no reply.
FOLLOW_UPS = ("DATA", "BDAT")

HUNG_UP = "connection closed"


def two_in_one(
    outer: EmailMessage, inner: EmailMessage, envelope: tuple[str, str], ending: bytes, follow_up: str
) -> bytes:
    """Return the bytes to send after DATA: a message, an `ending` that may pass for its end, and another message.

    `envelope` is the envelope sender and the envelope recipient of the smuggled one.
    """
    first, second = (each.as_bytes().replace(b"\n", b"\r\n") for each in (outer, inner))
    how = b"DATA" if follow_up == "DATA" else b"BDAT %d LAST" % len(second)
    commands = "MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\n".format(*envelope).encode()
    return first.rstrip() + ending + commands + how + b"\r\n" + second + b"\r\n.\r\n"


def replies(connection: Smtp) -> list[str]:
    """Return all replies to the data sent. EHLO, sent after the first reply, marks the end.

    The reply to EHLO is left out. It begins with the server's name, which no reply to a smuggled command does. EHLO
    also ends the transaction (RFC 5321, section 4.1.4), so the session can go on unless the server has hung up.
    """
    name = (connection.ehlo_resp or b"").split(b"\n")[0]
    answers: list[str] = []
    while True:
        if len(answers) == 1 and connection.sock:  # not earlier, so that no command is sent before its turn
            with suppress(OSError):  # a server that has hung up may have replied before
                connection.sock.sendall(b"EHLO client.test\r\n")
        try:
            code, text = connection.getreply()
        except SMTPServerDisconnected:
            return [*answers, HUNG_UP]
        if code == 250 and answers and text.split(b"\n")[0] == name:
            return answers
        answers.append(f"{code} {text.decode(errors='replace')}")


_PROMISE = (
    "{follow_up}-{mta.name}",
    "no second mail is smuggled in behind a bare newline, by {follow_up} ({mta.label})",
    "RFC 5321, section 4.1.1.4; postconf(5), smtpd_forbid_bare_newline_exclusions",
)


@family(*_PROMISE, mta=PROVIDER, follow_up=FOLLOW_UPS)
@family(*_PROMISE, concurrency=Concurrency.SENDER, mta=SENDER, follow_up=FOLLOW_UPS)
def nothing_is_smuggled_in(bench: Bench, mta: Mta, follow_up: str) -> str:
    if mta.sender:
        bench.refuse_outside_relay()
        bench.refuse_blank_sender()  # Debian's Postfix exempts the programs of its own machine
    accepted, smuggled = [], {}
    with ExitStack() as sessions:
        connection = sessions.enter_context(session(bench, mta))
        for name, ending in ENDINGS.items():
            outer, inner = bench.message([bench.bob]), bench.message([bench.bob])
            answers = _send(bench, connection, mta, outer, inner, ending, follow_up)
            # One reply to the message is right, whatever it is. Any other reply answers a smuggled command. A server
            # that accepted the message hangs up only if it received more than the message.
            hung_up = answers[1:] == [HUNG_UP]
            expect(not answers[1:] or (hung_up and not answers[0].startswith("250")), f"{name}: {' | '.join(answers)}")
            if answers[0].startswith("250"):
                accepted.append(str(outer["Message-ID"]))
            smuggled[str(inner["Message-ID"])] = name
            if hung_up:
                connection = sessions.enter_context(session(bench, mta))
    _expect_alone(bench, accepted, smuggled)
    return f"{len(smuggled)} endings: one reply each; {len(accepted)} mails for {bench.bob}, none of them smuggled in"


def _send(
    bench: Bench, connection: Smtp, mta: Mta, outer: EmailMessage, inner: EmailMessage, ending: bytes, follow_up: str
) -> list[str]:
    """Send both messages as one; return the replies."""
    # Without AUTH, Postfix refuses an envelope sender of the lab. The sender's relay accepts no other.
    sender = STRANGER if mta == PROVIDER[0] else bench.alice
    for code, text in (envelope(connection, sender, bench.bob), connection.command("DATA")):
        expect(code in (250, 354), f"before the message: {code} {text}")
    connection.send(two_in_one(outer, inner, (sender, bench.bob), ending, follow_up))
    return replies(connection)


def _expect_alone(bench: Bench, accepted: list[str], smuggled: dict[str, str]) -> None:
    """Expect each accepted message once, and no smuggled one, which the next hop may let through. Raises Unmet."""
    with bench.box(bench.bob) as box:
        for message_id in accepted:
            with suppress(DeadlinePassed):
                imap.wait_for_arrival(box, message_id, Deadline.after(ARRIVAL_SECONDS))
            copies = len(uids(box, message_id))
            expect(copies == 1, f"{message_id} was accepted with 250: {copies} copies for {bench.bob}")
        for message_id, name in smuggled.items():
            if uids(box, message_id):
                raise Unmet(f"{name}: a second mail is in the mailbox of {bench.bob}")
