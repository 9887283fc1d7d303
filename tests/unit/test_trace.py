"""Log lines are parsed and assembled into journeys, whatever program wrote them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.actions import tracing
from mailstack.trace import collect, events
from mailstack.trace.journey import Journey
from mailstack.trace.lines import parse

NOW = datetime(2026, 11, 23, 12).timestamp()


def traced(log: str, query: str) -> list[Journey]:
    """Return the journeys in a log that a query finds."""

    def read() -> Iterator[tuple[str, str]]:
        return (("", line) for line in log.splitlines())

    return list(tracing.traced(read, query).journeys)


@pytest.mark.parametrize(
    ("raw", "host", "program", "process"),
    [
        ("Nov 23 09:08:07 mx1 postfix/smtpd[12]: 6A1B2C3D4E: client=x[192.0.2.1]", "mx1", "postfix/smtpd", 12),
        ("Nov  3 09:08:07 mx1 postfix/qmgr[7]: 6A1B2C3D4E: removed", "mx1", "postfix/qmgr", 7),
        ("2026-11-23T09:08:07.654321+01:00 mx1 postfix/smtpd[12]: x", "mx1", "postfix/smtpd", 12),
        ("2026-11-23T09:08:07.654321987Z Nov 23 09:08:07 mx1 postfix/smtpd[12]: x", "mx1", "postfix/smtpd", 12),
        ("postfix-1  | Nov 23 09:08:07 mx1 postfix/smtpd[12]: x", "postfix", "postfix/smtpd", 12),
        ("Nov 23 09:08:07 mx1 dovecot: lmtp(bob)<1><s>: msgid=<a@b>: saved mail to INBOX", "mx1", "dovecot", None),
        ("2026-11-23 09:08:07.1 lmtp(bob)<1><s>: Info: msgid=<a@b>: saved mail to INBOX", "dovecot", "dovecot", None),
        ("Nov 23 09:08:07 lmtp(bob)<1><s>: Info: msgid=<a@b>: saved mail to INBOX", "dovecot", "dovecot", None),
        ("Nov 23 09:08:07 mx1 postfix-out/smtp[12]: x", "mx1", "postfix-out/smtp", 12),
        ("dovecot | 2026-11-23T09:08:07.1Z 2026-11-23 09:08:07.1 lmtp(1): Info: Connect", "dovecot", "dovecot", None),
    ],
)
def test_the_forms_of_log_lines_are_known(raw: str, host: str, program: str, process: int | None) -> None:
    line = parse(raw, now=NOW)
    assert (line.host, line.program, line.process) == (host, program, process)
    assert line.at is not None and line.text


@pytest.mark.parametrize(
    ("raw", "year"), [("Nov 23 09:08:07 a b/c[1]: x", 2026), ("Dec 31 09:08:07 a b/c[1]: x", 2025)]
)
def test_a_time_without_a_year_is_the_latest_that_has_been(raw: str, year: int) -> None:
    at = parse(raw, now=NOW).at
    assert at is not None and datetime.fromtimestamp(at).year == year


def test_the_29th_of_february_is_one_of_a_leap_year() -> None:
    at = parse("Feb 29 09:08:07 a b/c[1]: x", now=NOW).at
    assert at is not None and datetime.fromtimestamp(at).year == 2024


def test_the_engine_s_time_is_preferred_for_it_is_finer() -> None:
    at = parse("2026-11-23T09:08:07.250000000Z Nov 23 09:08:07 a b/c[1]: x", now=NOW).at
    assert at is not None and at % 1 == 0.25


@given(st.text(max_size=200), st.sampled_from(["", "Nov 23 09:08:07 h postfix/smtp[1]: 6A1B2C3D4E: ", "2026-11-23 "]))
def test_no_line_whatever_it_says_stops_the_reading(text: str, head: str) -> None:
    events.parse_event(parse(head + text, now=NOW))


@given(st.lists(st.text(alphabet="abcdef0123456789<>@:,=[]() ", max_size=80), max_size=20))
def test_no_log_whatever_it_says_stops_a_trace(texts: list[str]) -> None:
    log = "\n".join(f"Nov 23 09:08:07 h postfix/smtp[1]: 6A1B2C3D4E: {text}" for text in texts)
    for journey in traced(log, "6A1B2C3D4E"):
        assert journey.sentence() and journey.json()


ONE = """\
Nov 23 09:00:00 mx postfix/smtpd[1]: connect from a.example[192.0.2.1]
Nov 23 09:00:00 mx postfix/smtpd[1]: AAAAAA1111: client=a.example[192.0.2.1]
Nov 23 09:00:00 mx postfix/cleanup[2]: AAAAAA1111: message-id=<one@a.example>
Nov 23 09:00:00 mx postfix/qmgr[3]: AAAAAA1111: from=<a@a.example>, size=1, nrcpt=1 (queue active)
Nov 23 09:00:01 mx postfix/smtp[4]: AAAAAA1111: to=<b@b.example>, relay=mail.b.example[192.0.2.2]:25, delay=1, \
delays=0.1/0.2/0.3/0.4, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4ZBCDFGHJKL)
Nov 23 09:00:01 mx postfix/qmgr[3]: AAAAAA1111: removed
"""


def another(number: int) -> str:
    """Return the same for another message."""
    ids = {"AAAAAA1111": f"{number:010X}", "4ZBCDFGHJKL": f"F{number:010X}", "one@": f"n{number}@"}
    text = ONE
    for old, new in ids.items():
        text = text.replace(old, new)
    return text


def test_a_message_that_leaves_for_a_host_without_logs_is_handed_over() -> None:
    (journey,) = traced(ONE, "<one@a.example>")
    assert journey.sentence() == "handed over to mail.b.example[192.0.2.2]:25 for b@b.example"
    assert journey.missing == () and journey.arrived
    assert journey.events[-2].delays == (0.1, 0.2, 0.3, 0.4)


def test_a_queue_id_that_is_used_again_is_another_message() -> None:
    again = ONE.replace("one@", "two@").replace("b@b.example", "c@c.example")
    first, second = traced(ONE + again, "AAAAAA1111")
    assert (first.message_id, second.message_id) == ("one@a.example", "two@a.example")
    assert [each.message_id for each in traced(ONE + again, "two@a.example")] == ["two@a.example"]


def test_the_same_queue_id_at_another_host_is_another_station() -> None:
    other = ONE.replace(" mx ", " other ").replace("one@", "two@")
    assert len(traced(ONE + other, "AAAAAA1111")) == 2
    assert len(traced(ONE + other, "one@a.example")) == 1


def test_a_message_that_was_put_into_the_queue_anew_is_followed() -> None:
    log = """\
