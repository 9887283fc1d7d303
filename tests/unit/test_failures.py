"""Each known failure is recognised in log lines of real servers, and no other; lines of success match none."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import click.testing
import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack import failures
from mailstack.cli.main import cli
from mailstack.errors import InputError
from tests.docker.faults.cases import CASES

ROOT = Path(__file__).parents[2]
# `id | line`, as logged in labs.
CAPTURED = [line.split(" | ", 1) for line in (ROOT / "tests" / "data" / "faults.txt").read_text().splitlines()]
JOURNEYS = sorted((ROOT / "tests" / "data" / "journeys").glob("*.json"))
PASSWORD = (
    "Nov 23 21:31:17 sender postfix/smtp[91]: C7FE416A6E0: to=<x@wrong.test>, relay=wrong.test[172.29.0.4]:587, "
    "delay=0.01, delays=0/0/0.01/0, dsn=4.7.8, status=deferred (SASL authentication failed; "
    "server wrong.test[172.29.0.4] said: 535 5.7.8 Error: authentication failed: (reason unavailable))"
)
# Of mails that arrived.
WELL = """\
Nov 23 21:31:17 sender postfix/smtp[91]: 99D5E16A6D1: to=<alice@example.com>, relay=postfix[172.29.0.4]:587, delay=0.02, delays=0/0/0.01/0.01, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 9E01F16A6CF)
Nov 23 21:31:17 sender postfix/smtp[91]: Verified TLS connection established to postfix[172.29.0.4]:587: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)
Nov 23 21:31:17 sender postfix/bounce[99]: 8C6BC16A6CF: sender non-delivery notification: 99D5E16A6D1
Nov 23 21:31:18 postfix postfix/submission/smtpd[19]: connect from unknown[172.29.0.3]
Nov 23 21:31:18 postfix postfix/submission/smtpd[19]: Anonymous TLS connection established from unknown[172.29.0.3]: TLSv1.3
Nov 23 21:31:18 postfix postfix/submission/smtpd[19]: 3008116A6F0: client=unknown[172.29.0.3], sasl_method=PLAIN, sasl_username=relay-5ae06b31
Nov 23 21:31:18 postfix postfix/cleanup[24]: 3008116A6F0: message-id=<20261123213118.23A8516A6F2@sender.example.com>
Nov 23 21:31:18 postfix postfix/qmgr[17]: 3008116A6F0: from=<>, size=2625, nrcpt=1 (queue active)
Nov 23 21:31:18 postfix postfix/submission/smtpd[19]: disconnect from unknown[172.29.0.3] ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8
Nov 23 21:31:18 postfix postfix/lmtp[25]: 3008116A6F0: to=<alice@example.com>, relay=backend[172.28.0.2]:24, delay=0.01, delays=0/0/0/0.01, dsn=2.0.0, status=sent (250 2.0.0 <alice@example.com> +TTgC6awBGsPAAAAkzG9Ng Saved)
Nov 23 21:31:18 postfix postfix/qmgr[17]: 3008116A6F0: removed
Nov 29 12:45:26 postfix postfix/lmtp[24]: 51FAA1745F6: to=<bob@example.com>, relay=postfix.example.com[/run/sockets/lmtp], delay=0.01, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 <bob@example.com> aUAvFGYeDGsNAAAAkzG9Ng Saved)
2026-11-29 12:45:03.338828 lmtp(14): Info: Disconnect from local: Logged out (state=READY)
2026-11-23 21:32:54.727912 imap-login: Info: Logged in: user=<student@example.com>, method=PLAIN, rip=192.168.0.1, lip=192.168.0.2, mpid=14, TLS, session=<EcI0VvhgsuDAqAAB>
2026-11-23 21:32:54.788117 lmtp(student@example.com)<15><IlbhLQaxBGsPAAAAkzG9Ng>: Info: msgid=<179546957471.3406.14439871052552090494@example.com>: saved mail to INBOX
2026-11-23 21:32:54.788792 lmtp(15): Info: Disconnect from 192.168.0.3: Logged out (state=READY)
Nov 23 21:32:58 sender postfix/qmgr[112]: B011216A7CE: skipped, still being delivered
""".splitlines()  # noqa: E501


@pytest.mark.parametrize(("id", "line"), CAPTURED, ids=[id for id, _ in CAPTURED])
def test_a_line_that_a_lab_logged_is_recognised_as_its_own_failure(id: str, line: str) -> None:
    found = failures.recognise(line)
    assert found is not None and found.id == id


def test_every_entry_has_lines_that_a_lab_logged() -> None:
    assert {id for id, _ in CAPTURED} == {fault.id for fault in failures.ALL}


@pytest.mark.parametrize("capture", JOURNEYS, ids=lambda path: path.stem)
def test_of_a_captured_journey_its_own_failure_is_recognised_and_where_all_went_well_none(capture: Path) -> None:
    log = next(capture.parent.glob(f"{capture.stem}.log*"))
    text = gzip.decompress(log.read_bytes()).decode() if log.suffix == ".gz" else log.read_text()
    told = {found.id for line in text.splitlines() if (found := failures.recognise(line))}
    document = json.loads(capture.read_text())
    if document["fault"]:
        assert document["fault"] in told
    elif all(each["status"] == "delivered" for each in document["messages"]):
        assert told == set()


def test_beside_the_captured_journeys_lies_nothing_but_their_logs_and_no_key() -> None:
    directory = ROOT / "tests" / "data" / "journeys"
    names = {path.stem for path in JOURNEYS}
    logs = {path.name.removesuffix(".gz").removesuffix(".log") for path in directory.glob("*.log*")}
    assert names == logs and len(list(directory.iterdir())) == 2 * len(names) >= 60
    for path in directory.iterdir():
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert b"PRIVATE KEY" not in data, path


@pytest.mark.parametrize("line", WELL)
def test_a_line_of_a_mail_that_arrived_is_no_failure(line: str) -> None:
    assert failures.recognise(line) is None
    assert not [fault.id for fault in failures.ALL if fault.pattern.search(line)]


def test_what_a_stranger_writes_into_a_message_id_is_no_failure() -> None:
    forged = "postfix/cleanup[24]: 3008116A6F0: message-id=<535 5.7.8 authentication failed@example.com>"
    assert failures.recognise(forged) is None
    assert failures.recognise(WELL[0].replace("Ok", "no longer 450 4.2.0 Greylisted")) is None
    assert failures.recognise(PASSWORD.replace("(reason", ", status=sent (reason")) is not None


@pytest.mark.parametrize(
    ("reply", "id"),
    [
        ("535 5.7.8 Error: authentication failed", "wrong-password"),
        ("535 Authentication credentials invalid", "wrong-password"),
        ("534-5.7.9 Application-specific password required.", "password-not-for-applications"),
        ("530 5.7.0 Must issue a STARTTLS command first", "starttls-required"),
        ("530-5.7.0 Authentication Required. For more information, go to", "login-required"),
        ("554 5.7.1 <bob@example.net>: Relay access denied", "relay-denied"),
        ("553 5.7.1 <b@example.com>: Sender address rejected: not owned by user a@example.com", "sender-not-owned"),
        ("552 5.3.4 Message size exceeds fixed limit", "too-large"),
        ("454 4.7.0 Temporary authentication failure: Connection lost", "authentication-unavailable"),
        ("452 4.3.1 Insufficient system storage", "no-space"),
        ("554 5.4.0 Error: too many hops", "too-many-hops"),
        ("Name service error for name=example.test type=MX: Host not found", "name-not-resolved"),
    ],
)  # fmt: skip
def test_a_bare_reply_is_recognised(reply: str, id: str) -> None:
    found = failures.recognise(reply)
    assert found is not None and found.id == id


def test_a_time_out_on_port_25_is_a_blocked_port_only_towards_the_world() -> None:
    for address, id in {
        "192.0.2.1": "port-25-blocked",
        "172.15.0.1": "port-25-blocked",
        "2001:db8::1": "port-25-blocked",
        "172.16.0.1": "connection-timed-out",
        "10.0.0.1": "connection-timed-out",
        "192.168.7.9": "connection-timed-out",
        "127.0.0.1": "connection-timed-out",
    }.items():
        found = failures.recognise(f"connect to mx.example[{address}]:25: Connection timed out")
        assert found is not None and found.id == id, address


@pytest.mark.parametrize(
    "reason",
    [
        "connect to backend[172.28.0.2]:24: Connection refused",
        "connect to mx.example.com[/run/sockets/lmtp]: No such file or directory",
        "connect to mx.example.com[private/dovecot-lmtp]: Permission denied",
        "connect to mx.example.com[/run/cyrus/socket/deliver]: No such file or directory",
        "connect to mx.example.com[/run/cyrus/socket/deliver]: Connection refused",
    ],
)
def test_lmtp_that_is_not_there_is_recognised_at_an_address_and_at_a_path(reason: str) -> None:
    line = (
        f"Nov 29 12:45:41 mx postfix/lmtp[25]: B581A174639: to=<b@example.com>, relay=none, status=deferred ({reason})"
    )
    found = failures.recognise(line)
    assert found is not None and found.id == "mailbox-server-down"


@given(some.text())
def test_recognising_never_fails(text: str) -> None:
    failures.recognise(text)
    failures.timestamp(text)


def test_every_entry_says_why_what_to_do_and_where_that_is_written() -> None:
    assert len(failures.ALL) == len({fault.id for fault in failures.ALL}) >= 24
    for fault in failures.ALL:
        assert re.fullmatch(r"[a-z0-9-]+", fault.id)
        assert fault.title and fault.cause and fault.remedy, fault.id
        assert re.search(r"RFC \d+|\(\d\)|README|Dovecot, “", fault.source), fault.id


def test_the_document_has_every_entry_and_what_it_shows_is_recognised_as_it() -> None:
    text = (ROOT / "docs" / "failures.md").read_text()
    rows = re.findall(r"^\| `([^`]*)` \| `([^`]*)` \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert [(id, cause, remedy) for id, _, cause, remedy in rows] == [
        (fault.id, fault.cause, fault.remedy) for fault in failures.ALL
    ]
    for id, seen, _, _ in rows:
        found = failures.recognise(seen)
        assert found is not None and found.id == id, seen


def test_each_failure_in_a_log_is_told_once_with_its_times_and_one_line() -> None:
    later = PASSWORD.replace("21:31:17", "21:40:00")
    (seen,) = failures.find_failures([WELL[0], PASSWORD, *WELL, later])
    assert (seen.failure.id, seen.count, seen.example) == ("wrong-password", 2, PASSWORD)
    assert (seen.first, seen.last) == ("Nov 23 21:31:17", "Nov 23 21:40:00")


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("Nov  3 21:31:17 sender postfix/smtp[91]: x", "Nov  3 21:31:17"),
        ("2026-11-23 21:32:54.727912 imap-login: x", "2026-11-23 21:32:54.727912"),
        ("sender | 2026-11-23T21:31:17.823491215Z Nov 23 21:31:17 sender x", "2026-11-23T21:31:17.823491215Z"),
        ("2026-11-23T21:31:17.823491+01:00 host postfix/smtp[1]: x", "2026-11-23T21:31:17.823491+01:00"),
        ("535 5.7.8 no", ""),
    ],
)
def test_a_line_s_time_is_told_as_it_is_written(line: str, written: str) -> None:
    assert failures.timestamp(line) == written


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────


def explain(*words: str, input: str | bytes | None = None) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli, ["explain", *words], input=input)


def test_a_known_text_is_explained_and_ends_with_0() -> None:
    result = explain("535", "5.7.8", "Error:", "authentication", "failed")
    assert result.exit_code == 0
    assert "wrong-password: the user name or the password is wrong" in result.output
    assert "sasl_passwd" in result.output and "RFC 4954" in result.output


def test_an_unknown_text_ends_with_1_and_its_codes_are_told() -> None:
    result = explain("452 4.5.3 Too many recipients")
    assert result.exit_code == 1
    assert "no known failure" in result.output
    assert "too little storage" in result.output and "too many recipients" in result.output


def test_standard_input_is_explained_line_by_line() -> None:
    result = explain("-", "--json", input=f"{PASSWORD}\n{WELL[0]}\n")
    document = json.loads(result.output)
    assert (result.exit_code, document["lines"]) == (0, 2)
    assert [each["id"] for each in document["failures"]] == ["wrong-password"]


def test_log_files_are_read_packed_or_not_and_several(tmp_path: Path) -> None:
    plain, packed = tmp_path / "mail.log", tmp_path / "mail.log.1.gz"
    plain.write_text(f"{WELL[0]}\n{PASSWORD}\n")
    packed.write_bytes(gzip.compress(f"{PASSWORD}\n{WELL[1]}\n".encode()))
    result = explain("--logs", str(packed), "--logs", str(plain), "--json")
    document = json.loads(result.output)
    assert (result.exit_code, document["lines"]) == (0, 4)
    (found,) = document["failures"]
    assert (found["id"], found["count"], found["first"]) == ("wrong-password", 2, "Nov 23 21:31:17")


def test_a_log_without_failures_is_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_text("\n".join(WELL))
    result = explain("--logs", str(path))
    assert result.exit_code == 0 and f"no known failures in {len(WELL)} lines" in result.output


def test_a_line_that_never_ends_and_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"\xff\x00" * 100_000 + b"\n" + PASSWORD.encode() + b"\x1b[2J")
    result = explain("--logs", str(path))
    assert result.exit_code == 0 and "1 known failure" in result.output
    assert "\x1b" not in result.output and all(len(line) <= 80 for line in result.output.splitlines())


@pytest.mark.parametrize("broken", ["missing", "directory", "torn"])
def test_a_log_that_cannot_be_read_is_told(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "mail.log.gz"
    if broken == "directory":
        path.mkdir()
    elif broken == "torn":
        path.write_bytes(gzip.compress(PASSWORD.encode() * 100)[:40])
    result = explain("--logs", str(path))
    assert isinstance(result.exception, InputError) and str(path) in result.exception.message


def test_two_questions_at_once_are_refused(tmp_path: Path) -> None:
    assert isinstance(explain("535", "--list").exception, InputError)
    assert isinstance(explain("--list", "--logs", str(tmp_path)).exception, InputError)


def test_the_list_names_every_entry() -> None:
    shown = explain("--list").output
    assert all(fault.id in shown for fault in failures.ALL)
    assert [each["id"] for each in json.loads(explain("--list", "--json").output)["failures"]] == [
        fault.id for fault in failures.ALL
    ]


def test_every_known_failure_has_a_way_to_cause_it() -> None:
    assert sorted(case.fault for case in CASES) == sorted(fault.id for fault in failures.ALL)
