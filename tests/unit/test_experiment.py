"""Verdicts of the experiment: reading a mail, a dialogue, a setting."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from mailstack.checks.judging import Unmet
from mailstack.checks.logs import mail_lines
from mailstack.experiment.machines import parse_settings
from mailstack.experiment.mailbox import picture
from mailstack.experiment.models import forwarding_violation
from mailstack.experiment.scene import Scene
from mailstack.experiment.settings import SETTINGS, fits
from mailstack.experiment.talk import smtp_violation
from mailstack.experiment.theory import malformed_lines, parse_hops, split
from mailstack.model import Json
from mailstack.protocol.transcript import Dialogue, RecordedLine, annotate
from mailstack.trace.events import Event
from mailstack.trace.journey import Journey
from mailstack.trace.lines import Line

ROOT = Path(__file__).parents[2]
DOCUMENT: Json = json.loads((ROOT / "tests" / "data" / "experiment.json").read_text())
SCENE = cast(Scene, None)  # the steps below look at nothing


def test_every_setting_of_the_original_is_there() -> None:
    assert {setting.name for setting in SETTINGS} == {
        "relayhost",
        "smtp_sasl_auth_enable",
        "smtp_sasl_security_options",
        "smtp_sasl_password_maps",
        "smtp_use_tls",
        "smtp_tls_CAfile",
        "readme_directory",
        "smtpd_tls_cert_file",
        "smtpd_tls_key_file",
        "smtpd_use_tls",
        "smtpd_tls_session_cache_database",
        "smtp_tls_session_cache_database",
    }


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("relayhost", "[postfix]:587", "[postfix]:25"),
        ("relayhost", "[postfix]:587", "x[postfix]:587"),
        ("smtp_sasl_password_maps", "lmdb:/run/relay/sasl_passwd", "lmdb:/etc/postfix/sasl_passwd"),
        ("smtp_use_tls", "secure", "encrypt"),
        ("smtpd_use_tls", "may", "none"),
        ("smtp_tls_session_cache_database", "lmdb:/var/lib/postfix/smtp_scache", ""),
    ],
)
def test_a_setting_is_held_against_what_the_original_was_for(name: str, good: str, bad: str) -> None:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    assert fits(setting, good) and not fits(setting, bad)


def test_settings_are_read_as_postconf_prints_them() -> None:
    assert parse_settings("a = b\nempty =\nrelayhost = [x]:1 = 2\n\n") == {
        "a": "b",
        "empty": "",
        "relayhost": "[x]:1 = 2",
    }


def test_the_lines_of_a_mail_are_found_by_its_queue_id() -> None:
    log = (
        "postfix/pickup[1]: AAAAA1: uid=1000 from=<a@b>\n"
        "postfix/cleanup[2]: AAAAA1: message-id=<1@b>\n"
        "postfix/cleanup[2]: BBBBB2: message-id=<1@bb>\n"
        "postfix/qmgr[3]: AAAAA1: removed\n"
        "postfix/qmgr[3]: BBBBB2: removed\n"
    )
    lines, hit = mail_lines(log.splitlines(), "<1@b>", ": removed")
    assert [line.partition("]: ")[2][:6] for line in lines] == ["AAAAA1"] * 3
    assert hit == "postfix/qmgr[3]: AAAAA1: removed"
    assert mail_lines(log.splitlines(), "<1@", "removed") == ([], "")


def test_a_message_is_taken_apart_at_its_first_empty_line() -> None:
    assert split(b"A: b\r\nC: d\r\n\r\nbody\r\n\r\nmore") == (b"A: b\r\nC: d\r\n", b"body\r\n\r\nmore")
    with pytest.raises(Unmet):
        split(b"A: b\r\nbody")


def test_a_line_that_is_no_field_does_not_belong_in_a_header() -> None:
    assert malformed_lines(b"A: b\r\n folded\r\nX-Y:z\r\n") == []
    assert malformed_lines(b"A: b\r\nno field\r\n") == ["no field"]
    assert malformed_lines(b"A: b\nC: d\r\n") == []  # one line, for who reads CR LF
    assert malformed_lines(b"From x\r\n") == ["From x"]


def test_hops_are_read_from_received_fields_the_first_one_first() -> None:
    hops = parse_hops(
        [
            (
                "from postfix.example.com ([172.22.0.2])\r\n\tby dovecot with LMTP\r\n\tid Wv\r\n\t"
                "(envelope-from <s@example.com>)\r\n\tfor <bob@example.com>; Mon, 23 Nov 2026 21:28:09 +0000"
            ),
            (
                "from sender.example.com (unknown [172.23.0.2])\r\n\t(using TLSv1.3 with cipher X (256/256 bits)\r\n\t"
                " key-exchange x25519)\r\n\tby postfix.example.com (Postfix) with ESMTPSA id ACA96\r\n\t"
                "for <bob@example.com>; Mon, 23 Nov 2026 21:28:08 +0000 (UTC)"
            ),
            "by sender.example.com (Postfix, from userid 1000)\r\n\tid A4D78; Mon, 23 Nov 2026 21:28:08 +0000 (UTC)",
        ]
    )
    assert [(hop.source, hop.by, hop.protocol, hop.queue_id) for hop in hops] == [
        ("", "sender.example.com", "local", "A4D78"),
        ("sender.example.com", "postfix.example.com", "ESMTPSA", "ACA96"),
        ("postfix.example.com", "dovecot", "LMTP", "Wv"),
    ]
    assert hops[0].moment <= hops[1].moment < hops[2].moment


TALK = """S 220 postfix ESMTP
C EHLO sender
S 250-postfix
S 250 STARTTLS
C STARTTLS
S 220 2.0.0 Ready to start TLS
C EHLO sender
S 250 AUTH PLAIN
C AUTH PLAIN AHgAeQ==
S 235 2.7.0 Authentication successful
C MAIL FROM:<a@example.com>
C RCPT TO:<b@example.com>
C DATA
S 250 2.1.0 Ok
S 250 2.1.5 Ok
S 354 End data with <CR><LF>.<CR><LF>
C Subject: x
C\x20
C text
C .
C QUIT
S 250 2.0.0 Ok: queued as A
S 221 2.0.0 Bye"""


def _talk(text: str) -> Dialogue:
    speakers = {"C": "client", "S": "server"}
    said = [RecordedLine(speakers[line[0]], line[2:]) for line in text.split("\n")]  # type: ignore[arg-type]
    return annotate(said, client="sender", server="postfix:587")


def test_a_dialogue_as_smtp_has_it_is_one_also_when_nobody_waits_for_the_farewell() -> None:
    assert smtp_violation(_talk(TALK)) == ""
    assert smtp_violation(_talk(TALK.removesuffix("\nS 221 2.0.0 Bye"))) == ""


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("C STARTTLS\nS 220 2.0.0 Ready to start TLS\n", "", "the stage “tls” is missing"),
        ("C AUTH PLAIN AHgAeQ==\nS 235 2.7.0 Authentication successful\n", "", "the stage “auth” is missing"),
        ("S 250 2.1.5 Ok\n", "", "requests have"),
        ("C \nC text\n", "", "0 messages with a header, an empty line and a body"),
        ("S 250 2.1.5 Ok", "S what", "a reply has an unknown code: what"),
        ("C QUIT\n", "", "the stage “quit” is missing"),
    ],
)
def test_a_dialogue_that_lacks_something_is_told_what(was: str, now: str, says: str) -> None:
    assert was in TALK
    assert says in smtp_violation(_talk(TALK.replace(was, now)))


def _event(service: str, kind: str, at: float, **more: Any) -> Event:
    ids = {"sender": "A1", "postfix": "B2", "dovecot": ""}
    line = Line(at, service, "", None, "")
    return Event(kind, at, service, "", ids[service], "", line, **more)


EVENTS = (
    _event("sender", "named", 1),
    _event("postfix", "named", 2),
    _event("sender", "attempt", 3, status="sent", next_id="B2"),
    _event("sender", "removed", 4),
    _event("dovecot", "saved", 5, session="S"),
    _event("postfix", "attempt", 6, status="sent", session="S"),
    _event("postfix", "removed", 7),
)


def _journey(*events: Event) -> Journey:
    return Journey("<1@b>", None, (), (), events, (), (), (), 1.0)


def test_each_station_kept_a_mail_that_it_removed_after_the_next_one_had_it() -> None:
    assert forwarding_violation(_journey(*EVENTS)) == ""


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ((*EVENTS[:2], EVENTS[3], EVENTS[2], *EVENTS[4:]), "sender removed it before the next hop had it"),
        ((*EVENTS[:2], replace(EVENTS[2], next_id="C3"), *EVENTS[3:]), "sender got no confirmation"),
        ((*EVENTS[:2], replace(EVENTS[2], status="deferred"), *EVENTS[3:]), "sender got no confirmation"),
        ((*EVENTS[:4], *EVENTS[5:]), "postfix got no confirmation"),
        (EVENTS[:6], "postfix still has it"),
        ((EVENTS[0], *EVENTS[2:]), "sender got no confirmation"),
    ],
)
def test_a_station_that_let_go_of_a_mail_is_named(events: tuple[Event, ...], says: str) -> None:
    assert forwarding_violation(_journey(*events)).startswith(says)


def test_the_picture_is_a_png_of_its_size() -> None:
    image = picture(20, 10)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(image):
        (length,) = struct.unpack(">I", image[at : at + 4])
        name, data = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        assert struct.unpack(">I", image[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
        chunks[name] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (20, 10)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 10 * (1 + 20 * 3)
