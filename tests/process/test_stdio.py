"""Output: unencodable characters are replaced, a failed write aborts no work, and no width is too small."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as some

import mailstack
from mailstack.actions import queues
from mailstack.actions.mailboxes import Summary
from mailstack.cli import output, stdio
from mailstack.cli.mailboxes import _console, _list
from mailstack.cli.main import COMMANDS, cli
from mailstack.cli.queue import drawn
from tests.terminals import ENCODINGS, LOCALES, answers

pytestmark = pytest.mark.process

NOWHERE = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "DOCKER_CONTEXT": "", "MAILSTACK_HOST": ""}


def leaves() -> Iterator[list[str]]:
    """Return the words of every command that is not a group."""
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            yield from ([name, sub] for sub in command.commands)
        else:
            yield [name]


LEAVES = list(leaves())
# What each command needs to get as far as it can without an engine; the name of the lab has no such lab.
NEEDS = {
    "inbox": ["bob@example.com"],
    "read": ["bob@example.com"],
    "reply": ["bob@example.com", "--body", "x"],
    "account add": ["dora@example.com"],
    "account remove": ["dora@example.com"],
    "secrets reveal": ["relay"],
    "secrets init": ["/proc/nowhere/“secrets”"],
    "shell": ["postfix"],
    "check": ["--list"],
    "explain": ["--list"],
    "experiment": ["--out", "/proc/nowhere/“report”"],
    "provision": ["--progress", "“loud”"],
}
ARGVS = [
    *[[*words, "--help"] for words in LEAVES],
    *[[*words, *NEEDS.get(" ".join(words), [])] for words in LEAVES],
    *[[*words, "--json"] for words in LEAVES if words[0] in ("explain", "check", "version", "doctor")],
    ["--help"],
    ["“unknown” …"],
    ["status", "-n", "Grüße • ÷ → 你好"],
    ["explain", "“Grüße” … 你好"],
    ["explain", "--json", "“Grüße” … 你好"],
    ["up", "-f", "/nowhere/“Grüße”.yaml"],
    ["check", "--list", "--json"],
    ["explain", "--list", "--json"],
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a runtime directory for the test, without an engine."""
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "run"))
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_command_answers_in_every_locale(locale: str) -> None:
    for answer in answers(
        ARGVS if locale in ("latin-1", "ascii, without UTF-8 mode") else ARGVS[-10:], LOCALES[locale]
    ):
        out, err = (data.decode(ENCODINGS[locale]) for data in (answer.out, answer.err))
        assert "Traceback" not in err and "Exception ignored" not in err, (answer.argv, err)
        assert answer.code in (0, 1, 2, 3), (answer.argv, err)
        if "--json" in answer.argv and out:
            json.loads(out)


def test_what_ascii_lacks_is_replaced_by_what_looks_like_it() -> None:
    (answer,) = answers([["status", "-n", "absent"]], LOCALES["ascii"])
    assert (
        answer.err.startswith(b'mailstack: there is no lab "absent"') and b"\n  -> mailstack up -n absent" in answer.err
    )
    (answer,) = answers([["explain", "--list"]], LOCALES["ascii"])
    assert b"----" in answer.out and b"?" not in answer.out
    assert stdio.readable("“a” ‘b’ … → • ÷ × – ─│┌┘ Grüße 你好 e\u0301") == "\"a\" 'b' ... -> * / x - -|++ Gr??e ?? e"


