"""No MTA of the lab makes two mails of one: SMTP smuggling, at each listener and on the hop after it."""

from __future__ import annotations

from contextlib import suppress
from email.message import EmailMessage
from smtplib import SMTPServerDisconnected

from mailstack import mail
from mailstack.checks import Family, NotApplicable, Turn, Unmet, expect
from mailstack.checks.bench import Bench
from mailstack.checks.listeners import MTAS, Mta, session
from mailstack.mail import Smtp

family = Family("smuggling")

# Ways to end a message that only some servers take for one: SEC Consult's “SMTP smuggling”, 2023.
ENDINGS = {
    "LF . LF": b"\n.\n",
    "LF . CR LF": b"\n.\r\n",
    "CR LF . LF": b"\r\n.\n",
    "CR . CR LF": b"\r.\r\n",
    "CR LF . CR": b"\r\n.\r",
    "CR . CR": b"\r.\r",
}

# A dozen mails in a row, each by a session of its own: beside other labs on a small machine they queue up.
TAKEN_SECONDS = 30.0

# How the message that is smuggled in goes on. A server that refuses DATA for what was sent ahead of its reply
# (postconf(5), smtpd_forbid_unauth_pipelining) may still take BDAT (RFC 3030), which waits for no reply.
FOLLOW_UPS = ("DATA", "BDAT")


def two_in_one(
    outer: EmailMessage, inner: EmailMessage, envelope: tuple[str, str], ending: bytes, follow_up: str
) -> bytes:
    """What goes after DATA: a message that ends with `ending` for who believes it, and then another one.

    `envelope` is the sender and the recipient of the one that is smuggled in.
    """
    first, second = (each.as_bytes().replace(b"\n", b"\r\n") for each in (outer, inner))
    how = b"DATA" if follow_up == "DATA" else b"BDAT %d LAST" % len(second)
    commands = "MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\n".format(*envelope).encode()
    return first.rstrip() + ending + commands + how + b"\r\n" + second + b"\r\n.\r\n"


def replies(connection: Smtp) -> list[str]:
    """Every reply from now on, to the one to QUIT: nothing else is answered by 221 (RFC 5321, section 4.2.3)."""
    found: list[str] = []
    code = 0
    while code != 221:
        if len(found) == 1 and connection.sock:  # only now, so that no command is sent ahead of its turn
            with suppress(OSError):  # a server that has hung up may have said something before
                connection.sock.sendall(b"QUIT\r\n")
        try:
            code, text = connection.getreply()
        except SMTPServerDisconnected:
            found.append("and the server hangs up")
            break
        found.append(f"{code} {text.decode(errors='replace')}")
    connection.close()
    return found


def _refused(mta: Mta, follow_up: str) -> None:
    where = "the sender" if mta.sender else str(mta.port)

    @family(
        f"{follow_up.lower()}-{mta.name}",
        f"no second mail is smuggled in behind a bare newline, by {follow_up} ({where})",
        "RFC 5321, section 4.1.1.4; postconf(5), smtpd_forbid_bare_newline_exclusions",
        turn=Turn.SENDER if mta.sender else Turn.BESIDE,
    )
    def _(bench: Bench) -> str:
        if mta.sender and bench.lab.state.relay:
            raise NotApplicable("the lab relays through a provider outside")
        taken, smuggled = [], {}
        # Without AUTH an address of the lab's own is refused as sender; the sender's relay takes no other.
        envelope = ("someone@outside.test" if mta == MTAS[0] else bench.alice, bench.bob)
        for name, ending in ENDINGS.items():
            outer, inner = bench.message([bench.bob]), bench.message([bench.bob])
            with session(bench, mta) as connection:
                connection.ehlo_or_helo_if_needed()
                for line in (f"MAIL FROM:<{envelope[0]}>", f"RCPT TO:<{envelope[1]}>", "DATA"):
                    code, text = connection.command(line)
                    expect(code in (250, 354), f"{line}: {code} {text}")
                connection.send(two_in_one(outer, inner, envelope, ending, follow_up))
                said = replies(connection)
            # One for the message, whatever it is. What comes between that and the last word answers smuggled commands;
            # and who took the message has no reason to hang up but that more came than should have.
            fair = len(said) == 2 and (said[1].startswith("221") or not said[0].startswith("250"))
            expect(fair, f"{name}: {' | '.join(said)}")
            if said[0].startswith("250"):
                taken.append(str(outer["Message-ID"]))
            smuggled[str(inner["Message-ID"])] = name
        _arrived_alone(bench, taken, smuggled)
        return (
            f"{len(smuggled)} endings: one reply each, and {len(taken)} mails in the mailbox of {bench.bob}, not more"
        )


def _arrived_alone(bench: Bench, taken: list[str], smuggled: dict[str, str]) -> None:
    """Raise Unmet unless what was taken arrives, and nothing that was smuggled: the next hop may be fooled, too."""
    for message_id in taken:
        copies = bench.found(bench.bob, message_id, TAKEN_SECONDS)
        expect(len(copies) == 1, f"{message_id}, which was taken with 250: {len(copies)} copies for {bench.bob}")
    with bench.box(bench.bob) as box:
        for message_id, name in smuggled.items():
            if mail.find(box, message_id):
                raise Unmet(f"{name}: a second mail is in the mailbox of {bench.bob}")


for _mta in MTAS:
    for _follow_up in FOLLOW_UPS:
        _refused(_mta, _follow_up)
