"""A lab's commands on poor terminals: other locales, narrow ones, readers that exit, and closed streams."""

from __future__ import annotations

import json
import secrets
import smtplib
import subprocess
import time
from collections.abc import Iterator

import pytest

from mailstack.lab.running import RunningLab
from tests import engines
from tests.docker.bad import MAILSTACK, Traces, alone, run
from tests.terminals import ENCODINGS, LOCALES, answers

pytestmark = pytest.mark.docker

LAB = f"terminal-{secrets.token_hex(3)}"
SUBJECT = "“Grüße” … 你好 ÷ •"


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """Yield an owner and a runtime directory for this module, and a lab with a mail in it."""
    with alone("terminal") as found:
        assert run(["up", "-n", LAB]).code == 0
        assert run(["send", "-n", LAB, "--subject", SUBJECT, "--body", f"{SUBJECT}\n─ → –"]).code == 0
        yield found


NAMED = ("-n", LAB)
COMMANDS = [
    ["up", *NAMED],
    ["status", *NAMED],
    ["inbox", *NAMED, "bob@example.com"],
    ["read", *NAMED, "bob@example.com"],
    ["read", *NAMED, "bob@example.com", "--raw"],
    ["send", *NAMED, "--subject", SUBJECT],
    ["reply", *NAMED, "bob@example.com", "--body", SUBJECT],
    ["trace", *NAMED],
    ["trace", *NAMED, "--last"],
    ["dialogue", *NAMED],
    ["queue", *NAMED],
    ["explain", *NAMED],
    ["check", *NAMED, "tls"],
    ["account", "list", *NAMED],
    ["env", *NAMED],
    ["logs", *NAMED],
    ["shell", *NAMED, "postfix", "postconf"],
    ["config", *NAMED],
    ["secrets", "reveal", *NAMED, "relay"],
    ["doctor"],
    ["version"],
]
WITHOUT_JSON = ("shell", "--raw")


