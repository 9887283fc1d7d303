"""The daemon of a connection, from its start to its end: it runs in a thread, and its host is a server of the test."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailstack.errors import DeadlinePassed, HostError
from mailstack.model import Command, Deadline, Result
from mailstack.secret import Secret
from mailstack.ssh import connection, daemon_client, tunnel
from mailstack.ssh.address import CONTROL, ENGINE
from mailstack.state import Home, LabDirectory, State, endpoint_of
from mailstack.storage import directories
from tests.unit.ssh_daemons import Daemons
from tests.unit.ssh_server import SECONDS, Server
from tests.unit.ssh_user import free_port, home, threads_ended, ticking

pytestmark = [pytest.mark.sockets, pytest.mark.process]


@pytest.fixture
def server(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Yield a host whose directory for labs is `runtime`, for a user who may log in."""
    monkeypatch.setenv(directories.VARIABLE, str(runtime))
    with threads_ended(), contextlib.closing(Server(tmp_path)) as found, ticking(monkeypatch):
        home(tmp_path, monkeypatch, found)
        found.replaced = {"/dev/shm/mailstack-hosted": f"{runtime}/hosted"}
        (runtime / "engine").touch()
        found.environment["DOCKER_HOST"] = f"unix://{runtime}/engine"
        yield found


@pytest.fixture
def daemons(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    """Yield what runs the daemons."""
    with contextlib.closing(Daemons(monkeypatch)) as found:
        yield found


@pytest.fixture
def directory(server: Server) -> Path:
    """Return the directory of the connection to the host."""
    return directories.root() / server.host.key


Join = Callable[..., connection.Connection]


@pytest.fixture
def join(server: Server, daemons: Daemons, directory: Path) -> Iterator[Join]:
    """Yield a function that joins the daemon as a command does, with answers to its questions."""
    joined: list[connection.Connection] = []

    def one(*answers: str) -> connection.Connection:
        left = list(answers)
        joined.append(
            daemon_client.join(server.host, directory, lambda question: Secret(left.pop(0)) if left else None)
        )
        return joined[-1]

    yield one
    for each in joined:
        each._control.close()


def test_the_first_command_starts_the_daemon_and_the_last_one_ends_it(
    join: Join, daemons: Daemons, directory: Path, runtime: Path
) -> None:
    first = join()
    second = join()
    assert len(daemons.threads) == 1
    assert (first.about["way"], first.about["socket"]) == ("socket", f"{runtime}/engine")
    assert Path(first.place) == Path(f"{runtime}/hosted-{first.about['uid']}") and Path(first.place).is_dir()
    first._control.close()
    lines: list[str] = []
    asked = Command(("sh", "-c", "cat; echo x >&2"), {}, b"in")
    assert second.run(asked, deadline=Deadline.after(SECONDS), on_line=lines.append) == Result(0, "in", "x")
    assert lines == ["x"]
    second._control.close()
    daemons.ended()
    assert not directory.exists() and not Path(first.place).exists()


def test_ports_and_the_engine_are_reached_over_the_daemon(join: Join, directory: Path, runtime: Path) -> None:
    found = join()
    (runtime / "engine").unlink()
    with socket.socket(socket.AF_UNIX) as engine, socket.socket(socket.AF_UNIX) as line:
        engine.bind(str(runtime / "engine"))
        engine.listen()
        engine.settimeout(SECONDS)
        line.connect(str(directory / ENGINE))
        line.sendall(b"hello")
        with engine.accept()[0] as other:
            assert other.recv(100) == b"hello"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert found.forward([port]) == [port]
    port = free_port()
    assert found.forward([port]) == []
    found.close([port])


def test_a_command_ends_with_its_client(join: Join, server: Server) -> None:
    def leave(line: str) -> None:
        raise KeyboardInterrupt

    found = join()
    with pytest.raises(KeyboardInterrupt):
        found.run(Command(("sh", "-c", "echo begun >&2; exec sleep 5")), on_line=leave)
    assert server.runs[-1].process.wait(SECONDS) == -15


def test_a_lab_keeps_its_connection_and_its_ports_are_forwarded_from_the_start(
    join: Join, daemons: Daemons, directory: Path
) -> None:
    port = free_port()
    directories.make(directory.parent, directories.Marker(directories.ROOT))
    at = LabDirectory(Home(directory.parent, endpoint_of(f"unix://{directory / ENGINE}"), "AN-ENGINE"), "kept")
    with at.locked(Deadline.after(SECONDS)):
        at.make()
        at.save(State("kept", "me", "never", "", (), {"smtp": port}))
    found = join()
    assert found.forward([port]) == []
    found._control.close()
    again = join()
    assert len(daemons.threads) == 1
    again.close([port])


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_questions_of_the_host_are_passed_on_until_the_answer_is_right(join: Join, server: Server) -> None:
    server.keys.clear()
    server.password = "right"
    assert join("wrong", "right").place


def test_a_question_is_not_asked_for_ever(join: Join, server: Server, directory: Path) -> None:
    server.keys.clear()
    server.password = "right"
    with pytest.raises(HostError, match="refused with this password"):
        join("1", "2", "3", "right")
    assert not directory.exists()


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (b"", "the daemon that keeps the connection exited"),
        (b"nonsense\n", "an unreadable answer"),
        (b"{}\n", "the connection was lost right after it was opened"),
    ],
)
def test_a_report_that_is_none_is_an_error(
    join: Join, server: Server, monkeypatch: pytest.MonkeyPatch, report: bytes, says: str
) -> None:
    def answer(starter: socket.socket) -> None:
        with starter:
            assert starter.recv(100)
            starter.sendall(report)

    def release(command: Command, stdin: int) -> None:
        server.start(answer, socket.socket(fileno=os.dup(stdin)))

    monkeypatch.setattr(daemon_client, "Local", lambda: SimpleNamespace(release=release))
    with pytest.raises(HostError, match=says):
        join()


