"""What a server answers to FETCH becomes summaries of mails."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from mailstack.mailboxes import fetched


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
