"""The command line itself: errors become one message and an exit code, and text is printed safely."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.cli import main
from mailstack.cli.output import duration, human_size, to_json
from mailstack.errors import (
    CheckFailed,
    DeadlinePassed,
    HostError,
    InputError,
    Interrupted,
    MailstackError,
)
from mailstack.text.printable import printable


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the signal handlers that `main` replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ending(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of `main` when a command raises `error`."""

    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(main, "cli", fails)
    monkeypatch.setattr(sys, "argv", ["mailstack"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailed("no"), 1),
        (InputError("no"), 2),
        (click.UsageError("no"), 2),
        (click.ClickException("no"), 2),
        (HostError("no"), 3),
        (DeadlinePassed("no"), 4),
        (OSError(28, "No space left on device"), 3),
        (Interrupted("no"), 130),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_an_error_becomes_one_message_and_its_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(error, monkeypatch) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith(("mailstack: ", "Error: "))]) == 1


def test_a_message_comes_before_its_details_and_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(MailstackError("what", details="line 1\nline 2", remedy="do"), monkeypatch)
    assert capsys.readouterr().err == "mailstack: what\n  line 1\n  line 2\n  → do\n"


def test_a_message_does_not_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(InputError("a\x1b[2Jb\nmailstack: c", details="\x07", remedy="\x9b"), monkeypatch)
    assert capsys.readouterr().err == "mailstack: a?[2Jb mailstack: c\n  ?\n  → ?\n"


def test_a_signal_is_answered_once_so_that_the_tidying_up_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupted() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(main, "cli", interrupted)
    monkeypatch.setattr(sys, "argv", ["mailstack"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 130


@given(some.text())
def test_what_is_printed_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co"}
    assert printable(shown) == shown


@given(some.text(some.characters()))
def test_a_document_is_json_and_printable(text: str) -> None:
    shown = to_json({"text": text}, indent=2)
    assert json.loads(shown) == {"text": text}
    assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (9_949, "9.9 KB"),
        (9_950, "10 KB"),
        (999_499, "999 KB"),
        (999_500, "1.0 MB"),
        (10_000_627, "10 MB"),
        (5 * 10**12, "5000 GB"),
    ],
)
def test_a_size_is_short(size: int, shown: str) -> None:
    assert human_size(size) == shown


@given(number=some.integers(1, 366), unit=some.sampled_from("smhd"))
def test_a_duration_is_a_number_of_its_units(number: int, unit: str) -> None:
    assert duration(f"{number}{unit}") == number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


@given(some.text())
def test_whatever_a_duration_is_it_is_taken_or_told(text: str) -> None:
    try:
        assert 1 <= duration(text) <= 366 * 86400
    except click.BadParameter as error:
        assert repr(text) in error.message


@pytest.mark.process
def test_who_interrupts_before_anything_is_read_in_sees_no_traceback() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mailstack", "doctor"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "click." in line:  # a part of it is there: not all of it
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    # 130 where it was read in meanwhile, after all.
    assert process.returncode in (-signal.SIGINT, Interrupted.exit_code) and "Traceback" not in rest
