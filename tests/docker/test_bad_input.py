"""Whatever is wrong with what a user gives: one message that names the place, code 2 or 3, and nothing left behind.

Every eighth command runs as a process of its own, the others in this one, through the same entry point.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailstack import home, storage
from tests import engines
from tests.docker.bad import MAILSTACK, Outcome, Overlay, Traces, alone, overlays, run, run_here

pytestmark = pytest.mark.docker

# The names of this run's labs: another run may be at work on the same engine. All processes of one run have the same.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(3))[:6]
LAB = f"wrong-{RUN}"  # the one that never comes up
STANDING = f"standing-{RUN}"
UP = ("up", "-n", LAB)


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """An owner and a runtime directory of this module's own."""
    with alone("bad") as found:
        yield found


@pytest.fixture(scope="module")
def standing(traces: Traces) -> str:
    """A lab that is up."""
    assert run(["up", "-n", STANDING]).code == 0
    return STANDING


@pytest.fixture
def wrong(
    traces: Traces, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Runs a wrong command, and holds what is true of every one."""

    def judge(*argv: str, code: int = 2, alone: bool = False) -> Outcome:
        before = traces.all()
        outcome = run(argv) if alone or _number(request) % 8 == 0 else run_here(argv, capfd)
        assert "Traceback" not in outcome.err
        assert (outcome.code, len(outcome.messages), outcome.out) == (code, 1, ""), outcome
        assert outcome.rest == []
        assert traces.all() == before
        return outcome

    return judge


def _number(request: pytest.FixtureRequest) -> int:
    """Which of a test's cases this is."""
    number: int = request.node.callspec.indices.popitem()[1]
    return number


# ── overlays ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param(each, id=f"{name}: {each.title}")
        for name in ("yaml", "block", "compose")
        for each in overlays(name)
    ],
)
def test_a_mistake_in_an_overlay_is_told_with_its_line_and_column(
    overlay: Overlay, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_text(overlay.text, encoding="utf-8")
    message = wrong(*UP, "-f", str(file)).messages[0]
    assert message.startswith(f"mailstack: {file}:{overlay.place}: ")
    assert overlay.says in message


@pytest.mark.parametrize(
    ("data", "place", "says"),
    [
        pytest.param(b"x-mailstack:\n  mailname: exa\0mple.com\n", "2:16", "U+0000", id="a zero byte"),
        pytest.param(b"x-mailstack:\n  mailname: exa\7mple.com\n", "2:16", "U+0007", id="a bell"),
        pytest.param("# grüße\nx-mailstack: {}\n".encode("latin-1"), "1:5", "not text in UTF-8", id="Latin-1"),
        pytest.param(b"x-mailstack:\n  mailname: \xed\xa0\x80\n", "2:13", "not text in UTF-8", id="half a character"),
        pytest.param(b"\x7fELF\2\1\1\0\xff\xfe" + bytes(range(256)), "1:9", "not text in UTF-8", id="a program"),
        pytest.param(b"\x1f\x8b\x08\0\0\0\0\0", "1:2", "not text in UTF-8", id="a compressed file"),
        pytest.param(
            "x-mailstack:\n  mailname: example.net\n".encode("utf-16"), "2:3", "not one of the lab's", id="UTF-16"
        ),
        pytest.param(
            b"\xef\xbb\xbfx-mailstack:\n  colour: red\n", "2:3", "colour: is not known here", id="a byte order mark"
        ),
        pytest.param(b"x-mailstack:\r\n  colour: red\r\n", "2:3", "colour: is not known here", id="lines of Windows"),
        pytest.param(b"x-mailstack:\r  colour: red\r", "2:3", "colour: is not known here", id="lines of an old Mac"),
        pytest.param(b"x-mailstack: " + b"[" * 5000, "1:1", "nested too deeply", id="5000 brackets"),
        pytest.param(
            b"x-mailstack:\n  limits: {message_size: " + b"9" * 5000 + b"}\n",
            "2:12",
            "should be a size from 1K to 1024G",
            id="a number of 5000 digits",
        ),
        pytest.param(
            b"x-mailstack:\n  relay: {host: a.test, port: " + b"9" * 5000 + b"}\n",
            "2:25",
            "should be a port number",
            id="a port of 5000 digits",
        ),
    ],
)
def test_a_mistake_in_an_overlays_bytes_is_told_with_its_line_and_column(
    data: bytes, place: str, says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_bytes(data)
    message = wrong(*UP, "-f", str(file)).messages[0]
    assert message.startswith(f"mailstack: {file}:{place}: ")
    assert says in message


@pytest.mark.parametrize("command", [("up",), ("config",), ("secrets", "init", "secrets")])
def test_each_command_that_takes_overlays_says_the_same(
    command: tuple[str, ...], wrong: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("x-mailstack:\n  accounts:\n    dora@example.com: {}\n")
    Path("bad.yaml").write_text("x-mailstack:\n  accounts:\n    dora@example.com: 5\n")
    message = wrong(*command, "-f", "good.yaml", "-f", "bad.yaml").messages[0]
    assert f"{tmp_path}/bad.yaml:3:5: " in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "good.yaml"]


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(lambda path: None, "cannot be read: No such file", id="nothing"),
        pytest.param(lambda path: path.mkdir(), "cannot be read: Is a directory", id="a directory"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "cannot be read: No such file", id="a link to nothing"),
        pytest.param(lambda path: path.symlink_to(path), "cannot be read: Too many levels", id="a link to itself"),
        pytest.param(os.mkfifo, "should be a file", id="a pipe"),
        pytest.param(lambda path: _listen(path).close(), "should be a file", id="a socket"),
    ],
)
def test_an_overlay_that_cannot_be_read_is_named(
    prepare: Callable[[Path], None], says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "overlay.yaml"
    prepare(file)
    assert f"mailstack: {file}: {says}" in wrong(*UP, "-f", str(file)).messages[0]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("/etc/hostname/overlay.yaml", "Not a directory"),
        ("/" + "x" * 300, "File name too long"),
        ("/" + "x/" * 3000, "File name too long"),
        ("", "Is a directory"),
        ("-", "No such file"),
    ],
)
def test_an_overlay_that_cannot_be_there_is_refused(file: str, says: str, wrong: Callable[..., Outcome]) -> None:
    assert says in wrong(*UP, "-f", file).messages[0]


