"""Each command line that a message suggests names the lab and the host that the message is about."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import mailstack
from mailstack.cli.main import COMMANDS
from mailstack.text import hint

PACKAGE = Path(mailstack.__file__).parent
TYPED = re.compile(rf"\bmailstack ({'|'.join(COMMANDS)})\b")
# What names a command and tells nobody to type it: titles, and a known failure, which is of any Postfix's log.
TITLES = {
    ("report.py", "name=f'mailstack check {lab}'"),
    ("bench.py", "f'mailstack check {next(self._count)}'"),
    (
        "machine.py",
        "done='mailstack up: containers from the definition, credentials made for them, and a mail across them.'",
    ),
    ("several.py", "f'`mailstack {argv[0]}` works on one host at a time'"),
    (
        "refusals.py",
        "remedy='write to an address of the lab (`mailstack status`), or name a relay outside: `mailstack up --relay`'",
    ),
}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILSTACK_NAME", raising=False)


@pytest.mark.parametrize(
    ("words", "lab", "line"),
    [
        (("up",), "", "mailstack up"),
        (("up",), "lab", "mailstack up"),
        (("up",), "a", "mailstack up -n a"),
        (("logs", "postfix"), "a", "mailstack logs -n a postfix"),
        (("secrets", "reveal", "o'b@x.y"), "a", """mailstack secrets reveal -n a 'o'"'"'b@x.y'"""),
        (("down", "--stale"), "", "mailstack down --stale"),
    ],
)
def test_a_line_names_a_lab_that_is_not_the_default(words: tuple[str, ...], lab: str, line: str) -> None:
    assert hint.line(*words, lab=lab) == line


def test_a_line_names_the_lab_where_another_one_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_NAME", "other")
    assert hint.line("up", lab="lab") == "mailstack up -n lab"
    assert hint.line("up", lab="other") == "mailstack up"


def test_a_line_names_the_host_that_is_worked_on() -> None:
    line = hint.line("logs", "postfix", lab="a", host="ssh://a@box:22")
    assert line == "mailstack logs -n a --host ssh://a@box:22 postfix"
    assert hint.line("down", "--all", host="box-2") == "mailstack down --host box-2 --all"


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("logs", "postfix"),
        ("queue", "release", "ABC"),
        ("account", "list"),
        ("secrets", "reveal", "a@b.c"),
        ("trace", "QUEUE-ID"),
        ("send", "--to", "a@b.c"),
        ("inbox", "a@b.c"),
    ],
)
def test_a_line_is_one_that_the_command_takes(words: tuple[str, ...]) -> None:
    import click

    from mailstack.cli.main import cli

    command: click.Command = cli
    _, *rest = shlex.split(hint.line(*words, lab="a"))
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest.pop(0))
        assert found is not None
        command = found
    parsed = command.make_context(words[0], rest, resilient_parsing=True)
    assert parsed.params["name"] == "a"


def _documentation(tree: ast.Module) -> set[ast.AST]:
    """Return the docstrings: the text of a `--help` is about no lab."""
    return {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def _written(path: Path) -> Iterator[str]:
    """Return the places where a text names a command without `hint`. (To take apart every module takes seconds.)"""
    source = path.read_text()
    if not (TYPED.search(source) or re.search(r"\bmailstack [\"'{]", source)):
        return
    tree = ast.parse(source)
    documentation = _documentation(tree)
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    titles = [text.removeprefix("name=").removeprefix("done=").removeprefix("remedy=") for _, text in TITLES]
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        named = TYPED.search(text) or ("MAILSTACK_" not in text and re.search(r"\bmailstack X(?=[ `]|$)", text))
        if named and node not in documentation | inside and ast.unparse(node) not in titles:
            yield f"{path.name}:{node.lineno}: {text}"  # type: ignore[attr-defined]


def test_every_command_that_a_message_names_is_written_by_hint() -> None:
    assert [found for path in PACKAGE.rglob("*.py") if path.name != "hint.py" for found in _written(path)] == []


# Commands that are about no lab: what they are told of is the host, or nothing.
ABOUT_NO_LAB = {"doctor", "provision", "explain", "images"}
OPTIONS_OF_NO_LAB = {"--stale", "--all", "--list"}


def _calls(path: Path) -> Iterator[tuple[int, list[str], set[str | None]]]:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)) if ".line(" in source else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("hint.line", "target.line")):
            words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            yield node.lineno, words, {each.arg for each in node.keywords}


def test_every_line_about_a_lab_names_it() -> None:
    lacking = [
        f"{path.name}:{line}: {words}"
        for path in PACKAGE.rglob("*.py")
        for line, words, given in _calls(path)
        if "lab" not in given and words[0] not in ABOUT_NO_LAB and not OPTIONS_OF_NO_LAB & set(words)
    ]
    # `doctor` is about any lab that may come, images are sent from a lab of this machine's, --logs are of no lab.
    assert [each for each in lacking if not each.startswith(("doctor.py", "build.py", "trace.py", "archive.py"))] == []
