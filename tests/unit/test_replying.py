"""Replies go to the right recipients, in the right thread."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.actions import replying
from mailstack.errors import InputError
from mailstack.message import draft
from mailstack.message.message import Message


def message(*lines: str, body: str = "Hello\nyou\n") -> Message:
    return Message(1, ("\r\n".join((*lines, "", body))).encode(), datetime(2026, 11, 23, tzinfo=UTC))


@pytest.mark.parametrize(
    ("lines", "recipients"),
    [
        (("From: Alice <Alice@example.com>",), ["Alice@example.com"]),
        (("From: alice@example.com", "Reply-To: bob@example.com"), ["bob@example.com"]),
        (
            ("From: a@example.com", "Reply-To: b@example.com, C <c@example.com>, b@example.com"),
            ["b@example.com", "c@example.com"],
        ),
        (("From: alice@example.com", "Reply-To: "), ["alice@example.com"]),
        (("Return-Path: <>", "From: a@example.com", "Reply-To: b@example.com"), ["b@example.com"]),
    ],
)
def test_an_answer_goes_to_reply_to_or_from(lines: tuple[str, ...], recipients: list[str]) -> None:
    assert replying.recipients(message(*lines)) == recipients


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("Return-Path: <>", "From: MAILER-DAEMON@example.com"), "null sender"),
        (("Subject: from nobody",), "the mail is from no addresses"),
        (("From: undisclosed:;",), "the mail is from no addresses"),
        (("From: MAILER-DAEMON",), "the mail is from 'MAILER-DAEMON', which is not a mail address"),
        (("From: a@example.com", "Reply-To: rubbish"), "asks for replies to 'rubbish', which is not a mail address"),
        (("From: a@example.com", "Reply-To: b@example.com, -oQ/tmp"), "'-oQ/tmp'"),
        (("From: a@example.com", "Reply-To: =?utf-8?q?x=0D=0ABcc=3A_b?= <b@example.com\r\n ,c>"), "not a mail address"),
        (("From: a@example.com", "Reply-To: b@example.com\x1b[2J"), "not a mail address"),
        (
            ("From: a@example.com", "Reply-To: " + ", ".join(f"u{n}@example.com" for n in range(51))),
            "asks for replies to 51 addresses",
        ),
    ],
)
def test_who_cannot_be_answered_is_told(lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError) as error:
        replying.recipients(message(*lines))
    assert says in error.value.message


@pytest.mark.parametrize(
    ("of", "subject"),
    [
        ("CCN Lab", "Re: CCN Lab"),
        ("Re: CCN Lab", "Re: CCN Lab"),
        ("RE: re : CCN Lab", "Re: CCN Lab"),
        ("", "Re:"),
        ("Regarding x", "Re: Regarding x"),
        ("a\r\nBcc: b@example.com\x1b[2J", "Re: a Bcc: b@example.com [2J"),
        ("x" * 2000, "Re: " + "x" * 496),
    ],
)
def test_a_subject_is_answered_once_and_in_one_line(of: str, subject: str) -> None:
    assert replying.subject(of) == subject


def test_the_thread_is_the_parent_s_and_the_parent() -> None:
    assert replying.thread(message("Message-ID: <3@x>", "References: <1@x>\r\n <2@x>")) == {
        "In-Reply-To": ("<3@x>",),
        "References": ("<1@x>", "<2@x>", "<3@x>"),
    }
    assert replying.thread(message("Message-ID: <2@x>", "In-Reply-To: <1@x>"))["References"] == ("<1@x>", "<2@x>")
    assert replying.thread(message("Message-ID: <3@x>", "In-Reply-To: <1@x> <2@x>"))["References"] == ("<3@x>",)
    assert replying.thread(message("Subject: without an id")) == {}


def test_a_long_thread_keeps_its_beginning_and_its_end() -> None:
    many = " ".join(f"<{number}@x>" for number in range(500))
    kept = replying.thread(message("Message-ID: <last@x>", f"References: {many}"))["References"]
    assert len(kept) == replying.MOST_IDS and (kept[0], kept[-2:]) == ("<0@x>", ("<499@x>", "<last@x>"))


def test_long_message_ids_are_written_as_they_are() -> None:
    ids = tuple(f"<{'x' * 150}{number}@example.com>" for number in range(3))
    thread = {"In-Reply-To": ids[-1:], "References": ids}
    made = draft.new_message(sender="a@example.com", to=["b@example.com"], subject="Re: x", body="y", thread=thread)
    read = message_from_bytes(made.as_bytes(), policy=policy.compat32)
    assert read["References"].split() == list(ids) and read["In-Reply-To"] == ids[-1]
    assert max(map(len, made.as_bytes().splitlines())) < 300


def test_what_was_said_is_quoted_behind_who_said_it() -> None:
    said = message(
        "From: Alice <alice@example.com>", "Date: Mon, 23 Nov 2026 18:45:28 +0100", body="Hello\n\x1b[2J\n> old\n\n"
    )
    assert list(replying.quote(said)) == [
        "On 2026-11-23 at 18:45 +0100, alice@example.com wrote:",
        *("> Hello", "> ?[2J", "> > old"),
    ]


def test_what_is_very_long_is_quoted_in_part() -> None:
    lines = list(replying.quote(message(body="long line\n" * 100_000)))
    assert lines[-1] == "> […]" and sum(map(len, lines)) < 2 * replying.LONGEST_QUOTE


@given(some.text(some.characters()))
def test_whatever_a_subject_is_its_answer_is_one_line(of: str) -> None:
    subject = replying.subject(of)
    assert subject.startswith("Re:") and len(subject.splitlines()) == 1
    assert replying.subject(subject) == subject
