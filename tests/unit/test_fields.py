"""Header fields: valid ones are parsed, and malformed ones do no harm."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.message import fields


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("CCN Lab", "CCN Lab"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe_an?= alle", "Grüße an alle"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),  # RFC 2047, section 8
        ("=?ISO-8859-1?Q?a?= b", "a b"),
        ("=?utf-8*de?b?w7w=?=", "ü"),
        ("=?utf-8?b?w7?= =?utf-8?b?w7w?=", "\ufffdü"),
        ("=?utf-8?q?=F0=9F?= =?utf-8?q?=90=98?=", "🐘"),  # a character cut in two
        ("=?nope?q?=C3=BC?=", "ü"),
        ("=?punycode?q?abc-?=", "abc-"),
        ("=?utf-8?b?!!!!?=", ""),
        ("=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
    ],
)
def test_encoded_words_are_read(written: str, read: str) -> None:
    assert fields.decoded(written) == read


@pytest.mark.parametrize(
    ("written", "value", "given"),
    [
        ('Text/Plain; Charset="utf-8"', "text/plain", {"charset": "utf-8"}),
        ('attachment; filename="a\\"b;c.txt"; x=1', "attachment", {"filename": 'a"b;c.txt', "x": "1"}),
        ("a; filename*=utf-8'de'na%C3%AFve", "a", {"filename": "naïve"}),
        ("a; f*1*=%20two; f*0*=utf-8''one; f*2=\" three\"", "a", {"f": "one two three"}),
        ("a; f*0=one; f*1=two", "a", {"f": "onetwo"}),
        ("a; f=plain; f*=utf-8''better", "a", {"f": "better"}),
        ('a; f="never ended', "a", {"f": "never ended"}),
        (";;;=;*=1;", "", {}),
    ],
)
def test_parameters_are_read(written: str, value: str, given: dict[str, str]) -> None:
    found, parameters = fields.parameters(written)
    assert found == value
    assert {name: parameters.get(name) for name in given} == given


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("alice@example.com", ["alice@example.com"]),
        ('"Doe, John" <john@example.com>, Jane <jane@example.com>', ["john@example.com", "jane@example.com"]),
        ("john@example.com (Doe, (the) John)", ["john@example.com"]),
        ("team: a@example.com, b@example.com;, c@example.com", ["a@example.com", "b@example.com", "c@example.com"]),
        ("undisclosed-recipients:;", []),
        ("<>", []),
        ("no address at all", ["no address at all"]),
        ("", []),
    ],
)
def test_addresses_are_found(written: str, read: list[str]) -> None:
    assert fields.addresses(written) == read


def test_a_date_is_a_moment_or_nothing() -> None:
    found = fields.moment("Mon, 23 Nov 2026 18:45:28 +0100")
    assert found is not None and found.isoformat() == "2026-11-23T18:45:28+01:00"
    without_zone = fields.moment("Mon, 23 Nov 2026 18:45:28 -0000")
    assert without_zone is not None and without_zone.utcoffset() is not None
    assert fields.moment("Mon, 99 Foo 2026 25:61:61 +9999") is None


def test_message_ids_are_taken_if_they_fit_a_line() -> None:
    assert fields.message_ids("<a@b> garbage <c\x00@d> <no-at> <c@d>\r\n <e f@g>") == ["<a@b>", "<c@d>"]
    assert fields.message_ids(f"<{'x' * 300}@b>") == []


anything = some.one_of(some.text(), some.text("=?utf-8bqQB*'\"<>(),;:@\\% \tA0"), some.binary().map(fields.raw_text))


@given(anything)
def test_whatever_a_field_is_it_is_read(value: str) -> None:
    texts = [fields.decoded(value), *fields.addresses(value), *fields.message_ids(value)]
    kind, given = fields.parameters(value)
    for text in (*texts, kind, *given, *given.values()):
        text.encode()
    moment = fields.moment(value)
    assert moment is None or moment.isoformat()


@given(some.binary(), some.one_of(some.text(), some.sampled_from(["utf-7", "idna", "zip", "utf-16", "hex", "rot13"])))
def test_whatever_its_character_set_is_bytes_are_text(data: bytes, charset: str) -> None:
    assert not {unicodedata.category(c) for c in fields.to_text(data, charset)} & {"Cs"}
    assert isinstance(fields.from_base64(data), bytes)


@pytest.mark.parametrize(
    "piece", ["=?", "=?a?q?", "=?a?b?x?= ", '"', "<", "(", "(a", ";", ";a=", ';a="', "\\", ",", "a ", "<a@", " "]
)
def test_a_long_field_takes_no_long_time(piece: str) -> None:
    value = (piece * fields.LONGEST)[: fields.LONGEST]
    begun = time.process_time()
    fields.decoded(value), fields.parameters(value), fields.addresses(value), fields.message_ids(value)
    assert time.process_time() - begun < 0.5
