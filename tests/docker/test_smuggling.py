"""No listener, route or hop of the lab splits one mail into two: arrived mails are counted, not replies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailstack.actions import queues
from mailstack.actions.sending import ROUTE_HEADER
from mailstack.checks import smuggling
from mailstack.checks.bench import Bench
from mailstack.lab.running import RunningLab
from mailstack.model import STUDENT, Deadline
from mailstack.protocol import smtp
from mailstack.protocol.smtp import Smtp
from mailstack.roles import Role
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

SECONDS = 120.0
BOB = "bob@example.com"
ALICE = "alice@example.com"
STRANGER = "someone@outside.test"

ENDINGS = smuggling.ENDINGS | {
    "LF . CR": b"\n.\r",
    "CR . LF": b"\r.\n",
    "CR CR LF . LF": b"\r\r\n.\n",
    "CR LF . CR CR LF": b"\r\n.\r\r\n",
    "NUL LF . LF": b"\0\n.\n",
    "CR LF NUL . CR LF": b"\r\n\0.\r\n",
}

Connect = Callable[[Bench], Smtp]


@dataclass(frozen=True)
class Way:
    """A way into the lab: how to connect, the envelope sender, and the header that selects the route, if any."""

    connect: Connect
    sender: str
    route: str | None = None
    chunked: bool = False  # the message itself comes by BDAT


def by_port(port: int, tls: smtp.Tls) -> Connect:
    """Open a session with the provider from the sender; log in where AUTH is offered."""

    def connect(bench: Bench) -> Smtp:
        session = bench.smtp(port, tls)
        if port != 25:
            session.login(ALICE, bench.password(ALICE).reveal())
        return session

    return connect


def on_the_sender(tls: smtp.Tls) -> Connect:
    """Open a session with the sender's own smtpd, as programs on its machine do."""

    def connect(bench: Bench) -> Smtp:
        dial = bench.dial("127.0.0.1", 25)
        session = smtp.Smtp(dial, name="localhost", tls=tls, context=bench.lab_context, helo="client.test")
        session.ehlo()
        return session

    return connect


WAYS = {
    "25": Way(by_port(25, "none"), STRANGER),
    "25, STARTTLS": Way(by_port(25, "starttls"), STRANGER),
    "25, by BDAT": Way(by_port(25, "none"), STRANGER, chunked=True),
    "587": Way(by_port(587, "starttls"), ALICE),
    "587, by BDAT": Way(by_port(587, "starttls"), ALICE, chunked=True),
    "465": Way(by_port(465, "implicit"), ALICE),
    "the sender": Way(on_the_sender("none"), ALICE),
    "the sender, STARTTLS": Way(on_the_sender("starttls"), ALICE),
    "the sender, by BDAT": Way(on_the_sender("none"), ALICE, chunked=True),
    "the sender, then 25": Way(on_the_sender("none"), STRANGER, "direct"),
}


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab for this module, whose mailboxes and queues are counted."""
    with labs.one("smuggling") as made:
        yield made


@pytest.fixture
def bench(lab: RunningLab) -> Iterator[Bench]:
    """Yield a bench that opens connections from inside the sender."""
    with Bench(lab) as made:
        yield made


def identities(bench: Bench, way: Way) -> tuple[EmailMessage, EmailMessage]:
    """Return the message to send, and the message hidden in it."""
    outer, inner = (bench.message([BOB], sender=way.sender) for _ in range(2))
    if way.route:
        outer[ROUTE_HEADER] = way.route
    return outer, inner


def attempt(bench: Bench, way: Way, ending: bytes, follow_up: str) -> tuple[str, str, bool]:
    """Try it once; return the two Message-IDs, and whether the first message was accepted."""
    outer, inner = identities(bench, way)
    data = smuggling.two_in_one(outer, inner, (way.sender, BOB), ending, follow_up)
    with way.connect(bench) as session:
        for line in (f"MAIL FROM:<{way.sender}>", f"RCPT TO:<{BOB}>"):
            code, text = session.command(line)
            assert code == 250, (line, code, text)
        if way.chunked:
            session.send(b"BDAT %d LAST\r\n%s" % (len(data), data))
        else:
            assert session.command("DATA")[0] == 354
            session.send(data)
        said = smuggling.replies(session)
    return str(outer["Message-ID"]), str(inner["Message-ID"]), said[0].startswith("250")


def by_sendmail(bench: Bench, ending: bytes, follow_up: str) -> tuple[str, str, bool]:
    """Try it with sendmail(1) on the sender: only the next hop can be fooled."""
    outer, inner = identities(bench, WAYS["the sender"])
    data = smuggling.two_in_one(outer, inner, (ALICE, BOB), ending, follow_up)
    argv = ["sendmail", "-i", "-f", ALICE, BOB]
    done = bench.engine.execute(bench.container(Role.SENDER), argv, user=STUDENT, input=data)
    return str(outer["Message-ID"]), str(inner["Message-ID"]), done.code == 0


def standing(bench: Bench) -> list[queues.Entry]:
    """Return the mails in both queues, in the order of the mail's path."""
    return queues.of(
        bench.engine, {"sender": bench.container(Role.SENDER), "postfix": bench.container(Role.SUBMISSION)}
    )


def settled(bench: Bench) -> set[str]:
    """Wait for empty queues; return the Message-IDs in the mailbox, and empty it."""
    deadline = Deadline.after(SECONDS)
    while standing(bench):
        assert not deadline.passed(), standing(bench)
        with bench.box(BOB) as box:
            box.idle.wait(timeout=0.2)
    with bench.box(BOB) as box:
        found = [message.headers["message-id"][0].strip() for message in box.fetch(mark_seen=False, headers_only=True)]
        box.delete(box.uids())
    assert len(found) == len(set(found))
    return set(found)


def test_none_of_more_than_two_hundred_tries_gets_a_second_mail_through(bench: Bench) -> None:
    tries = list(itertools.product([*WAYS, "sendmail"], ENDINGS, smuggling.FOLLOW_UPS))

    def one(way: str, ending: str, follow_up: str) -> tuple[str, str, bool]:
        if way == "sendmail":
            return by_sendmail(bench, ENDINGS[ending], follow_up)
        return attempt(bench, WAYS[way], ENDINGS[ending], follow_up)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(one, *zip(*tries, strict=True)))
    assert len(done) >= 250
    arrived = settled(bench)
    through = [each for each, (_, inner, _) in zip(tries, done, strict=True) if inner in arrived]
    assert through == []
    # And the tries were real: nearly every first message was taken, and what was taken is there.
    taken = {outer for outer, _, ok in done if ok}
    assert len(taken) > 0.9 * len(done)
    assert arrived == taken


LOOSE = """\
x-mailstack:
  settings:
    postfix: &loose {smtpd_forbid_bare_newline: "no", smtpd_forbid_unauth_pipelining: "no"}
    sender: *loose
"""


def test_a_lab_without_the_protection_is_found_out_by_the_same_count(labs: Labs, tmp_path: Path) -> None:
    """The test above is worth what this one says."""
    overlay = tmp_path / "loose.yaml"
    overlay.write_text(LOOSE)
    with labs.one("smuggled", [overlay]) as lab, Bench(lab) as bench:
        tries = itertools.product(("25", "587", "465", "the sender"), ("LF . LF", "LF . CR LF"), smuggling.FOLLOW_UPS)
        done = [attempt(bench, WAYS[way], ENDINGS[ending], follow_up) for way, ending, follow_up in tries]
        arrived = settled(bench)
        assert all(taken and outer in arrived and inner in arrived for outer, inner, taken in done)
