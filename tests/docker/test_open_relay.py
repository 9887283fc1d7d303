"""No lab relays for a stranger, from any client address and with any form of the recipient.

In this lab, accepted mail for other domains stays in the queue (postconf(5), defer_transports), where it is counted.
Without the overlay, a stranger's mail would be rejected by a second rule: the lab is closed.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator, Sequence

import pytest

from mailstack.actions import queues
from mailstack.checks.bench import Bench
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import smtp
from mailstack.roles import Role
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

SECONDS = 60.0
MOST = 9  # refusals in one connection: after ten Postfix waits a second for each (postconf(5), smtpd_soft_error_limit)

SENDERS = ("someone@outside.test", "", "bob@example.com", "postmaster@example.com", "MAILER-DAEMON@postfix.example.com")

# What stands between < and > in RCPT TO, one a line. Each asks for a mailbox that is not the lab's.
WRITTEN = r"""
# as they are
someone@outside.test
SOMEONE@OUTSIDE.TEST
someone@sub.outside.test
x@test
x@com
someone@xn--bcher-kva.test
someone@outside.test.
someone+tag@outside.test
alice+x@outside.test
alice@example.com.outside.test
alice@notexample.com
alice@sub.example.com
alice@example.net
alice@example
alice@localhost
alice@postfix
alice@sender
root@localhost
root@postfix.example.com
root@sender.example.com
alice@dovecot
alice@backend
# percent and bang paths (RFC 1123, section 5.2.16; RFC 976)
someone%outside.test@example.com
someone%outside.test@postfix.example.com
someone%outside.test
someone%outside.test@localhost
someone%outside.test@[127.0.0.1]
a%b%outside.test@example.com
alice%outside.test@example.com
%outside.test@example.com
someone%25outside.test@example.com
outside.test!someone
outside.test!someone@example.com
example.com!outside.test!someone
!someone@x.test
outside.test!alice@example.com
someone!outside.test@example.com
outside.test!someone%x.test@example.com
# source routes (RFC 5321, appendix C)
@example.com:someone@outside.test
@postfix.example.com,@example.com:someone@outside.test
@outside.test:someone@elsewhere.test
@localhost:someone@outside.test
@[127.0.0.1]:someone@outside.test
@example.com:someone%outside.test@example.com
@example.com@outside.test:alice@outside.test
# quoted local parts
"someone@outside.test"@example.com
"someone@outside.test"
"someone%outside.test"@example.com
"outside.test!someone"@example.com
"some one"@outside.test
"alice@example.com"@outside.test
"someone\@outside.test"@example.com
"@outside.test:someone"@example.com
""@outside.test
"alice"@outside.test
"alice"@example.com@outside.test
alice@example.com@outside.test
# address literals (RFC 5321, section 4.1.3)
someone@[192.0.2.1]
someone@192.0.2.1
someone@[IPv6:2001:db8::1]
someone@[127.0.0.1]
someone@[]
someone@[outside.test]
someone@#3221225985
someone@3221225985
someone@[::ffff:192.0.2.1]
x@[x:y]
# what is not an address, or hardly
someone @outside.test
<someone@outside.test>
someone@outside.test (alice@example.com)
someone@@outside.test
someone@outside..test
someone@-outside.test
someone@outside_.test
someone@outside.test,alice@example.com
alice@example.com,someone@outside.test
|id@outside.test
/etc/passwd@outside.test
:include:/etc/passwd@outside.test
someone@outside.test;x
~someone@outside.test
-someone@outside.test
x@*
*@outside.test
"""
RECIPIENTS = (
    *(line for line in WRITTEN.split("\n") if line and not line.startswith("# ")),
    *(f"{'x' * 64}@outside.test", f"{'x' * 65}@outside.test", f"x@{'y' * 63}.test", f"x@{'y.' * 120}test"),
    # NUL, other controls, and bytes beyond ASCII
    *(
        "someone@outside.test\0",
        "someone\0@outside.test",
        "someone@outside.test\0@example.com",
        "someone@outside.test\t",
    ),
    *("someone@out\x80side.test", "someone@b\xfccher.test", "s\xf6meone@outside.test", "someone\x7f@outside.test"),
)

# Parameters of RCPT and MAIL change nothing (RFC 3461; RFC 6531 is not offered).
TAILS = ("", " NOTIFY=SUCCESS,FAILURE", " ORCPT=rfc822;alice@example.com")

Connect = Callable[[Bench], smtp.Smtp]


def published(name: str, tls: smtp.Tls) -> Connect:
    """Connect from this machine to a published port."""
    return lambda bench: smtp.Smtp(
        smtp.dial_to(bench.lab.endpoints[name]),
        name="localhost",
        tls=tls,
        context=bench.lab_context,
        helo="example.com",
    )


ORIGINS: dict[str, Connect] = {
    "25 from here": published("smtp", "none"),
    "25 from here, under TLS": published("smtp", "starttls"),
    "587 from here, without AUTH": published("submission", "starttls"),
    "465 from here, without AUTH": published("submissions", "implicit"),
    "25 from the sender's machine": lambda bench: bench.smtp(25),
    "587 from the sender's machine, without AUTH": lambda bench: bench.smtp(587),
}


@pytest.fixture(scope="module")
def lab(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """Return a lab in which accepted mail for other domains waits in the queue."""
    overlay = tmp_path_factory.mktemp("relay") / "relay.yaml"
    overlay.write_text("x-mailstack: {settings: {postfix: {default_transport: 'smtp:', defer_transports: smtp}}}\n")
    with labs.one("relay", [overlay]) as made:
        yield made


@pytest.fixture
def bench(lab: RunningLab) -> Iterator[Bench]:
    """Yield a bench that opens connections, also from inside the sender."""
    with Bench(lab) as made:
        yield made


def several(items: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    """Yield the items in groups of `count`."""
    for first in range(0, len(items), count):
        yield items[first : first + count]


def asked(session: smtp.Smtp, lines: Sequence[str]) -> list[tuple[int, str]]:
    """Send commands as bytes in one group (RFC 2920); return their replies."""
    assert session.sock
    session.sock.sendall(b"".join(line.encode("latin-1") + b"\r\n" for line in lines))
    replies = []
    for _ in lines:
        code, text = session.getreply()
        replies.append((code, text.decode(errors="replace")))
    return replies


def accepted(bench: Bench, connect: Connect) -> list[str]:
    """Return the recipients for whom a server accepted a mail; the envelope senders take turns."""
    taken: list[str] = []
    for number, some in enumerate(several(RECIPIENTS, MOST)):
        sender, tail = SENDERS[number % len(SENDERS)], TAILS[number % len(TAILS)]
        with connect(bench) as session:
            session.ehlo()
            (code, text), *replies = asked(
                session, [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>{tail}" for recipient in some)]
            )
            assert code == 250, (sender, code, text)
            ours = [recipient for recipient, (code, _) in zip(some, replies, strict=True) if code in (250, 251, 252)]
            if ours:
                code, _ = session.data(f"From: <{sender}>\r\nSubject: relayed\r\n\r\nx\r\n".encode())
                taken += ours if code == 250 else []
    return taken


def standing(bench: Bench) -> list[str]:
    """Return the recipients at other domains in Postfix's queue."""
    found = queues.entries(bench.engine, bench.container(Role.SUBMISSION), "postfix")
    ours = tuple(f"@{domain.name}" for domain in bench.lab.definition().domains)
    return [each.address for entry in found for each in entry.recipients if not each.address.endswith(ours)]