Nov 23 09:00:00 mx postfix/smtpd[1]: AAAAAA1111: client=a.example[192.0.2.1]
Nov 23 09:00:00 mx postfix/cleanup[2]: AAAAAA1111: message-id=<one@a.example>
Nov 23 09:00:00 mx postfix/qmgr[3]: AAAAAA1111: from=<a@a.example>, size=1, nrcpt=1 (queue active)
Nov 23 09:00:01 mx postfix/smtp[4]: AAAAAA1111: to=<b@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, \
status=deferred (connect to b.example[192.0.2.2]:25: Connection refused)
Nov 23 09:00:05 mx postfix/postsuper[5]: AAAAAA1111: requeued
Nov 23 09:00:06 mx postfix/pickup[6]: BBBBBB2222: uid=100 from=<a@a.example> orig_id=AAAAAA1111
Nov 23 09:00:06 mx postfix/cleanup[2]: BBBBBB2222: message-id=<one@a.example>
Nov 23 09:00:06 mx postfix/qmgr[3]: BBBBBB2222: from=<a@a.example>, size=1, nrcpt=1 (queue active)
Nov 23 09:00:06 mx postfix/lmtp[4]: BBBBBB2222: to=<b@b.example>, relay=d[192.0.2.9]:24, delay=0, delays=0/0/0/0, \
dsn=2.0.0, status=sent (250 2.0.0 <b@b.example> s Saved)
Nov 23 09:00:06 mx postfix/qmgr[3]: BBBBBB2222: removed
"""
    (journey,) = traced(log, "BBBBBB2222")
    assert journey.status == "delivered", journey.sentence()
    assert [hop.queue_id for hop in journey.hops] == ["AAAAAA1111", "BBBBBB2222"]


def test_a_content_filter_on_the_same_host_is_a_hop() -> None:
    log = ONE.replace("mail.b.example[192.0.2.2]:25", "127.0.0.1[127.0.0.1]:10024").replace(
        "250 2.0.0 Ok: queued as 4ZBCDFGHJKL",
        "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as BBBBBB2222",
    ) + ONE.replace("AAAAAA1111", "BBBBBB2222")
    (journey,) = traced(log, "one@a.example")
    assert journey.sentence().startswith("handed over to mail.b.example") and journey.missing == ()
    assert journey.outcomes[0].hops == 2


def test_the_line_of_a_later_attempt_that_is_lost_does_not_make_a_delivered_mail_wait() -> None:
    log = """\
