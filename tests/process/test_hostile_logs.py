"""Hostile logs are read to the end, without a traceback, and answered in valid JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import click.testing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mailstack import failures
from mailstack.cli.main import cli
from mailstack.errors import InputError, MailstackError
from mailstack.message.fields import moment
from mailstack.model import Json
from mailstack.trace import collect, events, lines
from tests.terminals import answers

MX = "Nov 29 10:00:00 mx postfix"
ID = "A009F17604B"
WHOLE = (
    f"{MX}/smtpd[12]: {ID}: client=c[192.0.2.1]\n"
    f"{MX}/cleanup[13]: {ID}: message-id=<1@example.com>\n"
    f"{MX}/qmgr[14]: {ID}: from=<a@example.com>, size=365, nrcpt=1 (queue active)\n"
    f"{MX}/smtp[15]: {ID}: to=<b@example.com>, relay=r[192.0.2.2]:25, delay=1, delays=0.1/0.2/0.3/0.4, dsn=2.0.0, "
    "status=sent (250 2.0.0 Ok: queued as B009F17604B)\n"
    f"{MX}/qmgr[14]: {ID}: removed\n"
)
DIGITS = "9" * 5000


def _no_constant(text: str) -> NoReturn:
    raise AssertionError(f"{text} is no JSON (RFC 8259, section 6)")


def answer(log: bytes, tmp: Path, *words: str) -> Json | None:
    """Return the answer of `mailstack COMMAND --logs FILE --json` on a log; None if it finds nothing."""
    file = tmp / "mail.log"
    file.write_bytes(log)
    begun = time.process_time()
    done = click.testing.CliRunner().invoke(cli, [words[0], "--logs", str(file), *words[1:], "--json"])
    assert time.process_time() - begun < 20
    if isinstance(done.exception, MailstackError):
        return None
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    found: Json = json.loads(done.stdout, parse_constant=_no_constant)
    text = click.testing.CliRunner().invoke(cli, [words[0], "--logs", str(file), *words[1:]])
    assert text.exception is None or isinstance(text.exception, SystemExit), text.exc_info
    return found


CHANGES = {
    "a process of 5,000 digits": ("[14]", f"[{DIGITS}]"),
    "a size of 5,000 digits": ("size=365", f"size={DIGITS}"),
    "recipients of 4,000 digits": ("nrcpt=1 ", f"nrcpt={DIGITS[:4000]} "),
    "a negative size": ("size=365", "size=-1"),
    "recipients in exponents": ("nrcpt=1 ", "nrcpt=1e999 "),
    "a delay that is no number": ("delay=1,", "delay=nan,"),
    "a delay without an end": ("delay=1,", "delay=inf,"),
    "a delay of 400 digits": ("delay=1,", f"delay={DIGITS[:400]},"),
    "a delay with two points": ("delay=1,", "delay=1.2.3,"),
    "a delay in exponents": ("delay=1,", "delay=1e999,"),
    "a negative delay": ("delay=1,", "delay=-5,"),
    "delays without an end": ("0.1/0.2/0.3/0.4", "inf/nan/1e999/-1"),
    "delays of 400 digits": ("0.1/0.2/0.3/0.4", "/".join([DIGITS[:400]] * 4)),
    "two delays": ("0.1/0.2/0.3/0.4", "1/2"),
    "delays of slashes": ("0.1/0.2/0.3/0.4", "////"),
    "a leap second": ("Nov 29 10:00:00", "Dec 31 23:59:60"),
    "February 29": ("Nov 29", "Feb 29"),
    "February 30": ("Nov 29", "Feb 30"),
    "day 99": ("Nov 29 10:00:00", "Nov 99 99:99:99"),
    "the year 9999": ("Nov 29 10:00:00", "9999-12-31T23:59:59.999999-12:00"),
    "the year 9999, here": ("Nov 29 10:00:00", "9999-12-31T23:59:59+00:00"),
    "the year 1": ("Nov 29 10:00:00", "0001-01-01T00:00:00+14:00"),
    "the year 0": ("Nov 29 10:00:00", "0000-01-01T00:00:00Z"),
    "a zone of 99 hours": ("Nov 29 10:00:00", "2026-11-29T10:00:00+99:99"),
    "a leap second with a zone": ("Nov 29 10:00:00", "2016-12-31T23:59:60Z"),
    "zero bytes": ("mx", "m\0x"),
    "an id of 5,000 letters": (ID, "A" * 5000),
    "a message id of 60,000 letters": ("1@example.com", "x" * 60_000),
    "Arabic digits": ("size=365, nrcpt=1", "size=٣٦٥, nrcpt=١"),
    "a reply of Arabic digits": ("(250", "(2٥٠"),
    "a control sequence": ("a@example.com", "\x1b]0;owned\x07@example.com"),
    "half a character": ("a@example.com", "\udcff@example.com"),
}


@pytest.mark.parametrize("words", [("trace",), ("trace", "--last"), ("trace", "example"), ("explain",)], ids=" ".join)
@pytest.mark.parametrize("change", CHANGES)
def test_a_number_or_a_date_of_any_size_is_no_reason_to_stop(
    change: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    log = WHOLE.replace(*CHANGES[change]).encode("utf-8", "surrogateescape")
    found = answer(log, tmp_path, *words)
    assert found is None or found.get("journeys") or "failures" in found


def test_what_is_left_of_a_log_with_a_wrong_number_is_told(tmp_path: Path) -> None:
    found = answer(WHOLE.replace("delay=1,", "delay=inf,").encode(), tmp_path, "trace", "--last")
    assert found and found["journeys"][0]["status"] == "handed-over"
    leap = lines.parse("2016-12-31T23:59:60Z mx postfix/qmgr[1]: x")
    assert leap.at == 1483228800 and lines.parse("Dec 31 23:59:60 mx postfix/qmgr[1]: x").at is not None


def test_a_chain_of_a_thousand_hops_is_followed(tmp_path: Path) -> None:
    ids = [f"{number:010X}" for number in range(1200)]
    log = "".join(
        f"{MX}/smtpd[12]: {each}: client=c[192.0.2.1]\n"
        f"{MX}/smtp[15]: {each}: to=<b@example.com>, relay=mx[192.0.2.2]:25, status=sent (250 Ok: queued as {after})\n"
        for each, after in pairwise(ids)
    )
    assert answer(log.encode(), tmp_path, "trace", ids[0])


@pytest.mark.parametrize(
    "unit",
    ["<", "(", " ", " (", "a(", "; from=<", " to=<", "said: ", "<a> ", "Trusted TLS connection established to a"],
)
@pytest.mark.parametrize(
    "head",
    [
        f"{MX}/smtp[12]: {ID}: to=<a@b>, relay=x, status=sent (",
        f"{MX}/smtpd[12]: NOQUEUE: reject: RCPT from a[1]: ",
        f"{MX}/smtp[12]: Trusted TLS connection established to ",
        "Nov 29 10:00:00 mx dovecot: lmtp(a@b)<1><s>: msgid=",
    ],
)
def test_a_line_is_read_in_a_time_that_grows_with_its_length(head: str, unit: str) -> None:
    def seconds(size: int) -> float:
        text = head + unit * (size // len(unit))
        begun = time.process_time()
        events.parse_event(lines.parse(text))
        events.tls_of(text)
        collect.names(text)
        collect.received_id(text)
        collect.attempted_id(text)
        failures.recognise(text)
        return time.process_time() - begun

    assert seconds(64_000) < 40 * max(seconds(4000), 0.01)  # 16 times as long; where it was 256 times, it was minutes


WORDS = some.sampled_from(
    [
        *WHOLE.replace(",", " , ").replace("=", " = ").split(" "),
        *(
            "nan",
            "inf",
            "1e999",
            "-1",
            "9" * 400,
            "9999-12-31T23:59:59Z ",
            "Feb 29 23:59:60 ",
            "\0",
            "\n",
            "<",
            ">",
            "(",
        ),
        *("dovecot: lmtp(a@b)<1><s>: msgid=<1@example.com>: ", "saved mail to INBOX", "NOQUEUE: reject: RCPT from "),
        *(
            f"{MX}/smtp[1]: {ID}: ",
            f"queued as {ID}",
            "status=",
            "delays=",
            ID,
            "1",
            "9999",
            "orig_id=",
            "uid=1 from=<",
        ),
    ]
)


@settings(max_examples=60, deadline=None)
@given(some.lists(WORDS | some.text(max_size=5), max_size=40), some.booleans())
def test_whatever_a_log_says_it_is_answered(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], spaced: bool
) -> None:
    log = WHOLE + (" " if spaced else "").join(words) + "\n" + WHOLE
    tmp = tmp_path_factory.mktemp("log")
    assert answer(log.encode("utf-8", "replace"), tmp, "trace", "example") is not None
    assert answer(log.encode("utf-8", "replace"), tmp, "explain") is not None


@settings(max_examples=40, deadline=None)
@given(data=some.binary(max_size=2000))
def test_whatever_the_bytes_of_a_log_are_it_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    tmp = tmp_path_factory.mktemp("log")
    assert answer(data + b"\n" + WHOLE.encode(), tmp, "trace", "--last")
    answer(data, tmp, "explain")


# ── what is no file ────────────────────────────────────────────────────────────────────────────────────────────────


def run(*words: str, stdin: str = os.devnull) -> subprocess.CompletedProcess[str]:
    """Run the command with a file as its standard input, for at most a minute."""
    with Path(stdin).open("rb") as file:
        command = [sys.executable, "-m", "mailstack", *words]
        return subprocess.run(command, stdin=file, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.process
def test_what_is_no_log_file_is_refused_at_once(tmp_path: Path) -> None:
    for each in ("fifo", "fifo.gz"):
        os.mkfifo(tmp_path / each)
    (tmp_path / "text.gz").write_text("text", encoding="utf-8")
    names = ("fifo", "/dev/zero", "/dev/full", "/", "nothing", "fifo.gz", "text.gz", "/proc/self/mem", "")
    argvs = [[command, "--logs", str(tmp_path / name)] for command in ("trace", "explain") for name in names]
    for outcome in answers(argvs, {"PYTHONIOENCODING": "utf-8"}):
        said = outcome.err.decode()
        assert outcome.code == 2 and "Traceback" not in said, outcome
        assert len([line for line in said.splitlines() if line.startswith("mailstack: ")]) == 1, outcome


@pytest.mark.parametrize(
    "words", [("trace", "--logs", "-"), ("explain", "--logs", "-"), ("explain", "-")], ids=" ".join
)
@pytest.mark.process
def test_a_device_on_standard_input_is_refused_and_nothing_is_empty(words: tuple[str, ...]) -> None:
    endless = run(*words, stdin="/dev/zero")
    assert (endless.returncode, endless.stdout) == (2, "") and "standard input is a device" in endless.stderr
    assert "Traceback" not in run(*words).stderr


def test_an_endless_line_is_read_in_pieces(tmp_path: Path) -> None:
    assert answer(b"\0" * 400_000 + WHOLE.encode(), tmp_path, "explain")
    assert answer((b"x" * 400_000 + b"\n" + WHOLE.encode()), tmp_path, "trace", "--last")


@pytest.mark.process
def test_a_pipe_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from mailstack.actions import tracing

    monkeypatch.setattr(tracing, "_MOST_INPUT", 1_000_000)
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        with pytest.raises(InputError, match="more than 0 MiB on standard input"):
            tracing._spooled(process.stdout)
        process.kill()


# ── dates of mails ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 -1200",
        "Mon, 01 Jan 0001 00:00:00 +1400",
        "Mon, 01 Jan -001 00:00:00 +0000",
        f"Mon, 01 Jan {DIGITS} 00:00:00 +0000",
        f"{DIGITS} Jan 2026",
        "Sun, 29 Nov 2026 24:00:00 +9999",
        "Sun, 29 Nov 2026 10:00:00 +999999999999",
        "Sun, 30 Feb 2026 23:59:60 +0000",
    ],
)
def test_a_date_at_the_edge_of_the_calendar_is_a_date_or_none(date: str) -> None:
    from mailstack.cli.mailboxes import _local

    when = moment(date)
    assert when is None or (when.isoformat() and _local(when) and f"{when:%Y-%m-%d at %H:%M %z}")
