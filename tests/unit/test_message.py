"""Any mail is parsed into parts and shown."""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.message import mime
from mailstack.message.message import Message
from tests.unit import hostile

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def message(raw: bytes) -> Message:
    return Message(7, raw, NOW)


def lines(*given: str) -> bytes:
    return "\r\n".join(given).encode()


def test_a_plain_mail_is_its_header_and_its_text() -> None:
    found = message(
        lines("From: Alice <alice@example.com>", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "", "Hello", "you", "")
    )
    assert (found.field("from"), found.field("subject")) == ("Alice <alice@example.com>", "Grüße")
    assert (found.text, found.html, found.attachments) == ("Hello\nyou\n", "", [])


def test_a_date_that_is_none_is_that_of_the_arrival() -> None:
    assert message(b"Date: never\r\n\r\n").json()["date"] == NOW.isoformat()
    assert message(b"Date: 24 Dec 2026 12:00:00 +0100\r\n\r\n").json()["date"] == "2026-12-24T12:00:00+01:00"


def written() -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = "all kinds"
    mail.set_content("plain ü\n")
    mail.add_alternative("<p>rich</p>", subtype="html")
    mail.add_attachment(bytes(range(256)), maintype="image", subtype="png", filename="naïve photo.png")
    inner = EmailMessage()
    inner["Subject"] = "inside"
    inner.set_content("inner text")
    inner.add_attachment(b"x", maintype="application", subtype="pdf", filename="inner.pdf")
    mail.add_attachment(inner)
    return mail


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_the_parts_are_those_that_the_standard_library_wrote(ending: bytes) -> None:
    raw = written().as_bytes().replace(b"\r\n", b"\n").replace(b"\n", ending)
    found = message(raw)
    assert (found.text, found.html) == ("plain ü\n", "<p>rich</p>\n")
    names = [(found.name_of(part), part.type) for part in found.attachments]
    assert names == [("naïve photo.png", "image/png"), ("inside.eml", "message/rfc822")]
    assert found.content(found.attachments[0]) == bytes(range(256))
    assert b"inner text" in found.content(found.attachments[1])


def test_a_mail_with_html_alone_is_readable() -> None:
    found = message(lines("Content-Type: text/html", "", "<style>p {}</style><p>Hello <b>you</b>"))
    assert found.text == "" and found.readable == "Hello you"


def test_the_delimiter_of_an_outer_part_ends_what_is_inside() -> None:
    found = message(
        lines(
            *('Content-Type: multipart/mixed; boundary="out"', "", "preamble", "--out"),
            *('Content-Type: multipart/mixed; boundary="in"', "", "--in", "", "one", "--out", "", "two"),
            *("--in", "not a part any more", "--out--", "epilogue", ""),
        )
    )
    assert found.text == "one\ntwo\n--in\nnot a part any more"
    assert [part.depth for part in found.parts] == [0, 1, 2, 1]


@pytest.mark.parametrize(
    "raw",
    [
        lines("Content-Type: multipart/mixed", "", "no boundary"),
        lines("Content-Type: multipart/mixed; boundary=b", "", "no boundary"),
        lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "no boundary", "--b--"),
        lines("Content-Type: nonsense", "", "no boundary"),
        lines("Content-Type: text/plain; charset=nonsense", "", "no boundary"),
        lines("Content-Transfer-Encoding: nonsense", "", "no boundary"),
        lines("this line is no field", "no boundary"),
    ],
)
def test_a_broken_mail_is_shown_as_the_text_that_it_has(raw: bytes) -> None:
    assert "no boundary" in message(raw).readable


def test_a_header_of_too_many_fields_is_read_as_far_as_it_goes() -> None:
    raw = lines(*(f"X: {number}\r\n more" for number in range(3000)), "Subject: too late", "", "text")
    found = message(raw)
    assert found.json()["headers"] == {"x": [f"{number} more" for number in range(mime.MOST_FIELDS)]}
    assert (found.field("subject"), found.text) == ("", "text")


def test_a_mail_of_too_many_parts_says_so() -> None:
    raw = lines('Content-Type: multipart/mixed; boundary="b"', "", *(["--b", "", "x"] * 3000))
    found = message(raw)
    assert len(found.parts) == mime.MOST_PARTS and "parts or more" in found.json()["notes"][0]
    assert message(b"").json()["notes"] == []


def test_ten_megabytes_of_malice_are_read_in_bounded_time_and_memory() -> None:
    raw = hostile.mail()
    assert len(raw) == 10_000_000
    tracemalloc.start()
    begun = time.process_time()
    document = message(raw).json()
    seconds = time.process_time() - begun
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "Hello \x1b[2J from the deep" in document["text"] and "red" in document["text"]
    assert len(document["attachments"]) == len(hostile.NAMES) + 1
    assert seconds < 2 and peak < 4 * len(raw)


def deep(depth: int) -> bytes:
    return b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(depth))


@pytest.mark.parametrize(
    "raw",
    [
        b"--\n" * 100_000,
        b"a:\n" * 100_000,
        b"a: b\n" + b" \n" * 100_000,
        b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n" * 100_000,
        b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--b--\n" * 100_000,
        deep(20_000),
        b"Content-Type: text/html\n\n" + b"<a " * 100_000,
        b"Content-Type: text/html\n\n" + b"<!--" * 100_000,
        b"Content-Type: text/html\n\n" + b"<a href='" * 100_000,
        b"Content-Type: text/html\n\n" + b"< " * 100_000,
        b"Content-Type: text/html\n\n" + b"<div>" * 100_000,
    ],
    ids=lambda raw: ascii(raw[-12:].decode()),
)
def test_a_megabyte_of_anything_takes_no_long_time(raw: bytes) -> None:
    begun = time.process_time()
    found = message(raw)
    assert found.readable is not None and found.json()
    assert time.process_time() - begun < 3


pieces = some.lists(
    some.sampled_from(
        [
            *(
                b"\r\n",
                b"\n",
                b"--b",
                b"--",
                b"--c--",
                b": ",
                b" ",
                b"\x00",
                b"\xff",
                b"=?utf-8?b?",
                b"?=",
                b"<a ",
                b"&#",
            ),
            *(b"Content-Type: multipart/mixed; boundary=b\n", b'Content-Type: multipart/digest; boundary="c"\n\n'),
            *(
                b"Content-Type: text/html; charset=utf-7\n\n",
                b"Content-Transfer-Encoding: base64\n",
                b"From: ",
                b"Date: ",
            ),
            *(
                b"Content-Type: message/rfc822\n\n",
                b"Content-Disposition: attachment; filename*=x''%00%ff\n",
                b"99999999",
            ),
            *(b"Content-Transfer-Encoding: quoted-printable\n", b"=0", b"+2AA-", b"Subject: ", b"\x1b[2J"),
        ]
    ),
    max_size=40,
).map(b"".join)


@given(some.one_of(some.binary(), pieces))
def test_whatever_a_mail_is_it_is_shown(raw: bytes) -> None:
    found = message(raw)
    document = found.json()
    for text in (found.readable, document["text"], document["subject"], *(a["name"] for a in document["attachments"])):
        text.encode()
    assert found.parts[0].end <= len(raw)
    assert all(part.start <= part.end <= len(raw) for part in found.parts)