Nov 23 09:00:00 mx postfix/pickup[1]: AAAAAA1111: uid=1000 from=<a@a.example>
Nov 23 09:00:00 mx postfix/cleanup[2]: AAAAAA1111: message-id=<one@a.example>
Nov 23 09:00:00 mx postfix/qmgr[3]: AAAAAA1111: from=<a@a.example>, size=1, nrcpt=1 (queue active)
Nov 23 09:00:01 mx postfix/smtp[4]: AAAAAA1111: to=<b@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, \
status=deferred (connect to b.example[192.0.2.2]:25: Connection refused)
Nov 23 09:00:31 mx postfix/qmgr[3]: AAAAAA1111: removed
Nov 23 09:00:31 b postfix/smtpd[1]: BBBBBB2222: client=mx[192.0.2.1]
Nov 23 09:00:31 b postfix/cleanup[2]: BBBBBB2222: message-id=<one@a.example>
Nov 23 09:00:31 b postfix/qmgr[3]: BBBBBB2222: from=<a@a.example>, size=1, nrcpt=1 (queue active)
Nov 23 09:00:31 b postfix/lmtp[4]: BBBBBB2222: to=<b@b.example>, relay=d[192.0.2.9]:24, delay=0, delays=0/0/0/0, \
dsn=2.0.0, status=sent (250 2.0.0 <b@b.example> s Saved)
Nov 23 09:00:31 b postfix/qmgr[3]: BBBBBB2222: removed
"""
    (journey,) = traced(log, "one@a.example")
    assert journey.status == "delivered" and journey.missing, journey.sentence()


def test_a_message_is_settled_without_its_first_lines_and_not_before_its_last() -> None:
    late = "".join(ONE.splitlines(keepends=True)[2:])
    (journey,) = traced(late, "AAAAAA1111")
    assert journey.settled and journey.missing
    (journey,) = traced(late.rpartition("Nov 23")[0], "AAAAAA1111")
    assert not journey.settled
    # It was passed on to a host whose lines are here, and that says nothing of it yet.
    near = ONE.replace("relay=mail.b.example", "relay=b") + "Nov 23 09:00:01 b postfix/smtpd[9]: connect from mx[x]\n"
    (journey,) = traced(near, "AAAAAA1111")
    assert not journey.settled and journey.unseen == ("4ZBCDFGHJKL",)


def test_an_expired_message_is_given_up() -> None:
    log = (
        ONE.rpartition("Nov 23 09:00:01 mx postfix/smtp[4]")[0]
        + """\
Nov 23 09:00:01 mx postfix/smtp[4]: AAAAAA1111: to=<b@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, \
status=deferred (connect to b.example[192.0.2.2]:25: Connection refused)
Nov 24 09:00:01 mx postfix/qmgr[3]: AAAAAA1111: from=<a@a.example>, status=expired, returned to sender
Nov 24 09:00:01 mx postfix/qmgr[3]: AAAAAA1111: removed
"""
    )
    (journey,) = traced(log, "one@a.example")
    assert journey.status == "bounced" and "Connection refused" in journey.sentence()


def test_a_refusal_without_a_queue_id_is_a_journey_of_its_own() -> None:
    log = """\
Nov 23 09:00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.example[192.0.2.1]: 554 5.7.1 <b@c.example>: Relay \
access denied; from=<a@a.example> to=<b@c.example> proto=ESMTP helo=<a.example>
"""
    (journey,) = traced(log, "b@c.example")
    assert journey.sentence() == "refused by mx for b@c.example: 554 5.7.1 <b@c.example>: Relay access denied"
    assert not journey.arrived and journey.failure


def test_dovecot_s_log_alone_tells_of_the_mailbox_and_says_what_is_missing() -> None:
    log = "Nov 23 09:00:00 mx dovecot: lmtp(bob)<1><s>: msgid=<one@a.example>: saved mail to INBOX\n"
    (journey,) = traced(log, "one@a.example")
    assert journey.status == "delivered" and journey.missing == ("everything before the mailbox",)
    assert not journey.settled


def test_a_text_finds_every_message_whose_lines_have_it() -> None:
    again = ONE.replace("one@", "two@").replace("AAAAAA1111", "CCCCCC3333")
    assert {each.message_id for each in traced(ONE + again, "B@B.example")} == {"one@a.example", "two@a.example"}
    assert traced(ONE, "nobody at all") == []


def test_what_a_sender_writes_into_a_message_id_is_no_queue_id() -> None:
    evil = ONE.replace("<one@a.example>", "<x: AAAAAA9999: removed queued as AAAAAA8888)>")
    (journey,) = traced(evil, "AAAAAA1111")
    assert journey.status == "handed-over"


def test_of_many_messages_only_the_newest_are_shown_and_that_there_are_more_is_said() -> None:
    log = "".join(another(n) for n in range(300))
    found = tracing.traced(lambda: (("", line) for line in log.splitlines()), "b@b.example")
    assert found.more and len(found.journeys) == collect.MESSAGES
    assert found.journeys[-1].message_id == "n299@a.example"


def test_memory_depends_on_the_message_and_not_on_the_length_of_the_log(tmp_path: Path) -> None:
    def peak(messages: int) -> int:
        path = tmp_path / f"{messages}.log"
        with path.open("w") as file:
            for n in range(messages):
                file.write(another(n))
        tracemalloc.start()
        try:
            with tracing.file_lines([path]) as read:
                (journey,) = tracing.traced(read, "n77@a.example").journeys
            assert journey.arrived
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is made once, such as compiled expressions
    assert peak(3000) < 2 * peak(300)
