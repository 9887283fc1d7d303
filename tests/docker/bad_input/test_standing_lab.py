"""A lab that is up, asked for what cannot be; and labs of other users, which are left alone."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator

import pytest

from mailstack.engine import projects
from tests.docker.bad import Outcome, run
from tests.docker.bad_input import with_name

pytestmark = pytest.mark.docker


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
    (("inbox", "nobody@example.com"), "nobody@example.com is not an account of lab “standing-"),
    (("inbox", "bob"), "bob is not an account"),
    (("inbox", "team@example.com"), "team@example.com is not an account"),
    (("inbox", ""), "is not an account"),
    (("inbox", "bob@example.com\x1b[31m"), "is not an account"),
    (("read", "nobody@example.com"), "nobody@example.com is not an account of lab “standing-"),
    (("read", "bob@example.com"), "no mail is in the mailbox of bob@example.com"),
    (("read", "bob@example.com", "77"), "no mail with UID 77 is in the mailbox of bob@example.com"),
    (("read", "bob@example.com", "0"), "0 is not in the range"),
    (("read", "bob@example.com", "--", "-1"), "-1 is not in the range"),
    (("read", "bob@example.com", "newest"), "'newest' is not a valid integer"),
    (("read", "bob@example.com", "4294967296"), "4294967296 is not in the range"),
    (("read", "bob@example.com", "9" * 5000), "is not"),
    (("inbox", "nobody@example.com", "--watch"), "nobody@example.com is not an account of lab “standing-"),
    (("inbox", "bob@example.com", "--watch", "--count", "0"), "0 is not in the range"),
    (("reply", "nobody@example.com", "--body", "x"), "nobody@example.com is not an account of lab “standing-"),
    (("reply", "team@example.com", "--body", "x"), "team@example.com is not an account"),
    (("reply", "bob@example.com", "--body", "x"), "no mail is in the mailbox of bob@example.com"),
    (("reply", "bob@example.com", "77", "--body", "x"), "no mail with UID 77 is in the mailbox of bob@example.com"),
    (("secrets", "reveal", "nobody@example.com"), "nobody@example.com is not an account of lab “standing-"),
    (("secrets", "reveal", "Relay"), "Relay is not an account"),
    (("logs", "--json", "--follow"), "--json and --follow exclude each other"),
    (("logs", "postfix", "imap"), "has no service 'imap'"),
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
    assert says in wrong(*with_name(argv, standing)).messages[0]


def test_a_text_that_is_no_text_is_not_sent(standing: str) -> None:
    outcome = run(["send", "-n", standing, "--body", "-"], stdin=b"gr\xfc\xdfe\n")
    assert (outcome.code, len(outcome.messages), outcome.out) == (2, 1, "")
    assert "standard input" in outcome.messages[0]


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
    message = wrong(*with_name(command, standing), code=3).messages[0]
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in message


# ── other users' labs ──────────────────────────────────────────────────────────────────────────────────────────────


def _docker(*words: str) -> str:
    return subprocess.run(("docker", *words), check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def another() -> Iterator[tuple[str, list[str]]]:
    """A name, and the labels of a lab of that name that is somebody else's."""
    name = f"taken-{secrets.token_hex(4)}"
    labels = {
        "mailstack.lab": name,
        "mailstack.owner": "somebody@else",
        "com.docker.compose.project": projects.project_name(name),
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
    image = _docker("inspect", "-f", "{{.Image}}", f"{projects.project_name(standing)}-sender-1")
    make = {
        "network": ("network", "create", *labels, f"{projects.project_name(name)}_mail"),
        "volume": ("volume", "create", *labels, f"{projects.project_name(name)}_queue"),
        "container": (
            *("create", "--name", f"{projects.project_name(name)}-postfix-1", *labels),
            *("--label", "com.docker.compose.service=postfix", image),
        ),
    }
    thing = _docker(*make[kind])
    assert "somebody@else" in wrong(command, "-n", name).messages[0]
    assert _docker(kind, "inspect", "-f", "{{.Name}}", thing)
