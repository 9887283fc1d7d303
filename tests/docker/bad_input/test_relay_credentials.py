"""Credentials and a CA for a relay outside that cannot be used: told without showing them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.bad import Outcome, Traces, run
from tests.docker.bad_input import RUN

pytestmark = pytest.mark.docker

LAB = f"relay-{RUN}"  # never comes up
UP = ("up", "-n", LAB)


def _write(data: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(mode)

    return write


def _link_to(data: bytes, mode: int) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        _write(data, mode)(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")

    return link


SECRET = "hunter2-hunter2"  # stands in most of the files, and in no message
GOOD = f"me:{SECRET}\n".encode()

CREDENTIALS = [
    pytest.param(lambda path: None, ": the file with the relay's credentials does not exist", id="missing"),
    pytest.param(
        lambda path: path.symlink_to("x"), ": the file with the relay's credentials does not exist", id="link"
    ),
    pytest.param(lambda path: path.symlink_to(path), "cannot be read: Too many levels", id="a link to itself"),
    pytest.param(lambda path: path.mkdir(mode=0o700), "must be a file", id="a directory"),
    pytest.param(lambda path: os.mkfifo(path, 0o600), "must be a file", id="a pipe"),
    pytest.param(lambda path: path.symlink_to("/dev/null"), "must be a file", id="a device"),
    pytest.param(_write(b""), "is empty", id="empty"),
    pytest.param(_write(b"\n"), "is empty", id="an empty line"),
    pytest.param(_write(b" \t\n\n  \n"), "is empty", id="blank lines"),
    pytest.param(_write(SECRET.encode()), ":1:1: the relay's credentials do not have the form", id="no colon"),
    pytest.param(_write(b"me " + SECRET.encode()), ":1:1: the relay's credentials do not have", id="a space instead"),
    pytest.param(_write(b":" + SECRET.encode()), ":1:1: the relay's credentials do not have", id="no user"),
    pytest.param(_write(b"  :" + SECRET.encode()), ":1:1: the relay's credentials do not have", id="a blank user"),
    pytest.param(_write(b"me:\n"), ":1:1: the relay's credentials do not have the form", id="no password"),
    pytest.param(_write(b"me:   \n"), ":1:1: the relay's credentials do not have the form", id="a blank password"),
    pytest.param(
        _write(b"m e:" + SECRET.encode()), ":1:1: the relay's user has spaces in it", id="a space in the user"
    ),
    pytest.param(_write(b"m\te:" + SECRET.encode()), ":1:2: ", id="a tab in the user"),
    pytest.param(_write(b"\xef\xbb\xbf" + GOOD), ":1:1: ", id="a byte order mark"),
    pytest.param(_write(b"me:hunter2-\x00hunter2"), ":1:12: ", id="a zero byte"),
    pytest.param(_write(b"me:hunter2-\x1bhunter2"), ":1:12: ", id="an escape"),
    pytest.param(_write(b"me: " + SECRET.encode()), ":1:4: the password begins or ends with a space", id="a space"),
    pytest.param(_write(b"me:x \r\n"), ":1:4: the password begins or ends with a space", id="a space at the end"),
    pytest.param(_write(GOOD + b"you:" + GOOD), ":2:1: the relay's credentials should be one line", id="two lines"),
    pytest.param(_write(b"\n" + GOOD), ":2:1: the relay's credentials should be one line", id="a blank line first"),
    pytest.param(_write(b"# mine\n" + GOOD), ":2:1: the relay's credentials should be one line", id="a comment first"),
    pytest.param(_write(b"user=me\npassword=" + GOOD), ":2:1: the relay's credentials should", id="an INI file"),
    pytest.param(_write("me:grüße".encode("latin-1")), ":1:6: the relay's credentials are not text", id="Latin-1"),
    pytest.param(_write(GOOD.decode().encode("utf-16")), ":1:1: the relay's credentials are not text", id="UTF-16"),
    pytest.param(_write(b"me:" + b"x" * 100_000), "longer than", id="100,000 letters"),
    pytest.param(_write(GOOD, 0o644), "(mode 0644)", id="0644"),
    pytest.param(_write(GOOD, 0o640), "(mode 0640)", id="0640"),
    pytest.param(_write(GOOD, 0o604), "(mode 0604)", id="0604"),
    pytest.param(_write(GOOD, 0o620), "(mode 0620)", id="0620"),
    pytest.param(_write(GOOD, 0o777), "(mode 0777)", id="0777"),
    pytest.param(_link_to(GOOD, 0o644), "(mode 0644)", id="a link to 0644"),
    pytest.param(_write(b"", 0o644), "(mode 0644)", id="empty and 0644"),
]


@pytest.mark.parametrize(("prepare", "says"), CREDENTIALS)
def test_credentials_that_cannot_be_used_are_told_without_showing_them(
    prepare: Callable[[Path], None], says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    prepare(file)
    outcome = wrong(*UP, "--relay", "smtp.example.net:587", "--relay-credentials", str(file))
    assert outcome.messages[0].startswith(f"mailstack: {file}:")
    assert says in outcome.messages[0]
    assert "hunter2" not in outcome.err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_credentials_of_another_user_are_refused(traces: Traces, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    _write(GOOD)(file)
    os.chown(file, 12345, 12345)
    outcome = run([*UP, "--relay", "smtp.example.net:587", "--relay-credentials", str(file)])
    assert (outcome.code, outcome.messages) == (
        2,
        [f"mailstack: {file}: the relay's credentials belong to another user"],
    )


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(lambda path: None, "does not exist", id="missing"),
        pytest.param(lambda path: path.mkdir(), "must be a file", id="a directory"),
        pytest.param(os.mkfifo, "must be a file", id="a pipe"),
        pytest.param(_write(b""), "contains no certificate", id="empty"),
        pytest.param(_write(b"not a certificate\n"), "contains no certificate", id="text"),
        pytest.param(_write(b"\xff\xfe\0"), "contains no certificate", id="binary"),
        pytest.param(
            _write(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "", id="a broken certificate"
        ),
        pytest.param(_write(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "", id="a key"),
    ],
)
def test_a_ca_for_the_relay_that_is_none_is_named(
    prepare: Callable[[Path], None], says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    ca, credentials = tmp_path / "ca.pem", tmp_path / "credentials"
    prepare(ca)
    _write(GOOD)(credentials)
    outcome = wrong(
        *UP, "--relay", "smtp.example.net:587", "--relay-credentials", str(credentials), "--relay-ca", str(ca)
    )
    assert str(ca) in outcome.messages[0]
    assert says in outcome.messages[0]
