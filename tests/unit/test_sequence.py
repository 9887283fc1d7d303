"""The sequence diagram is well-formed and complete, and nothing crosses its edges."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from mailstack.protocol.transcript import RecordedLine, Tls, annotate
from mailstack.report.figures import svg
from mailstack.report.figures.sequence import WIDTH, folded, sequence
from tests.unit.test_transcript import SUBMISSION, said

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text: str = SUBMISSION, tls: Tls | None = None) -> ET.Element:
    found = annotate(said(text), client="this machine", server="postfix:587", tls=tls)
    return ET.fromstring(sequence(found.json()))


def words(picture: ET.Element) -> list[str]:
    return [(text.text or "").replace("\u00a0", " ") for text in picture.iter(f"{SVG}text")]


def test_every_command_and_reply_is_in_the_picture_with_its_meaning_and_source() -> None:
    seen = words(drawn())
    for expected in (
        "this machine",
        "postfix:587",
        "EHLO client.test",
        "AUTH PLAIN ••••••••",
        "235 2.7.0 Authentication successful",
        "authentication succeeded",
        "RFC 4954, section 6",
        "Subject: S 250",
        "221 2.0.0 Bye",
    ):
        assert expected in seen


def test_tls_and_authentication_are_marked() -> None:
    picture = drawn(tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
    assert "TLS from here on: TLSv1.3, TLS_AES_256_GCM_SHA384" in words(picture)
    assert {"tls", "auth"} <= {rect.get("class") for rect in picture.iter(f"{SVG}rect")}
    plain = drawn("S 220 hi\nC QUIT\nS 221 bye")
    assert not {"tls", "auth"} & {rect.get("class") for rect in plain.iter(f"{SVG}rect")}


def test_a_refusal_is_marked() -> None:
    classes = [group.get("class") for group in drawn("S 220 hi\nC MAIL FROM:<>\nS 553 no").iter(f"{SVG}g")]
    assert classes == [None, None, "refused"]


def test_what_is_shortened_can_be_read_whole_in_its_title() -> None:
    long = "250 " + "word " * 400 + "end"
    picture = drawn(f"S 220 hi\nC NOOP\nS {long}")
    assert any(long in (title.text or "") for title in picture.iter(f"{SVG}title"))


def test_it_tells_those_who_do_not_see_it() -> None:
    picture = drawn()
    assert picture.get("role") == "img"
    described = picture.find(f"{SVG}desc")
    assert described is not None
    assert "postfix:587: 220 postfix.example.com ESMTP Postfix (the service is ready)." in (described.text or "")


LINES = st.lists(st.tuples(st.sampled_from(["client", "server"]), st.text(max_size=300)), max_size=8)
HOSTILE = [
    "<script>alert(1)</script>",
    "]]>",
    "&nbsp;\x1b[31m",
    '" onload="x',
    "\ud800",
    "漢字" * 300,
    "250-",
    "354 go",
]


def fits(picture: ET.Element) -> bool:
    """Return whether no text starts left of the picture, ends right of it, or is below it."""
    height = float(picture.get("height") or 0)
    for text in picture.iter(f"{SVG}text"):
        x, y = float(text.get("x") or 0), float(text.get("y") or 0)
        wide = svg.width(text.text or "", 11.5)
        start = {"end": x - wide, "middle": x - wide / 2}.get(text.get("text-anchor") or "", x)
        if not (start >= 0 and start + wide <= WIDTH + 1 and 0 < y < height):
            return False
    return True


@given(LINES, st.text(max_size=100), st.text(max_size=100))
def test_whatever_was_said_the_picture_is_well_formed_and_nothing_leaves_it(
    lines: list[tuple[str, str]], client: str, server: str
) -> None:
    found = annotate([RecordedLine(who, text) for who, text in lines], client=client, server=server)  # type: ignore[arg-type]
    assert fits(ET.fromstring(sequence(found.json())))


def test_hostile_text_is_text() -> None:
    found = annotate([RecordedLine("server", text) for text in HOSTILE], client="<b>", server='"&')
    picture = sequence(found.json())
    parsed = ET.fromstring(picture)
    assert fits(parsed)
    allowed = {"svg", "title", "desc", "style", "g", "rect", "line", "path", "polygon", "text"}
    assert {each.tag.removeprefix(SVG) for each in parsed.iter()} <= allowed
    assert not re.search(r"<[^>]*\bonload=", picture)


@given(st.text(max_size=300), st.integers(60, 600), st.booleans())
def test_folded_lines_fit_and_lose_nothing(content: str, room: int, words_: bool) -> None:
    lines = folded(content, room, words=words_)
    assert all(svg.width(line, 11.5) <= room for line in lines)
    assert "".join("".join(lines).split()) == "".join(content.split())
