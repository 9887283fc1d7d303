"""Classes for tests: whether a message matches, how close another one comes, and the contents of a message."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailstack.errors import InputError
from mailstack.message import html as hypertext
from mailstack.message import message
from mailstack.testing import Message, Password, SmtpSettings
from mailstack.testing.criteria import Criteria, nearest
from mailstack.testing.received import urls
from mailstack.trace.journey import Journey


def nowhere(message_id: str) -> Journey:
    raise AssertionError(f"{message_id} was not to be traced")


def received(
    subject: str = "Welcome",
    sender: str = "shop@example.com",
    to: str = "bob@example.com",
    *,
    uid: int = 1,
    text: str = "",
    html: str = "",
    change: Callable[[EmailMessage], object] = lambda mail: None,
) -> Message:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, sender, to
    mail.set_content(text)
    if html:
        mail.add_alternative(html, subtype="html")
    change(mail)
    return Message(message.Message(uid, mail.as_bytes(), datetime(2026, 11, 23, tzinfo=UTC)), nowhere)


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        (Criteria(), True),
        (Criteria(subject="wELcome"), True),
        (Criteria(subject="elc"), True),
        (Criteria(subject="Goodbye"), False),
        (Criteria(subject=re.compile("^W.*e$")), True),
        (Criteria(subject=re.compile("^w")), False),
        (Criteria(sender="SHOP@example.com"), True),
        (Criteria(sender="op@example.com"), False),
        (Criteria(sender=re.compile("@example")), True),
        (Criteria(to="bob@example.com"), True),
        (Criteria(to="carol@example.com"), True),
        (Criteria(to="dora@example.com"), False),
        (Criteria(matching=lambda found: "hello" in found.text), True),
        (Criteria(matching=lambda found: found.attachments), False),
        (Criteria("welcome", "shop@example.com", "dora@example.com"), False),
    ],
)
def test_a_message_fits_when_it_has_all_that_was_said(criteria: Criteria, fits: bool) -> None:
    def copied(mail: EmailMessage) -> None:
        mail["Cc"] = "Carol <carol@example.com>"

    assert criteria.fits(received(text="hello", change=copied)) is fits


def test_the_nearest_miss_is_the_one_that_has_most_of_it_and_then_the_newest() -> None:
    criteria = Criteria("Reset", "shop@example.com")
    found = [
        received("Hello", "eve@example.com", uid=1),
        received("Hello", uid=2),
        received("Hello", "eve@example.com", uid=3),
        received("Reset", "eve@example.com", uid=4),
        received("Reset", uid=5),
    ]
    assert [each.uid for each, _ in nearest(criteria, found)] == [4, 2, 3, 1]
    judged = nearest(criteria, found)[1][1]
    assert [(each.name, each.met) for each in judged] == [("subject", False), ("sender", True)]
    assert judged[0].mismatch == "“Hello”, not “Reset”"


def test_what_is_waited_for_is_said_in_words() -> None:
    def is_large(found: Message) -> bool:
        return len(found.raw) > 1000

    criteria = Criteria(re.compile("week .*"), "a@example.com", "b@example.com", is_large)
    assert str(criteria) == "with the subject /week .*/ from a@example.com to b@example.com matching is_large"


@pytest.mark.parametrize("wrong", [{"subject": b"x"}, {"sender": 7}, {"to": ["x"]}, {"matching": "text"}])
def test_what_cannot_be_waited_for_is_said_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Criteria(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see https://a.example/x.", ["https://a.example/x"]),
        ("(https://a.example/x), http://b.example", ["https://a.example/x", "http://b.example"]),
        ("https://a.example/x_(y)?q=[1]&r=2!", ["https://a.example/x_(y)?q=[1]&r=2"]),
        ("<https://a.example/x>“https://b.example/”", ["https://a.example/x", "https://b.example/"]),
        ("ftp://a.example https:// x", []),
    ],
)
def test_links_in_a_text_end_before_the_sentence_does(text: str, links: list[str]) -> None:
    assert urls(text) == links


def test_links_of_html_are_those_that_lead_out_of_it() -> None:
    source = (
        '<a href="https://a.example/?x=1&amp;y=2">a</a><A HREF=mailto:bob@example.com>b</A><a href="#top">c</a>'
        '<a href="javascript:alert(1)">d</a><img src="https://x.example/"><area href=\'https://b.example/\'>'
        '<!-- <a href="https://c.example/"> --><a name="here">e</a>'
    )
    assert hypertext.links(source) == ["https://a.example/?x=1&y=2", "mailto:bob@example.com", "https://b.example/"]


def test_a_link_is_found_by_a_pattern_once_though_it_stands_in_text_and_html() -> None:
    found = received(text="https://a.example/reset?t=1", html='<a href="https://a.example/reset?t=1">reset</a>')
    assert found.links() == ["https://a.example/reset?t=1"]
    assert found.link(re.compile("reset")) == found.link() == "https://a.example/reset?t=1"
    with pytest.raises(AssertionError, match=r"no link matches 'login'.*its links: https://a\.example/reset"):
        found.link("login")
    with pytest.raises(AssertionError, match="it has no links"):
        received().link()


def test_a_code_is_six_digits_or_what_the_pattern_says() -> None:
    found = received(text="order 20261123, code 271828.\n")
    assert found.code() == "271828"
    assert found.code(r"order (\d+)") == "20261123"
    assert received(html="<p>Code: <b>141421</b></p>").code() == "141421"
    with pytest.raises(AssertionError, match=r"nothing matches.*\norder"):
        found.code("coupon")


def test_an_attachment_is_found_by_its_name() -> None:
    def attach(mail: EmailMessage) -> None:
        mail.add_attachment(b"1;2", maintype="text", subtype="csv", filename="a.csv")
        mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Rechnung Nr. 7 – März.pdf")

    found = received(change=attach)
    assert found.attachment("a.csv").text == "1;2"
    assert found.attachment(re.compile(r"\.pdf$")).content == b"%PDF"
    assert found.attachment("Rechnung Nr. 7 – März.pdf").type == "application/pdf"
    for wrong in ("b.csv", None):
        with pytest.raises(AssertionError, match=r"its attachments: a\.csv, Rechnung"):
            found.attachment(wrong)
    with pytest.raises(AssertionError, match="it has no attachments"):
        received().attachment("a.csv")


def test_headers_are_found_in_upper_and_lower_case_and_all_of_them() -> None:
    def received_twice(mail: EmailMessage) -> None:
        mail["Received"] = "from a"
        mail["Received"] = "from b"

    headers = received("Grüße", change=received_twice).headers
    assert headers["SUBJECT"] == headers["subject"] == "Grüße"
    assert headers["Received"] == "from a" and headers.all("received") == ["from a", "from b"]
    assert headers.get("X-Nothing") is None and "x-nothing" not in headers and "from" in headers


def test_a_message_knows_its_names_at_the_stations_that_it_came_through() -> None:
    def twice(mail: EmailMessage) -> None:
        mail["Received"] = "from a (a [192.0.2.1]) by postfix.example.com (Postfix) with ESMTPSA id 682B0170003; Tue"
        mail["Received"] = "by sender.example.com (Postfix, from userid 1000) id 12AB; Tue"
        mail["Received"] = "from c by elsewhere with LMTP id XYZ; Tue"

    assert received(change=twice).queue_ids == ["682B0170003", "12AB"]


def test_a_message_shows_itself_in_a_line() -> None:
    assert repr(received()) == "<Message 1: “Welcome” from shop@example.com to bob@example.com>"


def test_the_settings_are_in_each_framework_s_words_and_show_no_password() -> None:
    settings = SmtpSettings("127.0.0.1", 587, "user", Password("s3cret"), Path("/ca.pem"))
    assert "s3cret" not in repr(settings) + repr(settings.password) + repr(settings.django()) + repr(settings.flask())
    assert settings.password == "s3cret"
    assert settings.django()["EMAIL_HOST_PASSWORD"] == settings.flask()["MAIL_PASSWORD"] == "s3cret"
    assert settings.django()["EMAIL_USE_TLS"] is settings.flask()["MAIL_USE_TLS"] is True
    assert settings.environment() == {"SSL_CERT_FILE": "/ca.pem"}


@pytest.mark.process
def test_the_plugin_is_loaded_by_pytest_and_imports_nothing_but_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"mailstack": "mailstack.plugin"}
    code = (
        "import sys, pytest, contextlib, hashlib, secrets; before = set(sys.modules); import mailstack.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["mailstack", "mailstack.plugin"]
