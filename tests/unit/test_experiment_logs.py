"""What steps of the experiment read in the logs of a lab that has run for a while."""

from __future__ import annotations

import pytest

from mailstack.experiment.first_mail import tls_line
from mailstack.experiment.queue import unresolved
from mailstack.experiment.theory import reader_login

MAIL = "<1.first.experiment-ab@example.com>"
LOGIN = "imap-login: Info: Logged in: user=<{}>, method=PLAIN, session=<{}>"
SAVED = "lmtp(bob@example.com)<15><x>: Info: msgid={}: saved mail to INBOX"


def test_the_login_that_read_a_mail_is_one_after_the_mail_was_saved() -> None:
    log = [
        LOGIN.format("bob@example.com", "yesterday"),
        SAVED.format("<0@example.com>"),
        LOGIN.format("bob@example.com", "before"),
        SAVED.format(MAIL),
        LOGIN.format("alice@example.com", "another"),
        LOGIN.format("bob@example.com", "the reader"),
        LOGIN.format("bob@example.com", "later"),
    ]
    assert reader_login(log, MAIL, "bob@example.com") == log[5]
    assert reader_login(log, MAIL, "Bob@Example.com") == log[5]
    assert (
        reader_login([SAVED.replace("saved mail to", "save failed to").format(MAIL), log[5]], MAIL, "bob@example.com")
        == ""
    )
    assert reader_login(log[:5], MAIL, "bob@example.com") == ""


def smtp(process: int, text: str) -> str:
    return f"Nov 30 11:03:43 sender postfix/smtp[{process}]: {text}"


TLS = "{} TLS connection established to postfix[10.0.0.3]:587: TLSv1.3 with cipher X"
ATTEMPT = "{}: to=<bob@example.com>, relay=postfix[10.0.0.3]:587, status=sent (250 2.0.0 Ok: queued as E19A0172)"


def test_the_tls_connection_of_a_mail_is_the_last_one_of_the_process_that_sent_it() -> None:
    log = [
        smtp(4, TLS.format("Untrusted")),
        smtp(4, ATTEMPT.format("A1")),
        smtp(4, TLS.format("Trusted")),
        smtp(5, TLS.format("Anonymous")),
        smtp(4, ATTEMPT.format("B2")),
        smtp(6, ATTEMPT.format("C3")),
    ]
    assert tls_line(log, ATTEMPT.format("B2")) == log[2]
    assert tls_line(log, ATTEMPT.format("A1")) == log[0]
    assert tls_line(log, ATTEMPT.format("C3")) == tls_line(log, ATTEMPT.format("D4")) == ""


@pytest.mark.parametrize(
    ("reason", "explained"),
    [
        (
            "Host or domain name not found. Name service error for name=postfix type=AAAA: Host not found, try again",
            True,
        ),
        ("unable to look up host postfix: Temporary failure in name resolution", True),
        ("connect to postfix[10.0.0.3]:587: Connection refused", False),
        ("", False),
    ],
)
def test_a_name_that_is_not_found_is_explained_where_one_expects_a_refused_connection(
    reason: str, explained: bool
) -> None:
    assert ("a stopped container has no name" in unresolved(reason)) is explained
