"""The meanings of SMTP reply codes and enhanced status codes."""

from __future__ import annotations

import pytest

from mailstack.protocol.status_codes import Meaning, enhanced, reply


@pytest.mark.parametrize("code", [220, 221, 235, 250, 334, 354, 421, 450, 454, 530, 535, 550, 552, 553, 554])
def test_the_replies_that_servers_give_are_known_by_themselves(code: int) -> None:
    meaning = reply(code)
    assert meaning
    assert meaning.code == str(code)
    assert meaning.source.startswith("RFC ")
    assert meaning.source != "RFC 5321, section 4.2.1"


def test_a_reply_that_is_not_known_is_explained_by_its_first_digit() -> None:
    assert reply(499) == Meaning("499", "not done now; trying again may help", "RFC 5321, section 4.2.1")


@pytest.mark.parametrize("number", [0, 25, 99, 100, 199, 600, 2500, -250])
def test_what_is_no_reply_code_has_no_meaning(number: int) -> None:
    assert reply(number) is None


def test_a_reply_can_say_another_thing_after_another_command() -> None:
    assert reply(220, after="STARTTLS") == Meaning("220", "ready to start TLS", "RFC 3207, section 4")
    assert reply(220, after="") == reply(220)
    greeting, after_data = reply(554, after=""), reply(554, after="DATA")
    assert greeting
    assert greeting.source == "RFC 5321, section 3.1"
    assert after_data == reply(554)


@pytest.mark.parametrize(
    ("code", "text", "source"),
    [
        ("2.0.0", "success", "RFC 3463, section 3.1"),
        ("2.1.5", "success: the recipient's address is valid", "RFC 3463, section 3.2"),
        ("5.1.1", "permanent failure: there is no such mailbox", "RFC 3463, section 3.2"),
        ("4.2.2", "persistent transient failure: the mailbox is full", "RFC 3463, section 3.3"),
        ("5.7.1", "permanent failure: not authorised: refused by policy", "RFC 3463, section 3.8"),
        ("5.7.8", "permanent failure: the user name or the password is wrong", "RFC 4954, section 6"),
        ("5.7.23", "permanent failure: the client may not send for this domain (SPF)", "RFC 7372, section 3.2"),
    ],
)
def test_an_enhanced_code_is_its_class_and_its_detail(code: str, text: str, source: str) -> None:
    assert enhanced(code) == Meaning(code, text, source)


def test_an_unknown_detail_is_explained_by_its_class_and_subject() -> None:
    found = enhanced("4.4.99")
    assert found
    assert found.text == "persistent transient failure: about the network or the routing"


def test_an_unknown_subject_is_explained_by_its_class_alone() -> None:
    found = enhanced("4.9.9")
    assert found
    assert found.text == "persistent transient failure"


@pytest.mark.parametrize("code", ["", "250", "3.1.1", "5.7", "5.7.8.1", "5.7.1234", "x.1.1", "5.7.8 ", "٥.1.1"])
def test_what_is_no_enhanced_code_has_no_meaning(code: str) -> None:
    assert enhanced(code) is None
