"""Each extension that a server announces works, and is announced once."""

from __future__ import annotations

import imaplib
import itertools
import re
import smtplib
from collections.abc import Callable, Iterator

import pytest

from mailstack.checks import listeners
from mailstack.checks.bench import Bench
from mailstack.checks.listeners import MTAS, Mta
from mailstack.lab.running import RunningLab
from mailstack.protocol import imap, smtp, trust
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

ALICE, BOB, STRANGER = "alice@example.com", "bob@example.com", "someone@outside.test"
MESSAGE = b"Subject: announced\r\n\r\nx\r\n"


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab that these tests share."""
    with labs.one("announced") as made:
        yield made


@pytest.fixture
def bench(lab: RunningLab) -> Iterator[Bench]:
    """Yield a bench that opens connections, also from inside the sender."""
    with Bench(lab) as made:
        yield made


# ── SMTP ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def replies(session: smtplib.SMTP, *lines: str) -> list[int]:
    """Return the codes of the replies to commands that are sent one by one."""
    return [session.docmd(line)[0] for line in lines]


def from_(mta: Mta, rest: str = "") -> str:
    """Return a MAIL command that the MTA accepts."""
    return f"MAIL FROM:<{STRANGER if mta.port == 25 and not mta.sender else ALICE}>{rest}"


TO_BOB = f"RCPT TO:<{BOB}>"


def chunking(session: smtplib.SMTP, mta: Mta) -> bool:
    """Test RFC 3030: a message by BDAT."""
    assert replies(session, from_(mta), TO_BOB) == [250, 250]
    session.send(b"BDAT %d LAST\r\n%s" % (len(MESSAGE), MESSAGE))
    return session.getreply()[0] == 250


def pipelining(session: smtplib.SMTP, mta: Mta) -> bool:
    """Test RFC 2920: commands in one group."""
    session.send(f"{from_(mta)}\r\n{TO_BOB}\r\nRSET\r\n".encode())
    return [session.getreply()[0] for _ in range(3)] == [250, 250, 250]


# Each keyword of EHLO, and how it is seen to work.
SMTP: dict[str, Callable[[smtplib.SMTP, Mta], bool]] = {
    "8bitmime": lambda session, mta: replies(session, from_(mta, " BODY=8BITMIME"), "RSET") == [250, 250],
    "auth": lambda session, mta: replies(session, "AUTH PLAIN AGEAYg==") == [503 if mta.port != 25 else 0],
    "chunking": chunking,
    "dsn": lambda session, mta: (
        replies(session, from_(mta, " RET=HDRS ENVID=x"), f"{TO_BOB} NOTIFY=NEVER", "RSET") == [250] * 3
    ),
    "enhancedstatuscodes": lambda session, _: session.docmd("RSET")[1].startswith(b"2.0.0 "),
    "pipelining": pipelining,
    "size": lambda session, mta: replies(session, from_(mta, " SIZE=100"), "RSET") == [250, 250],
    "starttls": lambda session, _: session.docmd("STARTTLS")[0] == 220,
    "vrfy": lambda session, _: session.docmd(f"VRFY {BOB}")[0] in (250, 252),
}


@pytest.mark.parametrize("mta", MTAS, ids=lambda mta: mta.name)
def test_every_keyword_of_ehlo_works(bench: Bench, mta: Mta) -> None:
    with listeners.session(bench, mta) as session:
        session.ehlo_or_helo_if_needed()
        offered = sorted(session.esmtp_features, key=lambda keyword: (keyword == "starttls", keyword))
        assert set(offered) <= set(SMTP)
        assert {"8bitmime", "chunking", "dsn", "enhancedstatuscodes", "pipelining", "size"} <= set(offered)
        assert [keyword for keyword in offered if not SMTP[keyword](session, mta)] == []
        session.close()  # in the middle of a handshake, where there is STARTTLS


# ── IMAP ───────────────────────────────────────────────────────────────────────────────────────────────────────────

# What says how a server speaks, rather than what it can be asked for; and what other tests and every log-in use.
SPOKEN = {"IMAP4REV1", "SASL-IR", "LOGIN-REFERRALS", "LITERAL+", "INPROGRESS", "IDLE", "URL-PARTIAL"}
APPEND = "APPEND Trash"
# Each capability, and a command that takes it; the last, which changes what is spoken, at the end.
IMAP = {
    "ID": "ID NIL",
    "ENABLE": "ENABLE CONDSTORE",
    "SORT": "SORT (DATE) UTF-8 ALL",
    "SORT=DISPLAY": "SORT (DISPLAYFROM) UTF-8 ALL",
    "THREAD=REFERENCES": "THREAD REFERENCES UTF-8 ALL",
    "THREAD=REFS": "THREAD REFS UTF-8 ALL",
    "THREAD=ORDEREDSUBJECT": "THREAD ORDEREDSUBJECT UTF-8 ALL",
    "MULTIAPPEND": f"{APPEND} {{3+}}\r\nx\r\n {{3+}}\r\ny\r\n",
    "CATENATE": f"{APPEND} CATENATE (TEXT {{3+}}\r\nx\r\n TEXT {{3+}}\r\ny\r\n)",
    "CHILDREN": 'LIST (SUBSCRIBED) "" "*" RETURN (CHILDREN)',
    "NAMESPACE": "NAMESPACE",
    "UIDPLUS": "UID EXPUNGE 999999",
    "LIST-EXTENDED": 'LIST (SUBSCRIBED) "" ("INBOX" "Tr*")',
    "LIST-STATUS": 'LIST "" "*" RETURN (STATUS (MESSAGES))',
    "I18NLEVEL=1": 'SEARCH CHARSET UTF-8 SUBJECT "announced"',
    "CONDSTORE": "FETCH 1 (MODSEQ)",
    "QRESYNC": "ENABLE QRESYNC",
    "ESEARCH": "SEARCH RETURN (COUNT) ALL",
    "ESORT": "SORT RETURN (COUNT) (DATE) UTF-8 ALL",
    "SEARCHRES": "SEARCH RETURN (SAVE) ALL",
    "WITHIN": "SEARCH YOUNGER 600",
    "CONTEXT=SEARCH": "SEARCH RETURN (UPDATE COUNT) ALL",
    "BINARY": "FETCH 1 BINARY.SIZE[1]",
    "SNIPPET=FUZZY": "FETCH 1 (SNIPPET)",
    "PREVIEW": "FETCH 1 (PREVIEW)",
    "PREVIEW=FUZZY": "FETCH 1 (PREVIEW)",
    "SPECIAL-USE": 'LIST (SPECIAL-USE) "" "*"',
    "STATUS=SIZE": "STATUS Sent (SIZE)",
    "SAVEDATE": "FETCH 1 (SAVEDATE)",
    "QUOTA": "GETQUOTAROOT INBOX",
    "MOVE": "COPY 1 Archive",
    "REPLACE": "REPLACE 1 INBOX {3+}\r\nx\r\n",
    "UNSELECT": "UNSELECT",
    "COMPRESS=DEFLATE": "COMPRESS DEFLATE",
}


def test_every_capability_of_imap_is_taken_at_its_word(lab: RunningLab) -> None:
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
        session.sendmail(STRANGER, [BOB], MESSAGE)
    context, endpoint = trust.tls_context(lab.ca_file), lab.endpoints["imaps"]
    with imap.mailbox(endpoint, context, BOB, lab.password(BOB)) as box:
        while not box.uids():
            box.idle.wait(timeout=0.2)
    box_session = imaplib.IMAP4_SSL(endpoint.host, endpoint.port, ssl_context=context)
    box_session.login(BOB, lab.password(BOB).reveal())
    box_session.select()
    offered = set(box_session.capability()[1][-1].decode().upper().split())
    assert offered <= set(IMAP) | SPOKEN, offered - set(IMAP) - SPOKEN
    wrong = []
    for capability, command in IMAP.items():
        if capability in offered:
            box_session.send(f"t {command}\r\n".encode())
            while not (line := box_session.readline()).startswith(b"t "):
                assert line, capability
            if not line.startswith(b"t OK"):
                wrong.append(f"{capability}: {line.decode().strip()}")
    box_session.shutdown()
    assert wrong == []


# ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────────

# A phrase of two words or more that comes twice with nothing but a colon between.
_TWICE = re.compile(r"\b(\w+(?: \w+)+): \1\b")


def test_no_refusal_says_the_same_twice(bench: Bench) -> None:
    said = []
    senders = (STRANGER, ALICE, BOB, "no-such@example.com", "x@", "")
    for mta, sender in itertools.product(MTAS[:3], senders):  # after too many errors a server hangs up
        with listeners.session(bench, mta) as session:
            session.ehlo_or_helo_if_needed()
            for recipient in (BOB, "no-such@example.com", "someone@outside.test", "-x@example.com"):
                said += [session.command(f"MAIL FROM:<{sender}>"), session.command(f"RCPT TO:<{recipient}>")]
                session.rset()
    refused = {text for code, text in said if code >= 400}
    assert any("not logged in" in text for text in refused) and any("not owned by" in text for text in refused)
    assert any("this lab is closed" in text for text in refused)
    assert [text for text in refused if _TWICE.search(text)] == []
    assert _TWICE.search("<a@b.test>: Sender address rejected: Sender address rejected: not logged in")
