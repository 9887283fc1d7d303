"""Commands as functions in this process, of an engine and the user's words. No process, no engine, no host."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pytest

from mailstack import state
from mailstack.actions.accounts import Accounts, _Tables
from mailstack.cli import hosts as several
from mailstack.cli.host import versions
from mailstack.cli.main import COMMANDS, cli
from mailstack.cli.options import Launch
from mailstack.config import files
from mailstack.errors import EngineError, HostError, InputError, MailstackError
from mailstack.host import doctor
from mailstack.lab import homes, leases
from mailstack.lab.running import RunningLab
from mailstack.model import Account, Domain, Lab, Result, ServiceState
from mailstack.roles import Role
from mailstack.secret import Secret
from tests.unit.fakes import FakeEngine, FakeRunner, FakeTarget

LAB = Lab("example.com", (Domain("example.com"),), (Account("alice@example.com"), Account("bob@example.com")))
DOCUMENT = {
    "mailname": "example.com",
    "domains": {"example.com": {}},
    "accounts": {"alice@example.com": {}, "bob@example.com": {}},
}
PORTS = ("submission", "submissions", "smtp", "imap", "imaps", "pop3", "pop3s")
SERVICES = [
    ServiceState(name, f"mailstack/{name}:tag", "running", "healthy", f"id-{name}", {"mail": "10.0.0.2"}, {}, 0, role)
    for name, role in (("dovecot", Role.STORE), ("postfix", Role.SUBMISSION), ("sender", Role.SENDER))
]


@dataclass(frozen=True)
class FakeLaunch(Launch):
    """A start of the command with the engine of the test."""

    reached: FakeEngine = field(default_factory=FakeEngine)
    asked: list[tuple[str, str]] = field(default_factory=list)  # host, context

    def engine(self, host: str, context: str) -> FakeEngine:
        self.asked.append((host, context))
        return self.reached


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLaunch:
    for name in [name for name in os.environ if name.startswith("MAILSTACK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("MAILSTACK_OWNER", "me@here")
    return FakeLaunch()


@pytest.fixture
def lab(launch: FakeLaunch) -> RunningLab:
    """Return the running lab `a`."""
    engine = launch.reached
    directory = homes.directory(engine, "a")
    directory.make()
    files.write(directory.files, files.desired(directory.files, LAB))
    ports = {name: 20000 + number for number, name in enumerate(PORTS)}
    directory.save(state.State("a", "me@here", "never", "tag", ("lab.yaml",), ports, document=DOCUMENT))
    engine.states["mailstack-a"] = list(SERVICES)
    engine.printed = {"id-postfix": "a line\n"}
    return RunningLab("a", engine)


@pytest.fixture
def run(launch: FakeLaunch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that runs a command line and returns its JSON document."""

    def run(*words: str) -> Any:
        try:
            cli.main([*words, "--json"], obj=launch, standalone_mode=False)
        except SystemExit as end:
            assert not end.code
        return json.loads(capsys.readouterr().out)

    return run


def test_status_is_of_the_lab_on_the_engine(run: Callable[..., Any], lab: RunningLab) -> None:
    found = run("status", "-n", "a")
    assert (found["lab"], [each["name"] for each in found["services"]]) == ("a", ["dovecot", "postfix", "sender"])
    assert found["endpoints"]["smtp"] == {"host": "127.0.0.1", "port": 20002}
    assert found["accounts"] == ["alice@example.com", "bob@example.com"]


def test_an_error_names_the_services_that_do_not_run(
    lab: RunningLab, launch: FakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = launch.reached
    engine.states["mailstack-a"] = [replace(each, state="paused") for each in engine.states["mailstack-a"][:1]]

    def refused(*_: object, **__: object) -> None:
        raise HostError("IMAP cannot be reached")

    monkeypatch.setattr("mailstack.cli.mailboxes.open_box", refused)
    with pytest.raises(HostError) as caught:
        cli.main(["inbox", "-n", "a", "bob@example.com"], obj=launch, standalone_mode=False)
    paused = engine.states["mailstack-a"][0].name
    assert caught.value.message == f"IMAP cannot be reached; not running: {paused} (paused)"
    assert caught.value.remedy == "`mailstack up -n a` starts it again"


def test_logs_are_those_of_the_services_without_secrets(run: Callable[..., Any], lab: RunningLab) -> None:
    secret = lab.password("alice@example.com").reveal()
    lab.engine.printed["id-dovecot"] = f"auth {secret}\n"  # type: ignore[attr-defined]
    logs = run("logs", "-n", "a")["logs"]
    assert logs["postfix"] == ["a line"] and secret not in str(logs)


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("account", "list", "-n", "a"), "accounts"),
        (("secrets", "reveal", "-n", "a", "alice@example.com"), "password"),
        (("env", "-n", "a"), "variables"),
    ],
)
def test_a_command_that_needs_the_lab_s_files_alone_asks_no_engine(
    run: Callable[..., Any], lab: RunningLab, words: tuple[str, ...], key: str
) -> None:
    lab.engine.silent = EngineError("it does not answer")  # type: ignore[attr-defined]
    assert run(*words)[key]


def test_the_options_say_which_engine(run: Callable[..., Any], lab: RunningLab, launch: FakeLaunch) -> None:
    run("status", "-n", "a", "--host", "box")
    run("status", "-n", "a", "--context", "near")
    run("status", "-n", "a")
    assert launch.asked == [("box", ""), ("", "near"), ("", "")]


