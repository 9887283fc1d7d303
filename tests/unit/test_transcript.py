"""A recording becomes a dialogue: speakers, meanings, and no credentials."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from mailstack.protocol.transcript import BLOT, BODY_LINES, Dialogue, Exchange, RecordedLine, Tls, annotate, shorten

SUBMISSION = """\
S 220 postfix.example.com ESMTP Postfix
C EHLO client.test
S 250-postfix.example.com
S 250-STARTTLS
S 250 ENHANCEDSTATUSCODES
C STARTTLS
S 220 2.0.0 Ready to start TLS
C EHLO client.test
S 250-postfix.example.com
S 250 AUTH PLAIN LOGIN
C AUTH PLAIN AGFsaWNlAHNlc2FtZQ==
S 235 2.7.0 Authentication successful
C MAIL FROM:<alice@example.com> SIZE=42
S 250 2.1.0 Ok
C RCPT TO:<bob@example.com>
S 250 2.1.5 Ok
C DATA
S 354 End data with <CR><LF>.<CR><LF>
C Subject: S 250
C
C AUTH PLAIN is how it is done
C .
S 250 2.0.0 Ok: queued as 11DFF16E0DB
C QUIT
S 221 2.0.0 Bye"""


def said(text: str) -> list[RecordedLine]:
    """Return recorded lines with the prefixes `C` and `S`."""
    return [
        RecordedLine("client" if line[0] == "C" else "server", line[2:], float(number))
        for number, line in enumerate(text.splitlines())
    ]


def dialogue(text: str, **options: object) -> Dialogue:
    return annotate(said(text), client="c", server="s", **options)  # type: ignore[arg-type]


def test_every_line_is_in_one_exchange_in_the_order_in_which_it_was_said() -> None:
    lines = [line for exchange in dialogue(SUBMISSION).exchanges for line in exchange.lines]
    recorded = [line.text for line in said(SUBMISSION)]
    assert lines == [f"AUTH PLAIN {BLOT}" if line.endswith("ZQ==") else line for line in recorded]


def test_a_reply_of_several_lines_is_one_exchange() -> None:
    greeting = dialogue(SUBMISSION).exchanges[2]
    assert greeting.lines == ("250-postfix.example.com", "250-STARTTLS", "250 ENHANCEDSTATUSCODES")
    assert (greeting.code, greeting.enhanced, greeting.step) == (250, None, "greeting")
    assert greeting.source == "RFC 5321, section 4.1.1.1"


def test_each_exchange_knows_its_step() -> None:
    steps = [exchange.step for exchange in dialogue(SUBMISSION).exchanges]
    assert steps == [
        *["greeting"] * 3,
        *["tls"] * 2,
        *["greeting"] * 2,
        *["auth"] * 2,
        *["envelope"] * 4,
        *["data"] * 5,
        *["quit"] * 2,
    ]


def test_a_reply_is_explained_by_its_code_and_by_its_enhanced_code() -> None:
    refused = dialogue("C RCPT TO:<x@example.com>\nS 550 5.1.1 no such user").exchanges[-1]
    assert (refused.code, refused.enhanced) == (550, "5.1.1")
    assert "there is no such mailbox" in refused.meaning
    assert "permanent failure" in refused.meaning
    assert refused.source == "RFC 5321, section 4.2.3; RFC 3463, section 3.2"


def test_the_220_after_starttls_is_not_the_greeting() -> None:
    ready = dialogue(SUBMISSION).exchanges[4]
    assert ready.meaning == "ready to start TLS"
    assert ready.source.startswith("RFC 3207, section 4")


def test_replies_find_their_commands_when_the_client_did_not_wait() -> None:
    """RFC 2920: Postfix's own client says MAIL, RCPT and DATA at once, and QUIT with the message."""
    pipelined = """\
S 220 hello
C MAIL FROM:<a@example.com>
C RCPT TO:<b@example.com>
C DATA
S 250 2.1.0 Ok
S 550 5.1.1 no
S 354 go on
C .
C QUIT
S 554 5.5.1 no valid recipients
S 221 2.0.0 Bye"""
    replies = [exchange for exchange in dialogue(pipelined).exchanges if exchange.speaker == "server"]
    assert [reply.step for reply in replies] == ["greeting", "envelope", "envelope", "data", "data", "quit"]


