"""The pure parts of a load: its mails, and the account of their outcomes."""

from __future__ import annotations

import email
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.cli.load import live, verdict
from mailstack.errors import CheckFailed, DeadlinePassed, HostError, InputError, Interrupted
from mailstack.load.arrivals import parse_saved
from mailstack.load.ledger import Observations, Outcome, Percentiles, SentMail, nearest_rank, queue_id, settle
from mailstack.load.performance import LoadProgress
from mailstack.load.plan import END, LARGEST, Mails, Plan, body

JSON = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
BOXES = ("a@example.com", "b@example.com")


def posted(number: int, code: int = 250, reply: str = "", box: str = "") -> SentMail:
    """Return a mail whose submission began at second 100 + number and was answered a tenth of a second later."""
    recipient = box or BOXES[number % 2]
    words = reply or (f"2.0.0 Ok: queued as {number:010X}" if code == 250 else "5.3.4 Too large")
    return SentMail(f"<{number}@example.com>", recipient, 100.0 + number, 100.1 + number, code, words)


def seen(*copies: int, saved: bool = True, **more: dict[tuple[str, str], str]) -> Observations:
    """Return mails by number, as often as they are in their mailbox."""
    boxes: dict[str, dict[str, int]] = {box: {} for box in BOXES}
    for number, count in enumerate(copies):
        boxes[BOXES[number % 2]][f"<{number}@example.com>"] = count
    times = {f"<{n}@example.com>": 100.3 + n for n, count in enumerate(copies) if count} if saved else {}
    return Observations(times, boxes, more.get("waiting", {}))


def outcome(
    mails: list[SentMail], what: Observations, *, interrupted: bool = False, trouble: tuple[str, ...] = ()
) -> Outcome:
    return settle("lab", Plan(), mails, what, connected=8, ended=200.0, interrupted=interrupted, trouble=trouble)


def test_mails_that_are_there_once_are_delivered_and_nothing_else() -> None:
    found = outcome([posted(n) for n in range(4)], seen(1, 1, 1, 1))
    assert (found.delivered, found.lost, found.doubled, found.waiting, found.refused) == (4, (), {}, {}, {})
    assert verdict(found) is None


def test_a_mail_that_was_taken_and_is_nowhere_is_lost() -> None:
    found = outcome([posted(n) for n in range(4)], seen(1, 1, 0, 1))
    assert found.lost == ("<2@example.com>",) and found.delivered == 3
    assert isinstance(verdict(found), CheckFailed)


def test_a_mail_in_another_s_mailbox_is_lost_all_the_same() -> None:
    found = outcome([posted(0, box=BOXES[1])], seen(1))
    assert found.lost == ("<0@example.com>",)


def test_a_mail_that_is_there_twice_is_doubled_and_delivered() -> None:
    found = outcome([posted(n) for n in range(3)], seen(1, 2, 1))
    assert found.doubled == {"<1@example.com>": 2} and found.delivered == 3
    assert isinstance(verdict(found), CheckFailed)


def test_copies_in_two_mailboxes_are_two() -> None:
    boxes = {BOXES[0]: {"<0@example.com>": 1}, BOXES[1]: {"<0@example.com>": 1}}
    assert outcome([posted(0)], Observations({}, boxes)).doubled == {"<0@example.com>": 2}


def test_a_mail_in_the_queue_waits_with_its_reason_and_is_not_lost() -> None:
    mails = [posted(n) for n in range(3)]
    places = {(queue_id(mails[1].reply), mails[1].recipient): "Connection refused"}
    found = outcome(mails, seen(1, 0, 1, waiting=places))
    assert found.waiting == {"Connection refused": 1} and found.lost == ()
    assert isinstance(verdict(found), DeadlinePassed)


def test_a_queue_id_that_somebody_else_has_does_not_make_a_lost_mail_wait() -> None:
    mails = [posted(0)]
    found = outcome(mails, seen(0, waiting={(queue_id(mails[0].reply), "other@example.com"): "…"}))
    assert found.lost == ("<0@example.com>",)