@pytest.mark.parametrize("origin", ORIGINS)
def test_nothing_is_relayed_for_a_stranger(bench: Bench, origin: str) -> None:
    assert len(set(RECIPIENTS)) * len(ORIGINS) >= 500
    assert accepted(bench, ORIGINS[origin]) == []
    assert standing(bench) == []


def test_who_has_logged_in_is_relayed_so_the_count_would_see_a_stranger_s_mail_too(bench: Bench) -> None:
    """The test above is worth what this one says."""
    with bench.logged_in(587, bench.alice) as session:
        session.sendmail(bench.alice, ["someone@outside.test"], b"Subject: for elsewhere\r\n\r\nx\r\n")
    deadline = Deadline.after(SECONDS)
    while standing(bench) != ["someone@outside.test"]:
        assert not deadline.passed()
    queues.act(
        bench.engine,
        {"postfix": bench.container(Role.SUBMISSION)},
        queues.ACTIONS["delete"],
        queues.entries(bench.engine, bench.container(Role.SUBMISSION), "postfix"),
    )


def test_a_stranger_s_mail_for_a_user_of_the_lab_is_still_taken(bench: Bench) -> None:
    with ORIGINS["25 from here"](bench) as session:
        session.ehlo()
        replies = asked(session, ["MAIL FROM:<someone@outside.test>", "RCPT TO:<bob@example.com>", "RSET"])
    assert [code for code, _ in replies] == [250, 250, 250]
    with pytest.raises(smtplib.SMTPRecipientsRefused), ORIGINS["25 from here"](bench) as session:
        session.sendmail("someone@outside.test", ["someone@outside.test"], b"x")
