"""The trials of the kill matrix: its commands and signals, and one trial of a command."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mailstack.lab.running import RunningLab
from tests import engines
from tests.docker.bad import MAILSTACK, Outcome, Traces, alone, run, until
from tests.docker.suites import PLUGIN
from tests.kills import state

LAB = f"matrix-{secrets.token_hex(3)}"  # another run may be at work on the same engine
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMANDS = (
    *("up new", "up", "up -f", "up -f back", "down", "account add", "account remove", "secrets rotate"),
    *("check", "load", "queue flush", "send", "pytest", "experiment"),
)
SECONDS = 60.0  # how long a command may take to end after its signal
LEFT_SECONDS = 20.0  # how long a guard may take to remove what a killed command left

OVERLAY = "x-mailstack:\n  accounts:\n    dora@example.com: {}\n  limits:\n    message_size: 2M\n"
SUITE = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_mail(number, mailbox, smtp_settings):
    from email.message import EmailMessage
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "alice@example.com", mailbox.address, f"{number}"
    mail.set_content("hello")
    with smtp_settings.connect() as session:
        session.send_message(mail)
    assert mailbox.wait_for_message(timeout=30).subject == f"{number}"
"""


@dataclass(frozen=True)
class Trial:
    """One trial and its result."""

    command: str
    signal: signal.Signals
    moment: float  # as a part of the time that the command takes
    ended: str  # whether it was done before the signal, and its exit code
    seconds: float  # of the `up` or `down` after it
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        end = "good" if not self.wrong else "BAD: " + "; ".join(self.wrong)
        head = f"{self.command:<15} {self.signal.name:<8} at {self.moment:4.0%}, {self.ended:<12}"
        return f"{head} {self.seconds:5.2f} s: {end}"


class World:
    """An owner with a lab, an overlay and a suite of tests."""

    def __init__(self, traces: Traces, place: Path) -> None:
        self.traces = traces
        self.overlay = place / "overlay.yaml"
        self.overlay.write_text(OVERLAY)
        self.suite = place / "test_suite.py"
        self.suite.write_text(SUITE)
        self._whole: dict[str, float] = {}

    def words(self, command: str, address: str) -> list[str]:
        """Return the command line of a command of the matrix."""
        own = ["-n", LAB]
        if command == "pytest":
            words = ["-m", "pytest", "-q", *PLUGIN, "-p", "no:cacheprovider", "--mailstack-name", LAB, str(self.suite)]
            return [sys.executable, *words]
        return [
            MAILSTACK,
            *{
                "up new": ["up", *own],
                "up": ["up", *own],
                "up -f": ["up", *own, "-f", str(self.overlay)],
                "up -f back": ["up", *own],
                "down": ["down", *own],
                "account add": ["account", "add", *own, address],
                "account remove": ["account", "remove", *own, address],
                "secrets rotate": ["secrets", "rotate", *own],
                "check": ["check", *own, "relay", "queue", "closed", "delivery"],
                "load": ["load", *own, "--messages", "60", "--mailboxes", "6", "--connections", "3"],
                "queue flush": ["queue", "flush", *own],
                "experiment": ["experiment"],
                "send": ["send", *own, "--via", "sender", "--from", "student@example.com", "--to", "bob@example.com"],
            }[command],
        ]

    def prepare(self, command: str) -> str:
        """Bring the lab into the state that the command begins with; return the address that it works on."""
        address = f"zoe-{secrets.token_hex(3)}@example.com"
        if command == "up new":
            _good(run(["down", "-n", LAB]))
            return address
        overlay = ["-f", str(self.overlay)] if command == "up -f back" else []
        if command in ("up -f", "up -f back") or not state.is_up(LAB):
            _good(run(["up", "-n", LAB, *overlay]))
        if command == "account remove":
            _good(run(["account", "add", "-n", LAB, address]))
        return address

    def whole(self, command: str) -> float:
        """Return how long the command takes when nothing ends it, in seconds."""
        if command not in self._whole:
            words = self.words(command, self.prepare(command))
            started_at = time.monotonic()
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=180, check=False, cwd=self.suite.parent
            )
            assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
            self._whole[command] = time.monotonic() - started_at
        return self._whole[command]


def _good(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Yield a world of its own; remove it afterwards."""
    with alone("matrix") as traces, tempfile.TemporaryDirectory(prefix="matrix-") as place:
        yield World(traces, Path(place))


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Run `count` trials: each command in turn, with a random signal at a random moment."""
    chance = random.Random(seed)
    order = [command for _ in range(-(-count // len(COMMANDS))) for command in chance.sample(COMMANDS, len(COMMANDS))]
    with world() as here:
        for command in order[:count]:
            yield _trial(here, command, chance.choice(SIGNALS), chance.random(), then_down=chance.random() < 0.3)


def _trial(here: World, command: str, number: signal.Signals, moment: float, *, then_down: bool) -> Trial:
    whole = here.whole(command)
    address = here.prepare(command)
    before = state.accounts(LAB) if command != "up new" else set()
    ended = _end(here.words(command, address), number, moment * whole, here.suite.parent)
    started_at = time.monotonic()
    wrong = [] if command != "experiment" else _after_experiment(here)
    wrong += _after_down(here) if then_down else _after_up(here, command, address, before)
    if ended == "HANGS":
        wrong.append(f"it did not end within {SECONDS:g} s")
    return Trial(command, number, moment, ended, time.monotonic() - started_at, tuple(wrong))


def _end(words: list[str], number: signal.Signals, after: float, folder: Path) -> str:
    """Start a command and signal it after so many seconds; return how it ended."""
    with subprocess.Popen(
        words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            return f"done: {process.wait(after)}"
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        try:
            return f"code {process.wait(SECONDS)}"
        except subprocess.TimeoutExpired:
            process.kill()
            return "HANGS"


def _after_experiment(here: World) -> list[str]:
    """Return what a guard has not removed of the experiment's labs."""

    def left() -> list[str]:
        return sorted(thing for thing in here.traces.all() if "experiment-" in thing)

    return [] if until(lambda: not left(), LEFT_SECONDS) else [f"left of the experiment: {left()}"]


def _after_down(here: World) -> list[str]:
    """Return what is wrong after one `down`."""
    outcome = run(["down", "-n", LAB])
    if outcome.code != 0:
        return [f"`down` ended with {outcome.code}: {outcome.err[-500:]}"]
    if not until(lambda: not here.traces.all() and not here.traces.processes(), LEFT_SECONDS):
        return [f"left: {sorted(here.traces.all())}, {sorted(here.traces.processes().values())}"]
    return []


def _after_up(here: World, command: str, address: str, before: set[str]) -> list[str]:
    """Return what is wrong after one `up`."""
    outcome = run(["up", "-n", LAB])
    if outcome.code != 0:
        return [f"`up` ended with {outcome.code}: {outcome.err[-700:]}"]
    lab = RunningLab(LAB, engines.here())
    wrong = state.unproven(lab) + state.remains(lab, here.traces)
    extra = state.accounts(LAB) - before - {address} if before else set()
    if extra:
        wrong.append(f"accounts that nobody added: {sorted(extra)}")
    if command.startswith("account"):
        wrong += state.halves(lab, address)
    return wrong