def test_refused_mails_are_counted_by_their_reply_and_never_lost() -> None:
    mails = [posted(0), posted(1, 552), posted(2, 552), posted(3, 0, "the connection was lost: …")]
    found = outcome(mails, seen(1, 0, 0, 0))
    assert found.refused == {"552 5.3.4 Too large": 2, "the connection was lost: …": 1}
    assert len(found.accepted) == 1 and found.lost == ()
    assert isinstance(verdict(found), CheckFailed)


def test_mailboxes_that_could_not_be_read_lose_nothing_but_are_told() -> None:
    found = outcome([posted(0), posted(1)], Observations({}, {BOXES[0]: {"<0@example.com>": 1}}), trouble=("no IMAP",))
    assert (found.delivered, found.unseen, found.lost) == (1, 1, ())
    assert isinstance(verdict(found), HostError)


def test_what_may_be_in_a_queue_that_could_not_be_looked_into_is_not_lost() -> None:
    boxes = {BOXES[0]: {"<0@example.com>": 1}, BOXES[1]: dict[str, int]()}
    found = outcome([posted(0), posted(1)], Observations({}, boxes, None))
    assert (found.delivered, found.unseen, found.lost) == (1, 1, ())


def test_an_interrupted_load_ends_as_one_whatever_it_counted() -> None:
    assert isinstance(verdict(outcome([posted(0)], seen(0), interrupted=True)), Interrupted)


def test_rates_and_latencies_are_of_what_was_measured() -> None:
    found = outcome([posted(n) for n in range(10)], seen(*[1] * 10))
    assert found.sent_per_second == pytest.approx(10 / 9.1) and found.delivered_per_second == pytest.approx(10 / 9.3)
    assert found.seconds == pytest.approx(9.3)
    assert found.submission and found.submission.p99 == pytest.approx(100)
    assert found.delivery and found.delivery.p50 == pytest.approx(300)


def test_without_log_lines_there_is_no_delivery_latency() -> None:
    found = outcome([posted(0)], seen(1, saved=False))
    assert found.delivery is None and found.json()["delivery_milliseconds"] is None and found.delivered == 1


def test_a_load_without_any_mail_has_an_outcome() -> None:
    found = outcome([], seen())
    assert found.submission is None and found.sent_per_second == 0 and json.dumps(found.json())


@given(st.lists(st.sampled_from(["there", "twice", "lost", "waits", "refused", "unseen"]), max_size=40))
def test_every_mail_is_in_one_column(fates: list[str]) -> None:
    mails, copies, waiting = [], dict[str, dict[str, int]](), dict[tuple[str, str], str]()
    for number, fate in enumerate(fates):
        each = posted(number, 552 if fate == "refused" else 250, box=f"{number}@example.com")
        mails.append(each)
        if fate != "unseen":
            copies[each.recipient] = (
                {each.message_id: {"there": 1, "twice": 2}[fate]} if fate in ("there", "twice") else {}
            )
        if fate == "waits":
            waiting[queue_id(each.reply), each.recipient] = ""
    found = outcome(mails, Observations({}, copies, waiting))
    assert found.delivered == fates.count("there") + fates.count("twice")
    assert len(found.doubled) == fates.count("twice")
    assert len(found.lost) == fates.count("lost")
    assert sum(found.waiting.values()) == fates.count("waits")
    assert sum(found.refused.values()) == fates.count("refused")
    assert found.unseen == fates.count("unseen")


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_so_many_are_not_above(values: list[float], percent: float) -> None:
    ordered = sorted(values)
    found = nearest_rank(ordered, percent)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= percent / 100 * len(ordered) * (1 - 1e-9)
    assert sum(value < found for value in ordered) < percent / 100 * len(ordered) or found == ordered[0]


def test_percentiles_of_a_hundred_values_are_those_in_their_places() -> None:
    found = Percentiles.of(n / 1000 for n in range(1, 101))
    assert found is not None
    assert [round(each, 6) for each in (found.p50, found.p95, found.p99, found.maximum)] == [50, 95, 99, 100]


@given(st.integers(2, 5000))
def test_a_body_is_lines_of_text_as_long_as_asked(size: int) -> None:
    text = body(size)
    assert len(text) == size and text.endswith(b"\r\n")
    lines = text.split(b"\r\n")
    assert all(
        len(line) <= 78 and not line.startswith(b".") and b"\r" not in line and b"\n" not in line for line in lines
    )


