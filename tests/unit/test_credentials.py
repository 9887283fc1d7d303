"""The user's credentials for a relay host outside the lab, read from their file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mailstack.config.user_files import read_credentials
from mailstack.errors import CredentialsError


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a file, readable by its owner only, or with another mode."""

    def private(data: bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "credentials"
        path.write_bytes(data)
        path.chmod(mode)
        return path

    return private


def problem(path: Path) -> str:
    """Return the error message about a file, without its path."""
    with pytest.raises(CredentialsError) as caught:
        read_credentials(path)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(str(path))
    return caught.value.message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"me:secret", "me:secret\n"),
        (b"me:secret\n", "me:secret\n"),
        (b"me:secret\r\n", "me:secret\n"),
        (b"me:secret\n\n  \n", "me:secret\n"),
        (b"me@example.com:a:b:c\n", "me@example.com:a:b:c\n"),
        (b"me:a b\n", "me:a b\n"),
        ("me:grüße\n".encode(), "me:grüße\n"),
    ],
)
def test_a_user_and_a_password_in_one_line_are_taken(data: bytes, line: str, write: Callable[..., Path]) -> None:
    assert read_credentials(write(data)).reveal() == line


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ": the file with the relay's credentials is empty"),
        (b"\n \n", ": the file with the relay's credentials is empty"),
        (b"secret", ":1:1: the relay's credentials do not have the form user:password"),
        (b":secret", ":1:1: the relay's credentials do not have the form user:password"),
        (b"me: ", ":1:1: the relay's credentials do not have the form user:password"),
        (b"me:a\nyou:b\n", ":2:1: the relay's credentials should be one line"),
        (b"my user:secret", ":1:1: the relay's user has spaces in it"),
        (b"me: secret", ":1:4: the password begins or ends with a space"),
        (b"me:secret\t", ":1:10: the relay's credentials have the character U+0009 in them"),
        (b"\xef\xbb\xbfme:secret", ":1:1: the relay's credentials have the character U+FEFF in them"),
        (b"me:sec\0ret", ":1:7: the relay's credentials have the character U+0000 in them"),
        (b"me:sec\rret", ":1:7: the relay's credentials have the character U+000D in them"),
        (b"me:secret\n\xff", ":2:1: the relay's credentials are not text in UTF-8"),
        (b"x" * 5000, ": is longer than 4096 bytes: these are not credentials"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(data: bytes, said: str, write: Callable[..., Path]) -> None:
    assert problem(write(data)) == said


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_use_is_refused_whatever_is_in_it(mode: int, write: Callable[..., Path]) -> None:
    for data in (b"me:secret", b""):
        assert problem(write(data, mode)).endswith(f"(mode {mode:04o})")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_that_its_owner_alone_may_use_is_taken(mode: int, write: Callable[..., Path]) -> None:
    assert read_credentials(write(b"me:secret", mode)).reveal() == "me:secret\n"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path, Path("/dev/null")):
        assert problem(path) == ": the relay's credentials must be a file"
    assert problem(tmp_path / "missing") == ": the file with the relay's credentials does not exist"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.one_of(some.binary(), some.text().map(lambda text: f"me:{text}".encode(errors="ignore"))))
def test_whatever_is_in_the_file_it_is_one_line_or_told_without_showing_it(
    data: bytes, write: Callable[..., Path]
) -> None:
    path = write(b"tell-tale " + data)  # a user with a space in it: never taken
    assert "tell-tale" not in problem(path)
    try:
        taken = read_credentials(write(data)).reveal()
    except CredentialsError:
        return
    assert taken.splitlines(keepends=True) == [taken]
    user, _, password = taken[:-1].partition(":")
    assert user == user.strip() != ""
    assert password == password.strip() != ""
