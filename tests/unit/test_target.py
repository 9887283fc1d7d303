"""The choice of a target, and the properties of each kind: no host is contacted, nothing is changed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import mailstack
from mailstack.errors import EngineError, HostError, InputError
from mailstack.model import Command, Json, Result
from mailstack.ssh import address, daemon_client
from mailstack.target import over_ssh as target_ssh
from mailstack.target.choice import choose
from mailstack.target.over_ssh import SshTarget
from mailstack.target.target import LocalTarget, Target

PACKAGE = Path(mailstack.__file__).parent
ABOUT = {
    "place": "/dev/shm/mailstack-hosted-7",
    "socket": "/run/docker.sock",
    "way": "socket",
    "user": "tester",
    "uid": 7,
    "clock": 0,
    "ports": [25, 587],
}


class FakeConnection:
    """A connection whose host gives the answers of a test, or is lost."""

    def __init__(self, answer: Callable[[Command], Result] = lambda command: Result(0, "", ""), **about: Any) -> None:
        self.host = address.parse("ssh://tester@box:2222")
        self.about: Json = {**ABOUT, **about}
        self.ahead = 60.0
        self.place = self.about["place"]
        self.gone: HostError | None = None
        self.commands: list[Command] = []
        self.forwarded: list[list[int]] = []
        self.closed: list[list[int]] = []
        self._answer = answer

    def look(self) -> Json:
        if self.gone:
            raise self.gone
        return self.about

    def run(self, command: Command, **_: Any) -> Result:
        self.commands.append(command)
        return self._answer(command)

    def forward(self, ports: Any) -> list[int]:
        self.forwarded.append(sorted(ports))
        return [25]

    def close(self, ports: Any) -> None:
        self.closed.append(sorted(ports))


def over_ssh(connection: Any) -> SshTarget:
    return SshTarget(connection, "unix:///run/user/7/@1/docker.sock", "unix:///var/run/docker.sock")


# ── the choice ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    """Return an environment with separate Docker contexts: `near`, `far` (over SSH), and `current`, the current one."""
    for name in ("near", "far", "current"):
        meta = tmp_path / "contexts" / "meta" / name / "meta.json"
        meta.parent.mkdir(parents=True)
        url = "ssh://tester@far" if name == "far" else f"unix:///{name}.sock"
        meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": url}}}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "current"}))
    return {"DOCKER_CONFIG": str(tmp_path)}


@pytest.mark.parametrize(
    ("variables", "context", "url"),
    [
        ({}, "", "unix:///current.sock"),
        ({"DOCKER_CONTEXT": "near"}, "", "unix:///near.sock"),
        ({"DOCKER_CONTEXT": "default"}, "", "unix:///var/run/docker.sock"),
        ({"DOCKER_HOST": "tcp://a:2375", "DOCKER_CONTEXT": "near"}, "", "tcp://a:2375"),
        ({"DOCKER_HOST": "tcp://a:2375"}, "near", "unix:///near.sock"),
    ],
)
def test_the_engine_is_the_one_that_docker_s_own_command_would_choose(
    docker: dict[str, str], variables: dict[str, str], context: str, url: str
) -> None:
    found = choose({**docker, **variables}, context=context)
    assert (found.url, found.host, found.own_url) == (url, "", "")


def test_a_context_that_is_not_known_is_told_when_its_engine_is_asked_for(docker: dict[str, str]) -> None:
    found = choose({**docker, "DOCKER_HOST": "tcp://a:2375"}, context="nope")
    with pytest.raises(EngineError, match="“nope” is not known"):
        found.url  # noqa: B018


@pytest.mark.parametrize(
    ("host", "variables", "name", "own"),
    [
        ("box", {}, "box", "unix:///current.sock"),
        ("box", {"DOCKER_HOST": "tcp://a:2375"}, "box", "tcp://a:2375"),
        ("", {"DOCKER_HOST": "ssh://tester@far"}, "ssh://tester@far", "ssh://tester@far"),
        ("", {"DOCKER_CONTEXT": "far"}, "ssh://tester@far", "ssh://tester@far"),
        ("box", {"DOCKER_CONTEXT": "nope"}, "box", "unix:///var/run/docker.sock"),
    ],
)
def test_a_host_is_reached_over_ssh_however_it_is_named(
    docker: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    variables: dict[str, str],
    name: str,
    own: str,
) -> None:
    asked = []

    def connect(*words: Any) -> SshTarget:
        asked.append(words[:2])
        return over_ssh(FakeConnection())

    monkeypatch.setattr(target_ssh, "connect", connect)
    before = dict(os.environ)
    assert choose({**docker, **variables}, host=host).host == "ssh://tester@box:2222"
    assert asked == [(name, own)]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ("unix:///mine.sock", "unix:///mine.sock"),
        ("tcp://a:2375", "unix:///var/run/docker.sock"),
        ("", "unix:///var/run/docker.sock"),
        ("THE HOST'S", "unix:///var/run/docker.sock"),
    ],
)
def test_the_own_engine_of_this_machine_is_never_the_host_s(
    monkeypatch: pytest.MonkeyPatch, runtime: Path, own: str, found: str
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(daemon_client, "join", lambda *words: FakeConnection())
    url = target_ssh.connect("box", "", lambda question: None).url
    assert target_ssh.connect("box", own.replace("THE HOST'S", url), lambda question: None).own_url == found


# ── what a target is for the rest ────────────────────────────────────────────────────────────────────────────────


def test_a_child_process_is_told_by_variables_where_to_work() -> None:
    assert LocalTarget("unix:///a").environment == {"DOCKER_HOST": "unix:///a", "MAILSTACK_HOST": ""}
    assert over_ssh(FakeConnection()).environment == {
        "DOCKER_HOST": "unix:///run/user/7/@1/docker.sock",
        "MAILSTACK_HOST": "ssh://tester@box:2222",
    }


def test_a_command_line_of_a_message_names_the_host() -> None:
    assert LocalTarget().line("up", lab="a") == "mailstack up -n a"
    assert over_ssh(FakeConnection()).line("up", lab="a") == "mailstack up -n a --host ssh://tester@box:2222"


@pytest.mark.parametrize(
    ("reason", "target", "says"),
    [
        ("refused", LocalTarget("unix:///a"), "no Docker engine answers at unix:///a"),
        (
            "Read timed out",
            LocalTarget("tcp://a:1"),
            "the Docker engine at tcp://a:1 accepts connections, but does not",
        ),
        ("connect timeout, timed out", LocalTarget("tcp://a:1"), "no Docker engine answers at tcp://a:1"),
        (
            "Permission denied",
            LocalTarget("unix:///a"),
            "this user has no permission to use the Docker engine at unix:///a",
        ),
        ("refused", over_ssh(FakeConnection()), "no Docker engine answers on ssh://tester@box:2222"),
        ("timed out", over_ssh(FakeConnection()), "no Docker engine answers on ssh://tester@box:2222"),
        (
            "x",
            over_ssh(FakeConnection(way="denied")),
            "tester has no permission to use the Docker engine on ssh://tester@box:2222",
        ),
        ("Permission denied", over_ssh(FakeConnection()), "tester has no permission to use the Docker engine on ssh"),
    ],
)
def test_why_an_engine_gives_no_answer_is_told_as_its_target_has_it(reason: str, target: Target, says: str) -> None:
    assert target.no_answer_error(reason).message.startswith(says)


def test_once_a_host_has_gone_everything_fails_because_of_that() -> None:
    connection = FakeConnection()
    target, error = over_ssh(connection), EngineError("it failed", details="somehow")
    assert target.root_cause(error) is error
    connection.gone = HostError("box: the connection was lost", remedy="wait")
    cause = target.root_cause(error)
    assert cause is connection.gone and "it failed" in cause.details
    own = InputError("a mistake")
    assert target.root_cause(own) is own
    with pytest.raises(HostError, match="was lost"):
        target.look()
    assert LocalTarget().root_cause(error) is error


def test_ports_are_those_of_this_machine_and_of_the_host() -> None:
    connection = FakeConnection()
    target = over_ssh(connection)
    assert (target.seed("a"), LocalTarget().seed("a")) == ("ssh://tester@box:2222 a", "a")
    assert (set(target.listening()), set(LocalTarget().listening())) == ({25, 587}, set())
    free = target.port_test()
    assert (free(25), free(26)) == (False, True)
    assert (target.forward([25, 26]), LocalTarget().forward([25, 26])) == ([25], [])
    target.close([26])
    assert (connection.forwarded, connection.closed) == ([[25, 26]], [[26]])


def test_the_engine_of_another_machine_shares_no_routes() -> None:
    assert LocalTarget("unix:///a").shares_kernel
    assert not LocalTarget("tcp://a:1").shares_kernel
    assert not over_ssh(FakeConnection()).shares_kernel


def test_an_earlier_version_s_places_and_endpoints_are_known() -> None:
    target, key = over_ssh(FakeConnection()), address.parse("ssh://tester@box:2222").key
    assert target.legacy_directory(Path("/run/x")) == Path("/run/x") / key
    assert target.matches_endpoint(f"unix:///elsewhere/{key}/docker.sock") and not target.matches_endpoint(
        "unix:///a/docker.sock"
    )
    assert LocalTarget("unix:///a").matches_endpoint("unix:///a") and LocalTarget().legacy_directory(
        Path("/x")
    ) == Path("/x")


def test_free_space_is_that_of_the_nearest_directory_that_can_be_seen(tmp_path: Path) -> None:
    assert LocalTarget().free_bytes(tmp_path / "not" / "there") > 0
    df = "Filesystem 1024-blocks Used Available Capacity Mounted\n/dev/x 100 40 60 40% /\n"
    assert over_ssh(FakeConnection(lambda command: Result(0, df, ""))).free_bytes(Path("/x")) == 60 * 1024


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Return the host's directory for labs."""
    return tmp_path / "there"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a lab's files on this machine."""
    found = tmp_path / "here" / "a" / "files"
    (found / "added").mkdir(parents=True)
    (found / "accounts").write_text("alice")
    (found / "addresses").write_text("")
    return found