def test_the_message_is_one_exchange_and_nothing_in_it_is_taken_for_a_command() -> None:
    message = next(e for e in dialogue(SUBMISSION).exchanges if e.source == "RFC 5322, section 2.1")
    assert message.lines == ("Subject: S 250", "", "AUTH PLAIN is how it is done")


def test_a_message_that_was_not_recorded_is_taken_from_elsewhere() -> None:
    text = "S 220 hi\nC DATA\nS 354 go\nC .\nS 250 2.0.0 Ok"
    without = [exchange.lines for exchange in dialogue(text).exchanges]
    with_it = [exchange.lines for exchange in dialogue(text, message=["A: b", "", "text"]).exchanges]
    assert with_it == [*without[:3], ("A: b", "", "text"), *without[3:]]


def test_a_long_body_is_shortened_and_the_rest_is_counted() -> None:
    shown = shorten(["Subject: long", "", *["x" * 8] * (BODY_LINES + 50)])
    assert shown[:3] == ("Subject: long", "", "xxxxxxxx")
    assert len(shown) == 2 + BODY_LINES + 1
    assert shown[-1] == "[… 50 more lines, 500 bytes]"


def test_a_dialogue_that_breaks_off_is_shown_as_far_as_it_went() -> None:
    for count in range(len(said(SUBMISSION))):
        part = annotate(said(SUBMISSION)[:count], client="c", server="s")
        assert sum(len(exchange.lines) for exchange in part.exchanges) == count


def test_what_is_no_reply_is_said_to_be_none() -> None:
    odd = dialogue("S HTTP/1.1 400 Bad Request").exchanges[0]
    assert odd.code is None
    assert odd.meaning == "not a valid SMTP reply"


def test_the_document_has_everything() -> None:
    document = dialogue(SUBMISSION, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")).json()
    assert document["tls"] == {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}
    assert document["exchanges"][0] == {
        "from": "server",
        "lines": ["220 postfix.example.com ESMTP Postfix"],
        "code": 220,
        "enhanced": None,
        "meaning": "the service is ready",
        "source": "RFC 5321, section 4.2.3",
        "step": "greeting",
        "milliseconds": 0.0,
    }


# ── credentials ────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=8)


def shown(found: Dialogue) -> str:
    return "\n".join(line for exchange in found.exchanges for line in exchange.lines) + json.dumps(found.json())


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@given(WORDS, WORDS)
def test_credentials_of_plain_are_never_seen(user: str, password: str) -> None:
    token = encoded(f"\0{user}-user\0{password}-word")
    for auth in (f"C AUTH PLAIN {token}", f"C auth  plain  {token}", f"C AUTH PLAIN\nS 334 \nC {token}"):
        text = shown(dialogue(f"S 220 hi\n{auth}\nS 535 5.7.8 no: {token} {password}-word"))
        assert token not in text
        assert f"{password}-word" not in text
        assert BLOT in text


@given(WORDS, WORDS)
def test_credentials_of_login_are_never_seen(user: str, password: str) -> None:
    name, word = encoded(f"{user}-user"), encoded(f"{password}-word")
    for auth in (f"C AUTH LOGIN {name}", f"C AUTH LOGIN\nS 334 VXNlcm5hbWU6\nC {name}"):
        text = shown(dialogue(f"S 220 hi\n{auth}\nS 334 UGFzc3dvcmQ6\nC {word}\nS 500 5.5.2 what is {word}?"))
        assert name not in text
        assert word not in text


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_every_answer_to_a_334_is_blotted_out(answers: list[str]) -> None:
    turns = "\n".join(f"S 334 next\nC {answer}-answer" for answer in answers)
    text = shown(dialogue(f"S 220 hi\nC AUTH SCRAM-SHA-256\n{turns}\nS 235 2.7.0 Ok"))
    for answer in answers:
        assert f"{answer}-answer" not in text


def test_what_is_blotted_out_already_stays_so() -> None:
    text = f"S 220 hi\nC AUTH PLAIN {BLOT}\nS 235 2.7.0 Ok"
    assert dialogue(text).exchanges[1] == Exchange(
        "client",
        (f"AUTH PLAIN {BLOT}",),
        "authenticates with the mechanism PLAIN",
        "RFC 4954, section 4; RFC 4616",
        "auth",
        milliseconds=1.0,
    )
