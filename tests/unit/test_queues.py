"""The mails in a queue are read from Postfix's listing, shown in 80 columns, and waited for with its log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.actions import queues
from mailstack.actions.queues import CONDITIONS, Entry, Waiting, chosen, parsed
from mailstack.cli.queue import drawn, parse_words
from mailstack.errors import CommandFailed, EngineError, InputError
from mailstack.model import Deadline, Result

NOW = 1795469852.25
REFUSED = "connect to backend[172.27.0.4]:24: Connection refused"


def mail(queue_id: str = "2E42B16A2D5", name: str = "deferred", arrived: int = 1795469600, **more: Any) -> str:
    """Return a line of `postqueue -j` as Postfix 3.10 writes it."""
    recipients = more.pop("recipients", [{"address": "bob@example.com", "delay_reason": REFUSED}])
    return json.dumps(
        {
            "queue_name": name,
            "queue_id": queue_id,
            "arrival_time": arrived,
            "message_size": 344,
            "forced_expire": False,
            "sender": "student@example.com",
            "recipients": recipients,
            **more,
        }
    )


def entry(queue_id: str = "2E42B16A2D5", name: str = "deferred", service: str = "postfix", **more: Any) -> Entry:
    """Return a mail in a queue."""
    recipients = more.pop("recipients", (Waiting("bob@example.com", REFUSED),))
    return Entry(service, name, queue_id, NOW - 252, 344, "student@example.com", recipients, **more)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_listing_is_an_empty_queue() -> None:
    assert parsed("postfix", "") == []


def test_a_mail_has_its_reason_and_its_next_try() -> None:
    (found,) = parsed("postfix", f"{mail()}\n2E42B16A2D5 1795469864.0000000000\n")
    assert found == Entry(
        "postfix",
        "deferred",
        "2E42B16A2D5",
        1795469600.0,
        344,
        "student@example.com",
        (Waiting("bob@example.com", REFUSED),),
        1795469864.0,
    )


def test_mails_come_in_the_order_of_their_arrival() -> None:
    found = parsed("sender", "\n".join([mail("B", arrived=20), mail("C", arrived=30), mail("A", arrived=10)]))
    assert [each.queue_id for each in found] == ["A", "B", "C"]


def test_a_mail_that_moves_while_it_is_looked_for_is_there_once_as_it_was_last_seen() -> None:
    first, second = [mail("A"), mail("B", "active")], [mail("B", "deferred"), mail("C")]
    found = parsed("postfix", "\n".join([*first, *second]))
    assert [(each.queue_id, each.name) for each in found] == [("A", "deferred"), ("B", "deferred"), ("C", "deferred")]


@pytest.mark.parametrize(
    "result", [Result(0, mail() + "\n", ""), Result(69, "", "mail system is down"), Result(0, "", "")]
)
def test_a_listing_that_fails_or_is_cut_off_is_no_empty_queue(result: Result) -> None:
    class Broken:
        def execute(self, *_: Any) -> Result:
            return result

    engine: Any = Broken()
    with pytest.raises(CommandFailed, match=r"cannot be listed: (mail system is down|it was cut off)"):
        queues.entries(engine, "id", "postfix")


def test_a_listing_that_is_cut_off_once_is_asked_for_again() -> None:
    class Busy:
        def __init__(self) -> None:
            self.answers = [Result(0, "", ""), Result(-1, mail() + "\n", ""), Result(0, mail() + "\nend\n", "")]

        def execute(self, *_: Any) -> Result:
            return self.answers.pop(0)

    engine: Any = Busy()
    assert len(queues.entries(engine, "id", "postfix")) == 1


def test_only_a_deferred_mail_has_a_next_try_and_one_that_was_taken_up_meanwhile_has_none() -> None:
    listing = "\n".join([mail("A", "active"), mail("B"), "A 1795469864.0", "C 1795469864.0"])
    assert [each.next_try for each in parsed("postfix", listing)] == [None, None]


def test_a_mail_is_deferred_as_soon_as_a_reason_is_noted() -> None:
    assert entry().deferred
    assert entry(name="active").deferred
    assert not entry(name="active", recipients=(Waiting("bob@example.com"),)).deferred
    assert not entry(name="hold").deferred


def test_a_document_says_when_a_mail_came_and_when_it_is_tried() -> None:
    document = entry(next_try=NOW + 12).json(NOW)
    assert (document["age_seconds"], document["next_try_seconds"]) == (252.0, 12.0)
    assert document["arrived"] == "2026-11-23T21:33:20.250000+00:00"
    assert entry(next_try=NOW - 5).json(NOW)["next_try_seconds"] == 0
    assert entry().json(NOW)["next_try"] is None


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mails_are_chosen_by_their_ids_each_once() -> None:
    found = [entry("A"), entry("B"), entry("C")]
    assert chosen(found, ["C", "A", "C"]) == [found[2], found[0]]


@pytest.mark.parametrize("wanted", ["", "a", "ALL", "-", "--", "A\nB", "../A", "A B"])
def test_what_is_no_id_in_the_queue_is_refused_with_those_that_are(wanted: str) -> None:
    with pytest.raises(InputError) as refused:
        chosen([entry("A"), entry("B", service="sender")], [wanted])
    assert repr(wanted) in refused.value.message
    assert refused.value.remedy == "queue ids: A (postfix), B (sender)"


def test_of_many_ids_some_are_named() -> None:
    with pytest.raises(InputError) as refused:
        chosen([entry(f"{number:05X}") for number in range(30)], ["X"], "mailstack queue")
    assert refused.value.remedy.endswith("00013 (postfix), and 10 more: `mailstack queue`")


def test_an_id_that_both_services_have_is_refused_unless_one_is_named() -> None:
    with pytest.raises(InputError, match="postfix and sender have a mail A each"):
        chosen([entry("A"), entry("A", service="sender")], ["A"])


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ([], (None, "list", [])),
        (["sender"], ("sender", "list", [])),
        (["wait"], (None, "wait", [])),
        (["postfix", "hold", "A", "B"], ("postfix", "hold", ["A", "B"])),
        (["delete", "sender"], (None, "delete", ["sender"])),
    ],
)
def test_a_command_line_is_a_service_an_action_and_ids(words: list[str], meaning: Any) -> None:
    assert parse_words(words, ["sender", "postfix"]) == meaning


@pytest.mark.parametrize("words", [["dovecot"], ["postfix", "purge"], ["list", "A"], ["wait", "A"]])
def test_a_command_line_that_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        parse_words(words, ["sender", "postfix"])
    assert repr(words[-1]) in refused.value.message and refused.value.remedy


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_tells_what_waits_why_and_until_when() -> None:
    two = (Waiting("bob@example.com", REFUSED), Waiting("carol@example.org", "mailbox full"))
    assert drawn([entry("A", recipients=two, next_try=NOW + 12.4), entry("B", "hold")], NOW) == [
        "service  queue id  queue            age  bytes  next try",
        "────────────────────────────────────────────────────────",
        "postfix  A         deferred  4 min 12 s    344  in 12 s",
        "  student@example.com → bob@example.com",
        "    connect to backend[172.27.0.4]:24: Connection refused",
        "  student@example.com → carol@example.org",
        "    mailbox full",
        "postfix  B         hold      4 min 12 s    344  on release",
        "  student@example.com → bob@example.com",
        "    connect to backend[172.27.0.4]:24: Connection refused",
    ]


def test_many_recipients_of_one_reason_are_told_together_and_not_all() -> None:
    many = tuple(Waiting(f"user{number}@example.com", REFUSED) for number in range(100))
    shown = drawn([entry(recipients=many)], NOW)
    assert shown[-2].endswith("and 80 more") and shown[-1].strip() == REFUSED
    assert len(shown) < 12


texts = some.text(max_size=300)


@given(
    sender=texts,
    recipients=some.lists(some.tuples(texts, texts), max_size=3),
    age=some.floats(-1e3, 1e7),
    left=some.none() | some.floats(-1e3, 1e6),
    size=some.integers(0, 10**9),
)
def test_whatever_a_mail_says_the_table_has_80_columns_and_drives_no_terminal(
    sender: str, recipients: list[tuple[str, str]], age: float, left: float | None, size: int
) -> None:
    waiting = tuple(Waiting(*each) for each in recipients)
    next_try = None if left is None else NOW + left
    shown = drawn([Entry("postfix", "deferred", "4g8Zx16DfPz3Tq", NOW - age, size, sender, waiting, next_try)], NOW)
    assert all(len(line) <= 80 for line in shown)
    assert not any(character in line for line in shown for character in "\x1b\x07\n\r\u202e")


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Engine:
    """An engine with a given queue and log: each read of the queue returns the next of `looks`."""

    def __init__(self, looks: list[str], lines: list[tuple[str, str] | None]) -> None:
        self._looks = iter(looks)
        self._lines = lines
        self.looked = 0

    def execute(self, container: str, argv: list[str], **_: Any) -> Result:
        self.looked += 1
        return Result(0, f"{next(self._looks)}\nend\n", "")

    def follow(self, containers: Any, **_: Any) -> Iterator[tuple[str, str] | None]:
        yield from self._lines


def waited(until: str, looks: list[str], lines: list[str | None]) -> tuple[bool, int]:
    """Return whether a wait succeeded, and how often it read the queue."""
    engine: Any = Engine(looks, [None if line is None else ("postfix", line) for line in lines])
    met, _ = queues.wait(engine, {"postfix": "id"}, CONDITIONS[until], Deadline.after(5))
    return met, engine.looked


def removed(queue_id: str) -> str:
    return f"2026-11-23T21:33:35.1Z Nov 23 21:33:35 postfix postfix/qmgr[86]: {queue_id}: removed"


def test_what_is_so_already_is_not_waited_for() -> None:
    assert waited("empty", [""], []) == (True, 1)


def test_of_mails_that_leave_the_last_is_reason_to_look() -> None:
    listing = f"{mail('A')}\n{mail('B')}\n{mail('C')}\n"
    lines: list[str | None] = [removed("X"), removed("A"), "some other line", removed("C"), removed("B")]
    assert waited("empty", [listing, ""], lines) == (True, 2)


def test_a_mail_that_came_meanwhile_is_waited_for_too() -> None:
    assert waited("empty", [mail("A"), mail("B"), ""], [removed("A"), removed("B")]) == (True, 3)


def test_a_mail_in_maildrop_leaves_under_another_id() -> None:
    assert waited("empty", [mail("A", "maildrop"), ""], [removed("B")]) == (True, 2)


@pytest.mark.parametrize(
    ("until", "line", "name"),
    [
        ("deferred", "postfix/lmtp[9]: A: to=<b@c>, relay=none, dsn=4.4.1, status=deferred (refused)", "deferred"),
        ("deferred", "postfix/postsuper[9]: A: released from hold", "deferred"),
        ("held", "postfix/postsuper[9]: A: placed on hold", "hold"),
        ("held", "postfix/postsuper[9]: Placed on hold: 3 messages", "hold"),
        ("held", "postfix/cleanup[9]: A: hold: header Subject: x from local; from=<a@b> to=<c@d>", "hold"),
        ("held", "postfix/smtpd[9]: disconnect from unknown[172.27.0.4] ehlo=1 mail=1 rcpt=1 data=1 quit=1", "hold"),
    ],
)
def test_a_line_that_may_bring_it_is_reason_to_look(until: str, line: str, name: str) -> None:
    listing = mail("A", name)
    assert waited(until, ["", listing], ["postfix/qmgr[8]: Z: from=<a@b>, size=1, nrcpt=1", line]) == (True, 2)


def test_when_the_deadline_comes_a_last_look_decides() -> None:
    assert waited("empty", [mail("A"), ""], [None]) == (True, 2)
    assert waited("empty", [mail("A"), mail("A")], [None]) == (False, 2)


def test_when_nobody_is_left_to_log_a_last_look_tells_why() -> None:
    class Stopped(Engine):
        def execute(self, container: str, argv: list[str], **_: Any) -> Result:
            if self.looked:
                raise EngineError("container is not running")
            return super().execute(container, argv)

    engine: Any = Stopped([mail("A")], [])
    with pytest.raises(EngineError, match="not running"):
        queues.wait(engine, {"postfix": "id"}, CONDITIONS["empty"], Deadline.after(5))