def test_a_context_on_the_command_line_wins_over_hosts_in_the_environment(
    run: Callable[..., Any], lab: RunningLab, launch: FakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_HOST", "one two")
    run("status", "-n", "a", "--context", "near")
    assert launch.asked == [("", "near")]


@pytest.mark.parametrize("words", [["--help"], ["--nope"], ["--host", "box", "--context", "near"]])
@pytest.mark.parametrize("command", ["up", "down", "status", "logs", "doctor"])
def test_help_and_mistakes_on_the_command_line_reach_no_engine(
    launch: FakeLaunch, command: str, words: list[str]
) -> None:
    try:
        cli.main([command, *words], obj=launch, standalone_mode=False)
    except (click.ClickException, InputError, SystemExit):
        pass
    assert launch.asked == []


def test_every_option_that_names_a_target_only_keeps_what_was_typed() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        commands = command.commands.values() if isinstance(command, click.Group) else [command]
        for each in commands:
            assert [
                option.name for option in each.params if option.name in ("host", "context") and option.callback
            ] == []


def test_a_lab_that_is_not_there_is_told_with_the_host_to_bring_it_up_on(launch: FakeLaunch) -> None:
    launch = FakeLaunch(reached=FakeEngine(FakeTarget(host="box")))
    with pytest.raises(InputError, match="there is no lab “b”") as caught:
        cli.main(["status", "-n", "b"], obj=launch, standalone_mode=False)
    assert caught.value.remedy == "mailstack up -n b --host box"


def test_whatever_fails_once_the_host_has_gone_fails_for_that(lab: RunningLab) -> None:
    gone = HostError("box: the connection was lost")
    engine = FakeEngine(FakeTarget(gone=gone), silent=EngineError("no answer"))
    with pytest.raises(MailstackError) as caught:
        cli.main(["status", "-n", "a"], obj=FakeLaunch(reached=engine), standalone_mode=False)
    assert caught.value is gone


def test_several_hosts_are_each_given_the_command_line_and_no_engine_is_asked_here(
    launch: FakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[list[str], tuple[str, ...]]] = []

    def several_run(hosts: list[str], argv: tuple[str, ...]) -> int:
        ran.append((list(hosts), argv))
        return 3

    monkeypatch.setattr(several, "run", several_run)
    words = ("version", "--host", "one", "--host", "two")
    with pytest.raises(SystemExit) as end:
        cli.main(list(words), obj=FakeLaunch(argv=words), standalone_mode=False)
    assert (end.value.code, ran, launch.asked) == (3, [(["one", "two"], words)], [])


# ── functions below the command line ─────────────────────────────────────────────────────────────────────────────


def test_versions_are_told_as_far_as_they_are_known(launch: FakeLaunch) -> None:
    runner = FakeRunner(lambda command: Result(0, "5.6.1", ""))
    found, problem = versions(FakeEngine(silent=EngineError("no answer")), runner)
    assert (found["compose"], found["engine"]) == ("5.6.1", "") and problem and problem.message == "no answer"
    found, problem = versions(FakeEngine(), runner)
    assert (found["engine"], problem) == ("28.0.0", None)


@pytest.mark.sockets
def test_a_host_over_ssh_is_examined_where_it_is(launch: FakeLaunch) -> None:
    there = FakeRunner(lambda command: Result(0, "tmpfs\n", ""))
    target = FakeTarget(host="box", runner=there, clock_ahead=100.0, free=1 << 20)
    runner = FakeRunner(lambda command: Result(0, "5.6.1", ""))
    engine = FakeEngine(target)
    engine.held = {"debian:trixie-slim"}
    found = {each.name: each for each in doctor.examine(runner, engine)}
    assert found["engine"].found == "on box" and not found["disk"].ok
    assert found["secrets there"].ok and there.lines == ["stat -f -c %T /dev/shm/fake"]
    assert found["clock there"].found == "100 s ahead"
    assert "sends them there" in found["images"].remedy and "--host box" in found["images"].remedy
    here = doctor.examine(runner, FakeEngine())
    assert {"secrets there", "clock there"}.isdisjoint(each.name for each in here)


def test_accounts_that_are_added_and_removed_are_handed_over_alone(
    lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Tables, "_exchange", lambda self, postfix, line: None)
    monkeypatch.setattr(FakeEngine, "stream", lambda self, *_: __import__("socket").socket(), raising=False)
    monkeypatch.setattr(FakeEngine, "execute", lambda self, *_, **__: Result(0, "", ""))
    with Accounts(lab) as accounts:
        accounts.add("dora@example.com", password=Secret("hers"), fresh=True)
        accounts.remove_several(["dora@example.com"])
    changed = ("hand_over", ["added/dora@example.com", "addresses"])
    assert lab.target.calls == [changed, changed]  # type: ignore[attr-defined]


def test_the_guard_of_a_lab_is_told_its_target(lab: RunningLab) -> None:
    runner = FakeRunner()
    leases.guard(FakeTarget(host="box", url="unix:///tunnel.sock"), lab.directory.home, "a", runner)
    environment = runner.released[0].environment
    assert (environment["MAILSTACK_HOST"], environment["DOCKER_HOST"]) == ("box", "unix:///tunnel.sock")