@pytest.fixture
def sent(there: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConnection:
    """Return a host that is this machine: its scripts are run here."""
    monkeypatch.setenv("MAILSTACK_OWNER", "nobody-else")

    def run(command: Command) -> Result:
        done = subprocess.run(command.argv, input=command.input, capture_output=True, check=False)
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return FakeConnection(run, place=str(there))


def names(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


@pytest.mark.process
def test_all_files_are_the_same_on_the_host(sent: FakeConnection, files: Path) -> None:
    target = over_ssh(sent)
    place = Path(target.files_of(files))
    target.hand_over(files)
    (files / "accounts").write_text("alice\nbob")
    (files / "addresses").unlink()
    inode = (place / "accounts").stat().st_ino
    target.hand_over(files)
    assert names(place) == ["accounts"]
    assert (place / "accounts").read_text() == "alice\nbob"
    assert (place / "accounts").stat().st_ino == inode  # containers know it by that


@pytest.mark.process
def test_only_the_files_that_changed_are_sent(sent: FakeConnection, files: Path) -> None:
    target = over_ssh(sent)
    place = Path(target.files_of(files))
    (files / "added" / "old@example.com").write_text("old")
    target.hand_over(files)
    (files / "accounts").write_text("changed, and not named")
    (files / "added" / "old@example.com").unlink()
    (files / "added" / "dora@example.com").write_text("dora")
    target.hand_over(files, ["added/dora@example.com", "added/old@example.com"])
    assert names(place) == ["accounts", "added/dora@example.com", "addresses"]
    assert (place / "accounts").read_text() == "alice"
    with tarfile.open(fileobj=BytesIO(sent.commands[-1].input or b"")) as archive:
        assert sorted(archive.getnames()) == ["./.gone", "./added/dora@example.com"]


@pytest.mark.process
def test_where_the_host_has_lost_the_files_all_are_sent(sent: FakeConnection, files: Path) -> None:
    target = over_ssh(sent)
    target.hand_over(files, ["accounts"])
    assert names(Path(target.files_of(files))) == ["accounts", "addresses"]
    assert len(sent.commands) == 2


@pytest.mark.process
def test_the_files_are_forgotten_with_the_lab(sent: FakeConnection, files: Path, there: Path) -> None:
    target = over_ssh(sent)
    target.hand_over(files)
    there.chmod(0o700)
    target.forget("a", [25])
    assert not there.exists() and sent.closed == [[25]]


def test_files_that_find_no_room_are_told_with_the_room_that_there_is(files: Path) -> None:
    df = "Filesystem 1024-blocks Used Available Capacity Mounted\n/dev/x 100 99 1 99% /\n"
    full = FakeConnection(lambda command: Result(0, df, "") if "df" in command.argv else Result(1, "", "no space"))
    with pytest.raises(HostError, match="its shared memory is full, 1 KiB are free and 10 are needed"):
        over_ssh(full).hand_over(files, None)


# ── nothing else ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_changes_the_environment_of_the_process() -> None:
    """os.environ is read: who starts a process gives it its variables (`Command.environment`)."""
    changing = []
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        if not re.search(r"environ|putenv|unsetenv", source):  # to take apart all of them takes seconds
            continue
        for node in ast.walk(ast.parse(source)):
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Assign | ast.Delete | ast.AugAssign) else ""
            calls = ("os.environ.pop(", "os.environ.update(", "os.environ.setdefault(", "os.putenv(", "os.unsetenv(")
            if text.startswith(("os.environ[", "del os.environ", "os.environ |=", *calls)):
                changing.append(f"{path.name}:{node.lineno}")  # type: ignore[attr-defined]
    assert changing == []
