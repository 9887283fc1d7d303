"""A server's answer to FETCH becomes summaries of mails."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from rich.cells import cell_len
from rich.console import Console

from mailstack.actions.mailboxes import Summary, fetched
from mailstack.cli.mailboxes import _show


def test_items_are_found_whether_they_are_literals_strings_or_lists() -> None:
    answer = [
        (b'1 (UID 5 RFC822.SIZE 999 INTERNALDATE "23-Nov-2026 21:31:17 +0000" PREVIEW {5}', b'(a"b '),
        (b" BODY[HEADER.FIELDS (DATE FROM TO)]<0> {10}", b"From: a\r\n\r"),
        b")",
        b'2 (FLAGS (\\Seen \\Answered) UID 6 PREVIEW "a \\"quoted\\" (one)" BODY[] NIL)',
        b"3 (FLAGS ())",
    ]
    assert list(fetched(answer)) == [
        {
            "UID": b"5",
            "RFC822.SIZE": b"999",
            "INTERNALDATE": b"23-Nov-2026 21:31:17 +0000",
            "PREVIEW": b'(a"b ',
            "BODY[HEADER.FIELDS]": b"From: a\r\n\r",
        },
        {"FLAGS": None, "UID": b"6", "PREVIEW": b'a "quoted" (one)', "BODY[]": None},
        {"FLAGS": None},
    ]


chunks = some.one_of(
    some.binary(),
    some.lists(some.sampled_from([b"(", b")", b'"', b"\\", b" ", b"UID", b"{3}", b"BODY[", b"]"])).map(b"".join),
)


@given(some.lists(some.one_of(chunks, some.tuples(chunks, some.binary()))))
def test_whatever_a_server_answers_it_is_taken(answer: list[Any]) -> None:
    for items in fetched(answer):
        assert isinstance(items, dict)


WHEN = [datetime(2026, 11, 23, tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]


def listed(summary: Summary) -> list[str]:
    console = Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)
    _show(console, summary)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split("\n")


def test_a_mail_without_a_subject_says_so() -> None:
    summary = Summary(7, WHEN[0], "alice@example.com", (), "", 1234, "", "Hello")
    assert listed(summary)[1] == "        (no subject) — Hello"


words = some.text(some.characters(), max_size=120)


@given(
    uid=some.integers(1, 2**32 - 1),
    when=some.sampled_from(WHEN),
    sender=words,
    subject=words,
    preview=words,
    size=some.integers(0, 2**40),
)
def test_whatever_a_mail_says_its_two_lines_fit(
    uid: int, when: datetime, sender: str, subject: str, preview: str, size: int
) -> None:
    first, second, rest = listed(Summary(uid, when, sender, (), subject, size, "", preview))
    assert cell_len(first) <= 80 and cell_len(second) <= 80 and rest == ""
    assert first.lstrip().startswith(f"{uid}  ") and first.endswith("B")