def _listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


# ── options and names ──────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("", "Lab", "my lab", "my_lab", "my.lab", "-", "../lab", "a/b", "/", ".", "läb", "x" * 31, "lab\n", "a;b", "$A")


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_cannot_be_called_like_that(name: str, wrong: Callable[..., Outcome]) -> None:
    assert f"a lab cannot be called {name!r}" in wrong("up", "-n", name).messages[0]


NEED_A_LAB = (
    ("status",),
    ("send",),
    ("inbox", "bob@example.com"),
    ("read", "bob@example.com"),
    ("reply", "bob@example.com", "--body", "x"),
    ("inbox", "bob@example.com", "--watch"),
    ("logs",),
    ("logs", "--json"),
    ("shell", "postfix"),
    ("check",),
    ("secrets", "rotate"),
    ("secrets", "reveal", "relay"),
)


@pytest.mark.parametrize("command", NEED_A_LAB, ids=" ".join)
def test_a_lab_that_is_not_there_is_named(command: tuple[str, ...], wrong: Callable[..., Outcome]) -> None:
    assert wrong(*_named(command, "absent")).messages == ["mailstack: there is no lab “absent”"]


@pytest.mark.parametrize("command", [*NEED_A_LAB, ("down",), ("config",)], ids=" ".join)
def test_every_command_refuses_a_name_that_leads_elsewhere(
    command: tuple[str, ...], wrong: Callable[..., Outcome]
) -> None:
    assert "a lab cannot be called '../../etc'" in wrong(*_named(command, "../../etc")).messages[0]