@pytest.mark.parametrize("size", [1024, 2048, 102400])
def test_a_mail_is_as_large_as_planned_and_says_who_it_is(size: int) -> None:
    mails = Mails("5c0ffee5", BOXES, size)
    for number in (0, 9, 10, 12345):
        mail = mails.mail(number, BOXES[0])
        data = b"".join(mail.data)
        assert mail.size == size and data.endswith(b"\r\n" + END)
        read = email.message_from_bytes(data)
        assert read["Message-ID"] == mail.message_id and read["To"] == mail.recipient and read["Date"]


def test_the_mails_of_a_load_have_names_of_their_own_and_are_spread_evenly() -> None:
    one, other = Mails("1", BOXES, 1024), Mails("2", BOXES, 1024)
    made = [each.mail(number, BOXES[0]) for each in (one, other) for number in range(10)]
    assert len({mail.message_id for mail in made}) == 20
    assert sorted(mail.recipient for mail in made) == [BOXES[0]] * 10 + [BOXES[1]] * 10


def test_a_rate_says_when_each_mail_is_due() -> None:
    assert [Plan(rate=4.0).due(number) for number in range(3)] == [0, 0.25, 0.5]
    assert set(map(Plan().due, range(3))) == {0}


def test_a_load_has_an_end_and_a_size_that_fits_into_memory() -> None:
    with pytest.raises(InputError, match="needs a limit"):
        Plan(messages=None, seconds=None)
    with pytest.raises(InputError, match="100M"):
        Plan(size=LARGEST + 1)


def test_the_document_has_the_keys_that_are_written_down() -> None:
    block = re.search(r"## `mailstack load --json`\n\n```json\n(.*?)```", JSON, re.DOTALL)
    assert block
    written = json.loads(block[1])
    mails = [posted(0), posted(1), posted(2, 552), posted(3), posted(4)]
    places = {(queue_id(mails[3].reply), mails[3].recipient): "Connection refused"}
    found = outcome(mails, seen(2, 0, 0, 0, 1, waiting=places)).json()
    assert list(found) == list(written)
    for name in ("refusals", "waits", "lost_mails", "doubled_mails"):
        assert list(found[name][0]) == list(written[name][0])
    for name in ("messages_per_second", "submission_milliseconds", "delivery_milliseconds"):
        assert list(found[name]) == list(written[name])
    assert written["messages"] == sum(written[name] for name in ("delivered", "lost", "waiting", "unseen"))


@pytest.mark.parametrize(
    ("own", "seconds"),
    [
        (b"2026-11-24 00:32:25.173135 ", 25.173135),
        (b"2026-11-24 01:32:25.173135 ", 25.25),  # another time zone
        (b"", 25.25),
        (b"Nov 24 00:32:25 ", 25.25),
    ],
    ids=["dovecot-s", "another-zone", "none", "another-form"],
)
def test_a_mail_was_saved_when_dovecot_says_so_or_else_the_engine(own: bytes, seconds: float) -> None:
    before = b"2026-11-24T00:32:25.250000123Z " + own + b"lmtp(bob@example.com)<15><BhsP>: Info: "
    begun = datetime(2026, 11, 24, 0, 32, tzinfo=UTC).timestamp()
    found = parse_saved(before + b"msgid=<1@example.com>: saved mail to INBOX")
    assert found and found[0] == "<1@example.com>" and found[1] - begun == pytest.approx(seconds)
    assert parse_saved(before + b"msgid=<1@example.com>: save failed to INBOX: quota exceeded") is None


def test_the_queue_id_of_a_reply_is_found() -> None:
    assert queue_id("2.0.0 Ok: queued as 23F3116C30F") == "23F3116C30F"
    assert queue_id("2.0.0 Ok") == "" and queue_id("queued as ") == ""


def test_the_live_line_has_what_one_wants_to_see_and_fits_a_terminal() -> None:
    assert live(LoadProgress(2.4, 1234, 1200, 351.3, 340.0)) == "sent 1,234 (351/s) · delivered 1,200 (340/s) · 2 s"
    assert len(live(LoadProgress(86400.0, 99_999_999, 99_999_999, 9999.0, 9999.0))) < 78
