"""The errors form one tree, with the documented exit codes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from mailstack import errors
from mailstack.errors import MailstackError, Reported
from tests.unit.fakes import FakeTarget


def _tree() -> dict[str, type[Reported]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Reported) and value is not Reported
    }


def test_each_error_has_the_exit_code_of_its_branch() -> None:
    codes = {name: error.exit_code for name, error in _tree().items()}
    assert codes == {
        "MailstackError": 1,
        "CheckFailed": 1,
        "InputError": 2,
        "LabFileError": 2,
        "CredentialsError": 2,
        "HostError": 3,
        "EngineError": 3,
        "CommandFailed": 3,
        "DeadlinePassed": 4,
        "Interrupted": 130,
    }


def test_an_interruption_is_no_error_that_a_library_may_handle() -> None:
    # Python's own Thread.start() forgets the thread that it has just started when an Exception arrives there.
    assert not issubclass(errors.Interrupted, Exception) and not issubclass(errors.Interrupted, KeyboardInterrupt)


def test_the_drawn_tree_names_every_error() -> None:
    assert all(name in (errors.__doc__ or "") for name in _tree())


def test_an_error_keeps_what_to_do_apart_from_what_happened() -> None:
    error = MailstackError("it broke", remedy="mend it", details="line 1\nline 2")
    assert (str(error), error.remedy, error.details) == ("it broke", "mend it", "line 1\nline 2")


def whole() -> MailstackError:
    """Return an error with all its parts, some of them added on the way."""
    error = errors.HostError("it broke", remedy="mend it", details="line 1\nline 2")
    error.message += ": the disk is full"
    error.add_note("and the child did not end")
    return error


TEXT = "it broke: the disk is full\n  line 1\n  line 2\n  and the child did not end\n  → mend it"


def test_an_error_as_a_whole_has_what_was_added_to_it() -> None:
    assert (str(whole()), whole().whole()) == ("it broke: the disk is full", TEXT)
    assert whole().happened() == TEXT.rpartition("\n")[0]
    assert MailstackError("it broke").whole() == "it broke"


def test_the_command_line_shows_all_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    from mailstack.cli.main import print_error

    print_error(whole())
    assert capsys.readouterr().err == f"mailstack: {TEXT}\n"


def test_the_plugin_shows_all_of_an_error() -> None:
    from mailstack.plugin import _without_traceback

    with pytest.raises(pytest.fail.Exception) as caught, _without_traceback():
        raise whole()
    assert caught.value.msg == f"mailstack: {TEXT}"


def _raising(*_: object) -> NoReturn:
    raise whole()


def test_a_check_that_an_error_ends_shows_all_of_it() -> None:
    from mailstack import checks

    bench: Any = SimpleNamespace(blot=str, lab=SimpleNamespace(target=FakeTarget()))
    found = checks.judge(checks.Check("a.b", "title", "source", _raising), bench)
    assert found.evidence == TEXT


def test_a_step_of_the_experiment_that_an_error_ends_shows_all_of_it() -> None:
    from mailstack.experiment import step

    scene: Any = None
    outcome = step.judge(SimpleNamespace(function=_raising), scene, {})  # type: ignore[arg-type]
    assert outcome.reason == TEXT


# Where a part of an error is wanted: in a line of progress; and where something is added to it.
PARTS = {
    ("base.py", "has_or_pulls"),
    ("provision.py", "_naming_host"),
    ("over_ssh.py", "root_cause"),
    ("proving.py", "with_logs"),
}
NAMES = {name for name in vars(errors) if name in _tree()}


def _partial(path: Path) -> Iterator[str]:
    """Return the places that catch an error of mailstack and show only a part of it."""
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for handler in ast.walk(function):
            if not isinstance(handler, ast.ExceptHandler) or not handler.name or handler.type is None:
                continue
            caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
            if not caught <= NAMES:
                continue
            for node in ast.walk(handler):
                if not isinstance(node, ast.expr):
                    continue
                alone = isinstance(node, ast.FormattedValue) and node.value
                text = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "str" and node.args[0]
                part = isinstance(node, ast.Attribute) and node.attr in ("message", "details") and node.value
                shown = alone or text or (part if isinstance(getattr(node, "ctx", None), ast.Load) else None)
                known = (path.name, function.name) in PARTS
                if isinstance(shown, ast.Name) and shown.id == handler.name and not known:
                    yield f"{path.name}:{node.lineno} in {function.name}"


def test_no_place_shows_a_part_of_an_error() -> None:
    package = Path(errors.__file__).parent
    assert [found for path in package.rglob("*.py") for found in _partial(path)] == []