def test_a_process_that_ends_at_once_is_an_error(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_client, "Local", lambda: SimpleNamespace(release=lambda command, stdin: None))
    with pytest.raises(HostError, match="the daemon that keeps the connection exited"):
        join()


def test_a_daemon_whose_starter_was_killed_ends(daemons: Daemons, server: Server) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        daemons.release(Command(("python", "-m", "daemon", str(server.host))), stdin=theirs.fileno())
    daemons.ended()
    assert not server.transports


# ── what the host says of itself ─────────────────────────────────────────────────────────────────────────────────────


def test_a_host_whose_shell_says_nothing_is_an_error(join: Join, server: Server) -> None:
    server.line = "echo This account is closed >&2; exit 1"
    with pytest.raises(HostError, match="its shell did not report the expected facts") as caught:
        join()
    assert caught.value.details == "This account is closed"


def test_a_host_without_a_private_directory_is_an_error(join: Join, runtime: Path) -> None:
    (runtime / f"hosted-{os.getuid()}").touch()
    with pytest.raises(HostError, match="no private directory for secrets"):
        join()


def test_a_host_whose_shell_waits_is_an_error(join: Join, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "_LOOK_SECONDS", 0.2)
    server.line = "exec sleep 5"
    with pytest.raises(DeadlinePassed, match=r"its shell did not answer within 0\.2 s"):
        join()


def test_an_engine_behind_sudo_is_led_to_from_the_start(join: Join, server: Server, tmp_path: Path) -> None:
    (tmp_path / "sudo").write_text("#!/bin/sh\necho ready\nexec cat\n")
    (tmp_path / "sudo").chmod(0o755)
    server.environment["PATH"] = f"{tmp_path}:{server.environment['PATH']}"
    server.replaced["way=socket"] = "way=sudo"
    found = join()
    before = len(server.runs)
    assert found.look()["way"] == "sudo" and len(server.runs) == before + 1


def test_a_daemon_ends_with_its_connection_and_leaves_the_directory_to_the_next_command(
    join: Join, daemons: Daemons, server: Server, directory: Path
) -> None:
    found = join()
    server.drop()
    daemons.ended()
    assert directory.is_dir() and not (directory / CONTROL).exists() and not (directory / ENGINE).exists()
    with pytest.raises(HostError, match="the connection was lost"):
        found.run(Command(("true",)))