@pytest.mark.parametrize("locale", ["latin-1", "ascii, without UTF-8 mode"])
def test_every_command_on_a_lab_answers_in_every_locale(locale: str, traces: Traces) -> None:
    with_json = [[*argv, "--json"] for argv in COMMANDS if not {*argv} & {*WITHOUT_JSON}]
    for answer in answers([*COMMANDS, *with_json], LOCALES[locale]):
        raw = {"shell", "logs", "--raw"} & {*answer.argv}  # bytes of others
        out = answer.out.decode(ENCODINGS[locale], "replace" if raw and "--json" not in answer.argv else "strict")
        err = answer.err.decode(ENCODINGS[locale])
        assert "Traceback" not in err and "Exception ignored" not in err, (answer.argv, err)
        # In ASCII the words of the command line are bytes of no text.
        refused = SUBJECT in answer.argv and locale.startswith("ascii")
        assert answer.code == (2 if refused else 0), (answer.argv, err)
        if "--json" in answer.argv and not refused:
            json.loads(out)
    (found,) = answers([["inbox", *NAMED, "bob@example.com", "--json"]], LOCALES[locale])
    assert json.loads(found.out)["mails"][0]["subject"] == SUBJECT
    (read,) = answers([["read", *NAMED, "bob@example.com", "1"]], {"PYTHONIOENCODING": "ascii"})
    assert b'Subject: "Gr??e" ... ?? / *' in read.out


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; `mailstack` is the command."""
    line = f'mailstack() {{ "{MAILSTACK}" "$@"; }}; set -o pipefail; {script}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("streams", ["2>&1 | head -1", "| true", ">&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_up_and_down_are_completed_whatever_becomes_of_their_output(streams: str, traces: Traces) -> None:
    name = f"{LAB}-b"
    up = shell(f"mailstack up -n {name} {streams}")
    assert (up.returncode, "Traceback" in up.stderr) == (0, False)
    assert run(["status", "-n", name]).code == 0
    down = shell(f"mailstack down -n {name} {streams}")
    assert (down.returncode, "Traceback" in down.stderr) == (0, False)
    assert run(["status", "-n", name]).code == 2
    assert not any(name in each for each in traces.all())


@pytest.mark.parametrize("command", ["logs", "shell postfix postconf", "inbox bob@example.com", "read bob@example.com"])
def test_a_reader_that_has_read_enough_is_no_error(command: str, traces: Traces) -> None:
    words = command.replace("shell", f"shell -n {LAB}") if command.startswith("shell") else f"{command} -n {LAB}"
    outcome = shell(f"mailstack {words} | head -1")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert shell(f"mailstack shell -n {LAB} postfix sh -c 'exit 7' | true").returncode == 7


@pytest.mark.parametrize("command", ["logs", "logs --follow"])
def test_logs_that_cannot_be_written_are_told(command: str, traces: Traces) -> None:
    outcome = shell(f"mailstack {command} -n {LAB} > /dev/full")
    assert (outcome.returncode, "standard output cannot be written to" in outcome.stderr) == (3, True)


def test_logs_that_are_followed_end_with_their_reader(traces: Traces) -> None:
    outcome = shell(f"mailstack logs -n {LAB} --follow | head -1")
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_logs_are_in_the_order_of_time_and_without_secrets(traces: Traces) -> None:
    password = run(["secrets", "reveal", "-n", LAB, "relay"]).out.strip()
    endpoint = RunningLab(LAB, engines.here()).endpoints["smtp"]
    with smtplib.SMTP(endpoint.host, endpoint.port) as session:
        session.ehlo("client.test")
        for number in range(3):  # which Postfix logs
            session.docmd(f"MAIL FROM:<{number}@outside.test>")
            session.docmd(f"RCPT TO:<{password}@example.com>")
            session.rset()
    lines = run(["logs", "-n", LAB]).out.splitlines()
    assert {line.partition(" ")[0] for line in lines} == {"postfix-1", "dovecot-1", "sender-1"}
    refused = [line for line in lines if "reject: RCPT" in line]
    assert [f"from=<{number}@outside.test> to=<••••••@" in line for number, line in enumerate(refused)] == [True] * 3
    assert not any(password in line for line in lines)


def test_a_watch_ends_with_its_reader(traces: Traces) -> None:
    watch = subprocess.Popen(
        ["bash", "-c", f"{MAILSTACK} inbox -n {LAB} carol@example.org --watch | head -1; exit ${{PIPESTATUS[0]}}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stderr and "watching" in watch.stderr.readline()
    # A reader that has left is noticed by the next line that is written, and not by mails that came in with the first.
    deadline = time.monotonic() + 30
    while watch.poll() is None and time.monotonic() < deadline:
        assert run(["send", "-n", LAB, "--to", "carol@example.org"]).code == 0
    _, err = watch.communicate(timeout=30)
    assert (watch.returncode, err) == (0, "")


def test_more_connections_than_postfix_takes_are_refused_before_anything_is_sent(traces: Traces) -> None:
    outcome = run(["load", "-n", LAB, "--connections", "60", "--messages", "5"])
    assert (outcome.code, outcome.out) == (2, "")
    assert "smtpd_client_connection_count_limit = 50" in outcome.messages[0]
    assert run(["load", "-n", LAB, "--connections", "50", "--messages", "5", "--mailboxes", "2"]).code == 0


@pytest.mark.parametrize("width", [1, 20, 40])
def test_a_narrow_terminal_gets_every_list(width: int, traces: Traces) -> None:
    lists = [argv for argv in COMMANDS if argv[0] in ("inbox", "status", "trace", "queue", "dialogue", "read")]
    for answer in answers(lists, {"COLUMNS": str(width)}, terminal=True, width=width):
        assert (answer.code, b"Traceback" in answer.out) == (0, False), (answer.argv, answer.out)