def _named(command: tuple[str, ...], name: str) -> tuple[str, ...]:
    at = 2 if command[0] == "secrets" else 1
    return (*command[:at], "-n", name, *command[at:])


OPTIONS = [
    (("up", "--ttl", ""), "--ttl"),
    (("up", "--ttl", "0"), "'0' is not a duration"),
    (("up", "--ttl", "-5m"), "'-5m' is not a duration"),
    (("up", "--ttl", "soon"), "'soon' is not a duration"),
    (("up", "--ttl", "5x"), "'5x' is not a duration"),
    (("up", "--ttl", "h"), "'h' is not a duration"),
    (("up", "--ttl", "nan"), "'nan' is not a duration"),
    (("up", "--ttl", "inf"), "'inf' is not a duration"),
    (("up", "--ttl", "1e400"), "'1e400' is not a duration"),
    (("up", "--ttl", "0.5s"), "'0.5s' is not a duration"),
    (("up", "--ttl", "400d"), "'400d' is not a duration"),
    (("up", "--ttl", "2h 30m"), "'2h 30m' is not a duration"),
    (("up", "--ttl"), "'--ttl' requires an argument"),
    (("up", "--relay", ""), "--relay"),
    (("up", "--relay", ":587"), "':587' is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:"), "'smtp.example.net:' is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:0"), "is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:65536"), "is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:smtp"), "is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:" + "9" * 5000), "is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:25:25"), "is not HOST:PORT"),
    (("up", "--relay", "smtp://smtp.example.net"), "is not HOST:PORT"),
    (("up", "--relay", "me@smtp.example.net:25"), "is not HOST:PORT"),
    (("up", "--relay", "[2001:db8::1]:25"), "is not HOST:PORT"),
    (("up", "--relay", "300.1.1.1:25"), "is not HOST:PORT"),
    (("up", "--relay", "smtp..net:25"), "is not HOST:PORT"),
    (("up", "--relay", "smtp example:25"), "is not HOST:PORT"),
    (("up", "--relay", "-smtp.example.net:25"), "is not HOST:PORT"),
    (("up", "--relay", "smtp.example.net:587"), "the relay smtp.example.net:587 needs credentials"),
    (("up", "--relay-credentials", "/nowhere"), "--relay-credentials and --relay-ca are for a relay outside"),
    (("up", "--relay-ca", "/nowhere"), "--relay-credentials and --relay-ca are for a relay outside"),
    (("up", "--progress", "loud"), "--progress"),
    (("up", "--keep=perhaps"), "--keep"),
    (("up", "--colour"), "--colour"),
    (("up", "-f"), "'-f' requires an argument"),
    (("up", "-n"), "'-n' requires an argument"),
    (("up", "lab"), "unexpected extra argument (lab)"),
    (("down", "lab"), "unexpected extra argument (lab)"),
    (("down", "--force"), "--force"),
    (("upp",), "No such command 'upp'"),
    (("secrets", "show"), "No such command 'show'"),
    (("secrets", "init"), "Missing argument 'DIRECTORY'"),
    (("inbox",), "Missing argument 'ADDRESS'"),
    (("read",), "Missing argument 'ADDRESS'"),
    (("reply",), "Missing argument 'ADDRESS'"),
    (("reply", "bob@example.com"), "Missing option '--body'"),
    (("inbox", "bob@example.com", "--timeout", "1s"), "--count and --timeout go with --watch"),
    (("read", "bob@example.com", "--raw", "--save", "."), "--raw gives the mail alone"),
    (("shell",), "Missing argument 'SERVICE'"),
    (("check", "no-such-check"), "no-such-check"),
    (("check", "--list", "no-such-check"), "no-such-check"),
    (("provision", "--progress", "loud"), "--progress"),
    (("load", "--rate", "nan"), "'nan' is not a number from 0.01"),
    (("load", "--rate", "inf"), "'inf' is not a number from 0.01"),
    (("load", "--rate", "1e999"), "'1e999' is not a number from 0.01"),
    (("load", "--rate", "-1"), "'-1' is not a number from 0.01"),
    (("load", "--seconds", "nan"), "'nan' is not a duration"),
    (("load", "--timeout", "9" * 5000), "is not a duration"),
    (("load", "--size", "9" * 5000), "is no size"),
    (("load", "--connections", "0"), "0 is not in the range"),
    (("load", "--messages", "9" * 5000), "is not"),
    (("status", "--host", "ssh://machine:0"), "is no host"),
    (("status", "--host", "ssh://machine:65536"), "is no host"),
    (("status", "--host", "ssh://machine:" + "9" * 5000), "is no host"),
    (("status", "--host", "@/nowhere"), "/nowhere: the list of hosts cannot be read"),
    (("status", "--host", "@/dev/zero"), "/dev/zero: is a device"),
    (("trace", "--logs", "/dev/zero"), "/dev/zero: cannot be read: it should be a file"),
    (("explain", "--logs", "/etc"), "/etc: cannot be read: Is a directory"),
    (("check", "--junit", "/dev/null/x.xml"), "/dev/null/x.xml"),
]


