"""The session of docs/by-hand.md, typed in order as the document has it, shows what the document says."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docker.bad import until
from tests.docker.conftest import Labs
from tests.docker.tmux import Terminal

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux on this machine"),
]

DOCUMENT = Path(__file__).parents[2] / "docs" / "by-hand.md"
LOGIN = r"relay-[0-9a-f]{8}:\S+"
# They only look: a person repeats them until what was sent has arrived.
LOOKS = ("grep ", "tail ", "mailq", "mail -H", "mailstack inbox", "mailstack explain")
# What differs from one session to the next.
VARIABLE = {
    LOGIN: "LOGIN",
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d": "TIME",
    r"\d{4}-\d\d-\d\d \d\d:\d\d": "TIME",
    r"(?<=[a-z])\[\d+\]": "[PID]",
    r"\b[0-9A-F]{10,12}\b": "QUEUE-ID",
    r"\b10(?:\.\d+){3}\b": "IP",
    r"\d+(?:\.\d+)? m?s\b": "SECONDS",
    r"lab “[^”]*”": "lab",
    r"(?<=removed: ).*": "LAB",
    r" -n \S+": "",
    r"\s+": " ",
}


@dataclass
class Step:
    """A command at a prompt, and what follows: what is seen, and what is typed inside the program."""

    prompt: str
    command: str
    events: list[tuple[str, str]] = field(default_factory=list)  # ("see" or "type", line)

    @property
    def seen(self) -> list[str]:
        """The lines that are seen."""
        return [line for kind, line in self.events if kind == "see"]

    @property
    def typed(self) -> list[str]:
        """The lines and keys that are typed inside the program."""
        return [line for kind, line in self.events if kind == "type"]

    @property
    def last(self) -> list[str]:
        """The lines that are seen after the last one that is typed, or all."""
        return self.seen[len(self.seen) - [kind for kind, _ in [*self.events[::-1], ("type", "")]].index("type") :]


def steps(text: str) -> list[Step]:
    """Return the steps in the console blocks of a document, in order."""
    found: list[Step] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines():
        if prompt := re.match(r"((?:you|student)@\w+:~\$) (.*)", line):
            found.append(Step(prompt[1], prompt[2]))
        elif line.startswith("»"):
            found[-1].events.append(("type", line[2:]))
        elif line.strip(" …"):
            found[-1].events.append(("see", line))
    return found


def alike(text: str) -> str:
    """Return a text in which sessions do not differ."""
    for pattern, name in VARIABLE.items():
        text = re.sub(pattern, name, text)
    return text.strip()


def pattern_of(line: str) -> str:
    """Return a line of the document as a regular expression; `…` is any text."""
    return ".*".join(re.escape(part.strip()) for part in alike(line).split("…"))


def missing(seen: list[str], shown: str) -> list[str]:
    """Return the lines of the document from the first one on that is not shown in its order."""
    lines = iter([alike(line) for line in shown.splitlines()])
    for number, line in enumerate(seen):
        if not any(re.search(pattern_of(line), each) for each in lines):
            return seen[number:]
    return []


class Session:
    """Two terminals in which a person types the steps of the document."""

    def __init__(self, terminals: list[Terminal]) -> None:
        self.terminals = terminals
        self.login = ""  # as `mailstack secrets reveal` shows it

    def perform(self, step: Step) -> None:
        """Type a step where its prompt is, and hold what is shown. Raises AssertionError."""
        terminal = next(each for each in self.terminals if each.prompt() == step.prompt)
        shown = self._output(terminal, step)
        if step.command.startswith(LOOKS) and not step.typed:
            until(lambda: not missing(step.seen, shown) or self._again(terminal, step), every=0.05)
            shown = self._last
        assert missing(step.last, shown) == [], f"{step.command}\n{shown}"
        if login := re.search(LOGIN, shown):
            self.login = self.login or login[0]

    def _again(self, terminal: Terminal, step: Step) -> bool:
        return not missing(step.seen, self._output(terminal, step))

    def _output(self, terminal: Terminal, step: Step) -> str:
        """Type the command, and what follows; return what is shown until the next prompt."""
        before = len(terminal.text())
        terminal.type(step.command)
        self._converse(terminal, step, before)
        assert until(lambda: len(terminal.text()) > before and terminal.ready(), 120, every=0.05), terminal.text()
        self._last = terminal.text()[before:]
        return self._last

    def _converse(self, terminal: Terminal, step: Step, before: int) -> None:
        """Type inside a program: each line when what the document shows before it is there."""
        expected: list[str] = []
        for kind, line in step.events if step.typed else []:
            if kind == "see":
                expected.append(line)
                continue
            shown = f"{step.command}: {expected}"
            is_shown = functools.partial(self._is_shown, terminal, expected, before)
            assert until(is_shown, every=0.05), f"{shown}\n{terminal.text()}"
            before, expected = len(terminal.text().rpartition("\n")[0]), []
            terminal.type(re.sub(LOGIN, self.login, line))

    def _is_shown(self, terminal: Terminal, expected: list[str], before: int) -> bool:
        return not missing(expected, terminal.text()[0 if terminal.is_full_screen() else before :])


@pytest.fixture
def session(labs: Labs, tmp_path: Path) -> Iterator[Session]:
    """Yield two terminals whose commands work on one lab."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MAILSTACK_NAME": labs.new_name("by-hand"), "LANG": "C.UTF-8"}
    terminals = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            terminals.append(Terminal(tmp_path / name, environment))
        yield Session(terminals)
    finally:
        for terminal in terminals:
            terminal.close()


def test_the_session_of_the_document_shows_what_the_document_says(session: Session) -> None:
    found = steps(DOCUMENT.read_text(encoding="utf-8"))
    assert len(found) >= 30
    for step in found:
        session.perform(step)
