"""A lab as variables: a shell or a reader of env files gets the original values."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from mailstack.actions import environment
from mailstack.errors import InputError
from mailstack.secret import Secret

VALUES = {
    "PLAIN": "127.0.0.1",
    "EMPTY": "",
    "HOSTILE": "a'b\"c $(id) `id` $HOME \\ \\' ; exit 7 # & | > x",
    "LINES": "one\ntwo'\n",
    "ACCENT": "ü – 12 €",
}
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "ksh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.process
def test_a_shell_that_evaluates_them_exports_what_they_were(shell: str) -> None:
    text = environment.formatted(VALUES, "sh")
    show = "; ".join(f'printf "%s\\0" "${name}"' for name in VALUES)
    script = f"eval \"$1\" && exec {shell} -c '{show}'"  # by a child: exported, not set alone
    result = subprocess.run([shell, "-c", script, shell, text], capture_output=True, text=True, check=True)
    assert dict(zip(VALUES, result.stdout.split("\0")[:-1], strict=True)) == VALUES


def test_fish_has_quotes_of_its_own() -> None:
    assert environment.formatted({"A": "x"}, "fish") == "set -gx A 'x'"
    assert environment.formatted({"A": "it's $a \\ b"}, "fish") == "set -gx A 'it\\'s $a \\\\ b'"


def test_a_file_of_variables_has_them_as_they_are() -> None:
    one = {name: value for name, value in VALUES.items() if "\n" not in value}
    lines = environment.formatted(one, "dotenv").split("\n")
    assert dict(line.split("=", 1) for line in lines) == one


def test_a_value_of_two_lines_fits_no_file_of_variables() -> None:
    with pytest.raises(InputError, match="LINES has several lines"):
        environment.formatted(VALUES, "dotenv")


def test_a_password_is_in_what_is_written_and_in_nothing_else() -> None:
    variables = {"SMTP_PASSWORD": Secret("hunter2")}
    assert "hunter2" not in repr(variables)
    assert {environment.formatted(variables, form) for form in environment.FORMATS} == {
        "export SMTP_PASSWORD=hunter2",
        "set -gx SMTP_PASSWORD 'hunter2'",
        "SMTP_PASSWORD=hunter2",
    }