@pytest.mark.parametrize(("argv", "says"), OPTIONS, ids=[" ".join(argv)[:50] for argv, _ in OPTIONS])
def test_an_option_that_is_wrong_is_named(argv: tuple[str, ...], says: str, wrong: Callable[..., Outcome]) -> None:
    assert says in wrong(*argv).messages[0]


VARIABLES = [
    ("MAILSTACK_NAME", "My Lab", "'My Lab'", ("up",)),
    ("MAILSTACK_UP_TTL", "soon", "'soon' is not a duration", UP),
    ("MAILSTACK_UP_PROGRESS", "loud", "--progress", UP),
    ("MAILSTACK_UP_KEEP", "perhaps", "--keep", UP),
    ("MAILSTACK_UP_AS_JSON", "perhaps", "--json", UP),
    ("MAILSTACK_UP_RELAY", "smtp.example.net:x", "is not HOST:PORT", UP),
    ("MAILSTACK_UP_RELAY_CREDENTIALS", "/nowhere", "--relay-credentials", UP),
    ("MAILSTACK_UP_OVERLAYS", "/nowhere/overlay.yaml", "/nowhere/overlay.yaml", UP),
    ("MAILSTACK_SEND_TIMEOUT", "soon", "'soon' is not a duration", ("send",)),
    ("MAILSTACK_SEND_VIA", "pigeon", "'pigeon' is not one of", ("send",)),
    ("MAILSTACK_OWNER", "two words", "MAILSTACK_OWNER cannot be 'two words'", UP),
    ("MAILSTACK_OWNER", "a,b=c", "MAILSTACK_OWNER cannot be 'a,b=c'", UP),
    ("MAILSTACK_OWNER", "@me", "MAILSTACK_OWNER cannot be '@me'", UP),
    ("MAILSTACK_OWNER", "x" * 101, "MAILSTACK_OWNER cannot be", UP),
    ("MAILSTACK_OWNER", "löwe", "MAILSTACK_OWNER cannot be", ("down", "--all")),
]


