"""Names, options and variables that are wrong: one message that names the one that is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.docker.bad import Outcome
from tests.docker.bad_input import RUN, with_name

pytestmark = pytest.mark.docker

LAB = f"options-{RUN}"  # never comes up
UP = ("up", "-n", LAB)


NAMES = ("", "Lab", "my lab", "my_lab", "my.lab", "-", "../lab", "a/b", "/", ".", "läb", "x" * 31, "lab\n", "a;b", "$A")


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_cannot_be_called_like_that(name: str, wrong: Callable[..., Outcome]) -> None:
    assert f"invalid lab name: {name!r}" in wrong("up", "-n", name).messages[0]


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
    assert wrong(*with_name(command, "absent")).messages == ["mailstack: there is no lab “absent”"]


@pytest.mark.parametrize("command", [*NEED_A_LAB, ("down",), ("config",)], ids=" ".join)
def test_every_command_refuses_a_name_that_leads_elsewhere(
    command: tuple[str, ...], wrong: Callable[..., Outcome]
) -> None:
    assert "invalid lab name: '../../etc'" in wrong(*with_name(command, "../../etc")).messages[0]


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
    (("up", "--relay-credentials", "/nowhere"), "--relay-credentials and --relay-ca need --relay"),
    (("up", "--relay-ca", "/nowhere"), "--relay-credentials and --relay-ca need --relay"),
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
    (("inbox", "bob@example.com", "--timeout", "1s"), "--count and --timeout need --watch"),
    (("read", "bob@example.com", "--raw", "--save", "."), "--raw excludes"),
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
    (("load", "--size", "9" * 5000), "is not a size"),
    (("load", "--connections", "0"), "0 is not in the range"),
    (("load", "--messages", "9" * 5000), "is not"),
    (("status", "--host", "ssh://machine:0"), "is not a host"),
    (("status", "--host", "ssh://machine:65536"), "is not a host"),
    (("status", "--host", "ssh://machine:" + "9" * 5000), "is not a host"),
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
    ("MAILSTACK_OWNER", "two words", "invalid MAILSTACK_OWNER: 'two words'", UP),
    ("MAILSTACK_OWNER", "a,b=c", "invalid MAILSTACK_OWNER: 'a,b=c'", UP),
    ("MAILSTACK_OWNER", "@me", "invalid MAILSTACK_OWNER: '@me'", UP),
    ("MAILSTACK_OWNER", "x" * 101, "invalid MAILSTACK_OWNER:", UP),
    ("MAILSTACK_OWNER", "löwe", "invalid MAILSTACK_OWNER:", ("down", "--all")),
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
