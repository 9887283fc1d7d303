"""The errors are one tree, with the exit codes of the design."""

from __future__ import annotations

from mailstack import errors
from mailstack.errors import MailstackError


def _tree() -> dict[str, type[MailstackError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, MailstackError)
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


def test_the_drawn_tree_names_every_error() -> None:
    assert all(name in (errors.__doc__ or "") for name in _tree())


def test_an_error_keeps_what_to_do_apart_from_what_happened() -> None:
    error = MailstackError("it broke", remedy="mend it", details="line 1\nline 2")
    assert (str(error), error.remedy, error.details) == ("it broke", "mend it", "line 1\nline 2")