@pytest.mark.parametrize(("variable", "value", "says", "argv"), VARIABLES)
def test_a_variable_that_is_wrong_is_named(
    variable: str,
    value: str,
    says: str,
    argv: tuple[str, ...],
    wrong: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    assert says in wrong(*argv).messages[0]


# ── credentials ────────────────────────────────────────────────────────────────────────────────────────────────────


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
    pytest.param(lambda path: None, ": the file with the relay's credentials is not there", id="missing"),
    pytest.param(lambda path: path.symlink_to("x"), ": the file with the relay's credentials is not there", id="link"),
    pytest.param(lambda path: path.symlink_to(path), "cannot be read: Too many levels", id="a link to itself"),
    pytest.param(lambda path: path.mkdir(mode=0o700), "should be a file", id="a directory"),
    pytest.param(lambda path: os.mkfifo(path, 0o600), "should be a file", id="a pipe"),
    pytest.param(lambda path: path.symlink_to("/dev/null"), "should be a file", id="a device"),
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
        pytest.param(lambda path: None, "is not there", id="missing"),
        pytest.param(lambda path: path.mkdir(), "should be a file", id="a directory"),
        pytest.param(os.mkfifo, "should be a file", id="a pipe"),
        pytest.param(_write(b""), "there is no certificate in it", id="empty"),
        pytest.param(_write(b"not a certificate\n"), "there is no certificate in it", id="text"),
        pytest.param(_write(b"\xff\xfe\0"), "there is no certificate in it", id="binary"),
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


# ── commands on a lab that is up ───────────────────────────────────────────────────────────────────────────────────

MESSAGES = [
    (("send", "--from", "alice"), "'alice' is not a mail address"),
    (("send", "--from", "alice@"), "'alice@' is not a mail address"),
    (("send", "--from", ""), "'' is not a mail address"),
    (("send", "--from", "nobody@example.com"), "nobody@example.com belongs to no account"),
    (("send", "--from", "alice@example.net"), "alice@example.net belongs to no account"),
    (("send", "--to", "bob"), "'bob' is not a mail address"),
    (("send", "--to", ""), "'' is not a mail address"),
    (("send", "--to", "bob@example"), "'bob@example' is not a mail address"),
    (("send", "--to", "bob@example.com,alice@example.com"), "is not a mail address"),
    (("send", "--to", "Bob <bob@example.com>"), "is not a mail address"),
    (("send", "--to", "bob@example.com\nBcc: alice@example.com"), "is not a mail address"),
    (("send", "--to", "bob@example.com", "--to", "böb@example.com"), "'böb@example.com' is not a mail address"),
    (("send", "--to", "a" * 65 + "@example.com"), "is not a mail address"),
    (("send", "--to", "-oQ/tmp@example.com", "--via", "pigeon"), "'pigeon' is not one of"),
    (("send", "--subject", "one\ntwo"), "the subject has control characters in it"),
    (("send", "--subject", "one\rBcc: bob@example.com"), "the subject has control characters in it"),
    (("send", "--subject", "a\x7fb"), "the subject has control characters in it"),
    (("send", "--subject", os.fsdecode(b"a\xffb")), "the subject"),
    (("send", "--body", os.fsdecode(b"a\xffb")), "the text"),
    (("send", "--attach", "/nowhere/file"), "/nowhere/file: there is no such file to attach"),
    (("send", "--attach", "/etc"), "/etc: is not a regular file"),
    (("send", "--attach", "/dev/zero"), "/dev/zero: is not a regular file"),
    *((("send", "--attach", f"a{c}b"), "has control characters in its name") for c in "\n\r\t\x1b\x7f\u2028"),
    (("send", "--attach", ""), ".: is not a regular file"),
    (("send", "--timeout", "0"), "'0' is not a duration"),
    (("send", "--timeout", "-1s"), "'-1s' is not a duration"),
    (("send", "--timeout", "soon"), "'soon' is not a duration"),
    (("inbox", "nobody@example.com"), "nobody@example.com is no account of lab “standing-"),
    (("inbox", "bob"), "bob is no account"),
    (("inbox", "team@example.com"), "team@example.com is no account"),
    (("inbox", ""), "is no account"),
    (("inbox", "bob@example.com\x1b[31m"), "is no account"),
    (("read", "nobody@example.com"), "nobody@example.com is no account of lab “standing-"),
    (("read", "bob@example.com"), "no mail is in the mailbox of bob@example.com"),
    (("read", "bob@example.com", "77"), "no mail with UID 77 is in the mailbox of bob@example.com"),
    (("read", "bob@example.com", "0"), "0 is not in the range"),
    (("read", "bob@example.com", "--", "-1"), "-1 is not in the range"),
    (("read", "bob@example.com", "newest"), "'newest' is not a valid integer"),
    (("read", "bob@example.com", "4294967296"), "4294967296 is not in the range"),
    (("read", "bob@example.com", "9" * 5000), "is not"),
    (("inbox", "nobody@example.com", "--watch"), "nobody@example.com is no account of lab “standing-"),
    (("inbox", "bob@example.com", "--watch", "--count", "0"), "0 is not in the range"),
    (("reply", "nobody@example.com", "--body", "x"), "nobody@example.com is no account of lab “standing-"),
    (("reply", "team@example.com", "--body", "x"), "team@example.com is no account"),
    (("reply", "bob@example.com", "--body", "x"), "no mail is in the mailbox of bob@example.com"),
    (("reply", "bob@example.com", "77", "--body", "x"), "no mail with UID 77 is in the mailbox of bob@example.com"),
    (("secrets", "reveal", "nobody@example.com"), "nobody@example.com is no account of lab “standing-"),
    (("secrets", "reveal", "Relay"), "Relay is no account"),
    (("logs", "--json", "--follow"), "--json gives one document, and --follow has no end"),
    (("logs", "postfix", "imap"), "has no service 'imap'; services: dovecot, postfix, sender"),
    (("shell", "exim"), "has no service 'exim'"),
    (("check", "nonsense"), "nonsense"),
    (("check", "--junit", "/nowhere/report.xml"), "/nowhere/report.xml: there is no such directory"),
    (("check", "--junit", "/etc"), "/etc: is a directory"),
    (("up", "--relay", "smtp.example.net:587", "--relay-credentials", "/nowhere"), "/nowhere"),
    (("up", "-f", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
    (("config", "-f", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
]


@pytest.mark.parametrize(("argv", "says"), MESSAGES, ids=[ascii(" ".join(argv))[:60] for argv, _ in MESSAGES])
def test_a_lab_that_is_up_is_asked_for_what_cannot_be(
    argv: tuple[str, ...], says: str, standing: str, wrong: Callable[..., Outcome]
) -> None:
    assert says in wrong(*_named(argv, standing)).messages[0]


def test_a_text_that_is_no_text_is_not_sent(standing: str) -> None:
    outcome = run(["send", "-n", standing, "--body", "-"], stdin=b"gr\xfc\xdfe\n")
    assert (outcome.code, len(outcome.messages), outcome.out) == (2, 1, "")
    assert "standard input" in outcome.messages[0]


# ── places to write to ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Place:
    """A directory that cannot be used."""

    path: str
    says: str
    prepare: Callable[[Path], None] = field(default=lambda tmp: None)


PLACES = [
    pytest.param(Place("file", "", lambda tmp: (tmp / "file").touch()), id="a file"),
    pytest.param(Place("file/below", "Not a directory", lambda tmp: (tmp / "file").touch()), id="below a file"),
    pytest.param(Place("link", "", lambda tmp: (tmp / "link").symlink_to("nowhere")), id="a link to nothing"),
    pytest.param(Place("/proc/mailstack", ""), id="in /proc"),
    pytest.param(Place("/dev/null/mailstack", "Not a directory"), id="below a device"),
    pytest.param(Place("x" * 300, "File name too long"), id="a name of 300 letters"),
    pytest.param(
        Place("others", "belongs to another user", lambda tmp: _given_away(tmp / "others")),
        id="another user's",
        marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away"),
    ),
]


def _given_away(path: Path) -> None:
    path.mkdir()
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", [("up",), ("down", "-n", LAB)], ids=" ".join)
def test_a_runtime_directory_that_cannot_be_used_is_named(
    command: tuple[str, ...],
    place: Place,
    wrong: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.prepare(tmp_path)
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / place.path))
    message = wrong(*command, code=3).messages[0]
    assert str(tmp_path / place.path) in message
    assert place.says in message


@pytest.mark.parametrize("taken", ["", ".lock", "/files", "/files/accounts", "/lab.json"])
def test_what_stands_in_the_way_in_the_runtime_directory_is_named(
    taken: str, wrong: Callable[..., Outcome], traces: Traces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "run"))
    path = Path(f"{home.current(engines.here()).path}/{LAB}{taken}")
    home.current(engines.here()).make()
    if taken.startswith("/"):
        home.directory(engines.here(), LAB).make()
        if taken == "/files":
            path.rmdir()
    if path.suffix or path.name == "accounts":
        path.mkdir()
    else:
        path.touch()
    assert str(path) in wrong(*UP, code=3).messages[0]


def test_a_disk_that_is_full_is_told_with_the_file_and_nothing_is_left(traces: Traces) -> None:
    before = traces.all()
    # What stands for a full disk: files of 1024 bytes at the most.
    limited = subprocess.run(
        ("bash", "-c", f"ulimit -f 1; exec {MAILSTACK} up -n {LAB}"), check=False, capture_output=True, text=True
    )
    outcome = Outcome(limited.returncode, limited.stdout, limited.stderr)
    assert (outcome.code, len(outcome.messages), outcome.out) == (3, 1, "")
    assert f"{home.directory(engines.here(), LAB).path}/" in outcome.messages[0]
    assert traces.all() == before


def test_a_runtime_directory_and_a_note_that_cannot_be_read_are_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", "relative")
    storage.make(storage.root(), storage.Marker(storage.ROOT))
    (storage.root() / "compose.json").mkdir(mode=0o700)
    assert run(UP).code == 0
    assert run(["down", "-n", LAB]).code == 0


@pytest.mark.parametrize("place", PLACES)
def test_secrets_cannot_be_written_there(place: Place, wrong: Callable[..., Outcome], tmp_path: Path) -> None:
    place.prepare(tmp_path)
    message = wrong("secrets", "init", str(tmp_path / place.path), code=3).messages[0]
    assert str(tmp_path / place.path) in message
    assert place.says in message


# ── engines ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _answering(server: socket.socket, answer: bytes) -> Iterator[None]:
    """Whoever connects to `server` gets `answer`, and no more."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


ENGINES = [
    "unix:///nowhere/docker.sock",
    "unix:///etc/hostname",
    "unix:///etc",
    "tcp://127.0.0.1:1",
    "tcp://127.0.0.1:port",
    "tcp://127.0.0.1:99999",
    "tcp://",
    "http://127.0.0.1:1",
    "https://127.0.0.1:1",
    "ftp://127.0.0.1:1",
    "nonsense",
    "tcp://no-such-host.invalid:2375",
]

NEED_AN_ENGINE = (UP, ("down", "-n", LAB), ("down", "--all"))


@pytest.mark.parametrize("command", NEED_AN_ENGINE, ids=("up", "down", "down --all"))
@pytest.mark.parametrize("host", ENGINES)
def test_an_engine_that_does_not_answer_is_named(
    host: str, command: tuple[str, ...], wrong: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    message = wrong(*command, code=3).messages[0]
    assert f"no Docker engine answers at {host}" in message


@pytest.mark.parametrize("command", NEED_AN_ENGINE, ids=("up", "down", "down --all"))
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"220 mail.example.com ESMTP\r\n", id="a mail server"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="a web server"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found", id="a web server without it"),
    ],
)
def test_what_answers_is_no_engine(
    answer: bytes,
    command: tuple[str, ...],
    wrong: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    host = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", host)
    with _answering(_listen(tmp_path / "docker.sock"), answer):
        assert host in wrong(*command, code=3).messages[0]


@pytest.mark.parametrize("command", NEED_AN_ENGINE, ids=("up", "down", "down --all"))
def test_a_context_that_is_not_known_is_named(
    command: tuple[str, ...], wrong: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")
    assert "the Docker context “no-such-context” is not known" in wrong(*command, code=3).messages[0]


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("logs",),
        ("logs", "--json"),
        ("shell", "postfix", "true"),
        ("check",),
        ("secrets", "rotate"),
        ("send", "--via", "sender"),
        ("up",),
    ],
    ids=" ".join,
)
def test_a_lab_whose_engine_has_gone_says_so(
    command: tuple[str, ...], standing: str, wrong: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    message = wrong(*_named(command, standing), code=3).messages[0]
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in message


# ── what is taken, and what the engine refuses ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", ["postfix", "dovecot", "sender"])
def test_a_port_that_is_taken_is_named(service: str, wrong: Callable[..., Outcome], tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        network = "    networks: {edge: {}}\n" if service == "sender" else ""
        overlay.write_text(f"services:\n  {service}:\n    ports: ['127.0.0.1:{port}:25']\n{network}")
        outcome = wrong(*UP, "-f", str(overlay), code=3)
    assert f"127.0.0.1:{port} is taken" in outcome.messages[0]


REFUSED = [
    ("    networks: {mail: {ipv4_address: 203.0.113.5}}\n", ""),
    ("    container_name: my postfix\n", "my postfix"),
    ("    devices: [/dev/nowhere]\n", "/dev/nowhere"),
    ("    restart: perhaps\n", "restart"),
    ("    user: nobody-of-that-name\n", "nobody-of-that-name"),
    ("    working_dir: relative\n", "relative"),
    ("    image: mailstack/no-such-image:none\n", "mailstack/no-such-image"),
    ("    runtime: no-such-runtime\n", "no-such-runtime"),
    ("    entrypoint: [/no/such/program]\n", "/no/such/program"),
]


@pytest.mark.parametrize(("lines", "says"), REFUSED, ids=[lines.strip() for lines, _ in REFUSED])
def test_what_the_engine_refuses_is_told_in_its_words(
    lines: str, says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"services:\n  sender:\n{lines}")
    outcome = wrong(*UP, "-f", str(overlay), code=3)
    assert f"lab “{LAB}” could not be started" in outcome.messages[0]
    assert says in outcome.err


def _docker(*words: str) -> str:
    return subprocess.run(("docker", *words), check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def another() -> Iterator[tuple[str, list[str]]]:
    """A name, and the labels of a lab of that name that is somebody else's."""
    name = f"taken-{secrets.token_hex(4)}"
    labels = {
        "mailstack.lab": name,
        "mailstack.owner": "somebody@else",
        "com.docker.compose.project": f"mailstack-{name}",
    }
    yield name, [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    wanted = f"label=mailstack.lab={name}"
    for kind, rm in (("ps -aq", "rm -f"), ("volume ls -q", "volume rm"), ("network ls -q", "network rm")):
        for found in _docker(*kind.split(), "--filter", wanted).splitlines():
            _docker(*rm.split(), found)


@pytest.mark.parametrize("command", ["up", "down"])
@pytest.mark.parametrize("kind", ["network", "volume", "container"])
def test_another_users_lab_of_this_name_is_left_alone(
    kind: str, command: str, another: tuple[str, list[str]], wrong: Callable[..., Outcome], standing: str
) -> None:
    name, labels = another
    image = _docker("inspect", "-f", "{{.Image}}", f"mailstack-{standing}-sender-1")
    make = {
        "network": ("network", "create", *labels, f"mailstack-{name}_mail"),
        "volume": ("volume", "create", *labels, f"mailstack-{name}_queue"),
        "container": (
            *("create", "--name", f"mailstack-{name}-postfix-1", *labels),
            *("--label", "com.docker.compose.service=postfix", image),
        ),
    }
    thing = _docker(*make[kind])
    assert "somebody@else" in wrong(command, "-n", name).messages[0]
    assert _docker(kind, "inspect", "-f", "{{.Name}}", thing)