@given(some.text())
def test_whatever_is_written_has_a_readable_form_in_ascii(text: str) -> None:
    assert stdio.readable(text).isascii()
    if text.isascii():
        assert stdio.readable(text) == text


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    wrong = []
    for path in Path(mailstack.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            text = name in ("read_text", "write_text", "fdopen", "TextIOWrapper", "NamedTemporaryFile")
            text = text or (name == "open" and isinstance(function, ast.Name))
            binary = any(isinstance(a, ast.Constant) and isinstance(a.value, str) and "b" in a.value for a in node.args)
            named = any(keyword.arg == "encoding" for keyword in node.keywords)
            if name == "TextIOWrapper":
                named = len(node.args) > 1
            unnamed = text and not binary and not named
            if unnamed or any(k.arg in ("text", "universal_newlines") for k in node.keywords if "un" in name):
                wrong.append(f"{path.name}:{node.lineno}: {name}")
    assert wrong == []


# ── streams ────────────────────────────────────────────────────────────────────────────────────────────────────────

MAILSTACK = f"{sys.executable} -m mailstack"


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; `mailstack` is the command."""
    function = f'mailstack() {{ "{sys.executable}" -m mailstack "$@"; }}; set -o pipefail; {script}'
    return subprocess.run(["bash", "-c", function], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("command", ["explain --list", "explain --list --json", "--help", "status -n absent"])
@pytest.mark.parametrize(
    "streams", [">&-", "2>&-", "<&-", "<&- >&-", "<&- >&- 2>&-", "| true", "2>&1 | true", "| head -1"]
)
def test_streams_that_are_closed_change_nothing_but_the_output(command: str, streams: str) -> None:
    outcome = shell(f"mailstack {command} {streams}")
    assert "Traceback" not in outcome.stderr and "Exception ignored" not in outcome.stderr
    assert outcome.returncode == (2 if "absent" in command else 0)
    assert (outcome.stderr == "") == ("absent" not in command or "2>" in streams)


@pytest.mark.parametrize(
    ("command", "code"), [("explain --list", 3), ("--help", 3), ("--version", 3), ("explain no", 1)]
)
def test_an_answer_that_a_full_disk_swallows_is_an_error(command: str, code: int) -> None:
    outcome = shell(f"mailstack {command} > /dev/full")
    assert outcome.returncode == code
    assert outcome.stderr == "mailstack: standard output cannot be written to: No space left on device\n"
    assert shell(f"mailstack {command} > /dev/null 2> /dev/full").returncode == (0 if code == 3 else code)


def test_a_file_that_is_opened_does_not_become_standard_output(tmp_path: Path) -> None:
    code = "from mailstack.cli import stdio; stdio.prepare(); import os; print(os.open('.', 0)); print('kept')"
    outcome = shell(f'"{sys.executable}" -c "{code}" <&- 2>&-')
    assert outcome.stdout.split() == ["3", "kept"]


def test_a_reader_that_has_gone_does_not_raise_into_the_work() -> None:
    code = (
        "from mailstack.cli import stdio; stdio.prepare(); from mailstack.cli.output import Progress;"
        "show = Progress('plain'); [show(f'step {n}') for n in range(9)]; print('done')"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=write, check=False)
    os.close(write)
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize("words", ["status", "up -f lab.yaml", "down", "explain --list", "check --list", "nonsense"])
def test_a_current_directory_that_was_removed_is_named(words: str, tmp_path: Path) -> None:
    outcome = shell(f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && mailstack {words}")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("mailstack: the current directory cannot be used: ")
    assert "  → change to another one (`cd`)" in outcome.stderr


def test_help_is_given_also_where_the_current_directory_was_removed(tmp_path: Path) -> None:
    outcome = shell(f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && mailstack up --help")
    assert outcome.returncode == 0


@pytest.mark.parametrize(("trap", "code"), [("", 130), ("trap '' HUP; ", 1)], ids=["heard", "ignored"])
def test_the_end_of_the_terminal_interrupts_unless_it_is_ignored(trap: str, code: int) -> None:
    command = ["bash", "-c", f"{trap}exec {MAILSTACK} explain -"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        handled = 1 << (signal.SIGTERM - 1)
        while not int(_caught(process.pid), 16) & handled:
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate("")
    assert process.returncode == code
    assert ("the terminal was closed (SIGHUP)" in said) == (code == 130) and "Traceback" not in said


def _caught(process: int) -> str:
    """Return the signals that a process handles: proc(5)."""
    return Path(f"/proc/{process}/status").read_text(encoding="utf-8").partition("SigCgt:\t")[2].split("\n")[0]


# ── widths ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WHEN = datetime(2026, 11, 29, tzinfo=UTC)
MAILS = [
    Summary(1, WHEN, "", (), "", 1, "", ""),
    Summary(2**32 - 1, WHEN, "mallory@example.com", (), "Grüße 你好 " * 9, 10**9, "<1@example.com>", "words " * 40),
]
WIDTHS = [*range(1, 41), 80, 10**9]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output claim to be a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_loses_nothing_in_any_width(
    width: int, terminal: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows: Sequence[Sequence[str | tuple[str, ...]]] = [
        ("submission", "127.0.0.1:28575", ("STARTTLS, then AUTH", "and more")),
        ("", "", ""),
        ("你好", "x", "y" * 100),
    ]
    for flexible in (None, 0, 2):
        output.table(("endpoint", "address", "how"), rows, flexible=flexible)
        shown = "".join(capsys.readouterr().out.split())
        for cell in ("submission", "127.0.0.1:28575", "你好"):
            assert cell in shown or flexible == 0
        assert shown.count("y") >= 100
    output.table(("a", "b"), [])


@pytest.mark.parametrize("width", WIDTHS)
def test_a_list_of_mails_has_any_width(
    width: int, terminal: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _list(_console(), MAILS)
    shown = " ".join(capsys.readouterr().out.split())
    assert "4294967295" in shown.replace(" ", "") and "2026-11-29" in shown.replace(" ", "")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_queue_has_any_width(width: int) -> None:
    entry = queues.Entry(
        "postfix", "deferred", "A009F17604B", 1.0, 100, "eve@example.com", (queues.Waiting("bob@example.com", "4.7.0"),)
    )
    assert drawn([entry], 2.0, max(width, 20))


@pytest.mark.parametrize("width", [1, 7, 29, 80])
def test_a_terminal_of_any_width_gets_its_answer(width: int) -> None:
    words = ("explain --list", "check --list", "doctor", "explain 550", "--help")
    for answer in answers([each.split() for each in words], {"COLUMNS": str(width)}, terminal=True):
        assert answer.out and b"Traceback" not in answer.out and answer.code in (0, 1, 3), answer


def test_a_text_from_standard_input_that_is_closed_is_an_error_and_not_empty() -> None:
    code = (
        "from mailstack.cli import stdio; stdio.prepare();"
        "from mailstack.cli.output import text_of; print([text_of('-')])"
    )
    closed = shell(f'"{sys.executable}" -c "{code}" <&-')
    assert closed.returncode == 1 and "standard input cannot be read: it is closed" in closed.stderr
    assert shell(f'"{sys.executable}" -c "{code}" </dev/null').stdout == "['']\n"
