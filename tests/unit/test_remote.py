"""Commands, ports and sockets over a connection to an SSH server of the test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.errors import DeadlinePassed, HostError
from mailstack.model import Command, Deadline, Result
from mailstack.ssh import execution
from mailstack.ssh.forwarding import Forwards, Sockets, join
from mailstack.ssh.remote import Remote
from mailstack.ssh.sudo_bridge import Bridge
from tests.unit.ssh_server import SECONDS, Server
from tests.unit.ssh_user import connected, free_port

pytestmark = [pytest.mark.sockets, pytest.mark.process]

Both = tuple[Server, Remote]


def shell(script: str, *, environment: dict[str, str] | None = None, data: bytes | None = None) -> Command:
    """Return the command that runs a script."""
    return Command(("sh", "-c", script), environment or {}, data)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Yield one connection for all tests that leave it as it is."""
    with connected(tmp_path_factory.mktemp("home")) as both:
        yield both


@pytest.fixture
def box(connection: Both) -> Remote:
    """Return the shared connection."""
    return connection[1]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_command_has_its_input_its_variables_and_both_outputs(box: Remote) -> None:
    asked = shell('cat; printf %s "$A" >&2; exit 3', environment={"A": "x y"}, data=b"in\nput")
    assert box.run(asked) == Result(3, "in\nput", "x y")


def test_a_command_that_a_signal_ended_has_the_code_of_the_signal(box: Remote) -> None:
    assert box.run(shell("kill -KILL $$")).code == -9


def test_a_command_need_not_read_its_input(box: Remote) -> None:
    assert box.run(shell("exec <&-; exit 4", data=b"x" * (1 << 23))).code == 4


def test_lines_are_told_in_order(box: Remote) -> None:
    lines: list[str] = []
    box.run(shell("for i in 1 2 3; do echo $i >&2; done"), on_line=lines.append)
    assert lines == ["1", "2", "3"]


def test_an_error_of_the_line_callback_ends_the_command(connection: Both, box: Remote) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="begun"):
        box.run(shell("echo begun >&2; exec sleep 5"), on_line=refuse)
    assert connection[0].runs[-1].process.wait(SECONDS) == -15


def test_a_command_that_is_late_is_ended(connection: Both, box: Remote) -> None:
    with pytest.raises(DeadlinePassed, match=r"`sleep 5` did not finish within 0\.2 s"):
        box.run(Command(("sleep", "5")), deadline=Deadline.after(0.2))
    assert connection[0].runs[-1].process.wait(SECONDS) == -15


def test_a_command_that_ignores_sigterm_is_killed(connection: Both, box: Remote) -> None:
    channel = box.session()

    def end(line: str) -> None:
        threading.Thread(target=box.end, args=(channel, 0.05)).start()

    with contextlib.suppress(HostError):  # the channel may be closed before the signal is told
        box.run(shell("trap '' TERM; echo ready >&2; sleep 5"), on_line=end, channel=channel)
    assert connection[0].runs[-1].process.wait(SECONDS) == -9


def test_the_end_of_a_command_that_has_ended_changes_nothing(connection: Both, box: Remote) -> None:
    channel = box.session()
    box.run(Command(("true",)), channel=channel)
    box.end(channel)
    assert connection[0].runs[-1].process.wait(SECONDS) == 0


def test_a_command_ends_though_its_outputs_are_held_open(box: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "LINGER_SECONDS", 0.3)
    assert box.run(shell("sleep 5 & echo done")).stdout == "done\n"


def test_output_without_the_mark_tells_why_the_command_was_not_started(
    connection: Both, box: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection[0], "line", "echo This account is closed >&2; exit 1")
    assert box.run(Command(("true",))) == Result(1, "", "This account is closed")


# ── ports and sockets ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def echo(runtime: Path) -> Iterator[Path]:
    """Yield the path of a socket that answers each message with itself, in capitals."""

    def answer(client: socket.socket) -> None:
        while data := client.recv(1 << 16):
            client.sendall(data.upper())

    with serving(Sockets(runtime / "echo", answer)):
        yield runtime / "echo"


@contextlib.contextmanager
def serving(server: Sockets) -> Iterator[None]:
    """Serve until the end."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        server.server_close()
        thread.join()


def said(line: socket.socket, text: bytes = b"hello") -> bytes:
    """Return the answer to a text, up to its end."""
    line.settimeout(SECONDS)
    line.sendall(text)
    line.shutdown(socket.SHUT_WR)
    with line.makefile("rb") as stream:
        return stream.read()


def test_a_socket_of_the_host_is_reached_by_a_socket_here(box: Remote, echo: Path) -> None:
    near = echo.with_name("near")
    with (
        serving(Sockets(near, lambda client: join(client, box.socket(str(echo))))),
        socket.socket(socket.AF_UNIX) as line,
    ):
        assert near.stat().st_mode & 0o777 == 0o600
        line.connect(str(near))
        assert said(line) == b"HELLO"


def test_a_socket_that_is_not_on_the_host_closes_the_client_s_connection(box: Remote, runtime: Path) -> None:
    near = runtime / "near"
    with (
        serving(Sockets(near, lambda client: join(client, box.socket("/nowhere")))),
        socket.socket(socket.AF_UNIX) as line,
    ):
        line.connect(str(near))
        line.settimeout(SECONDS)
        assert line.recv(1) == b""
    with pytest.raises(HostError, match="Connect failed"):
        box.socket("/nowhere")


def test_ports_are_forwarded_until_they_are_closed(box: Remote) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as far:
        far.settimeout(SECONDS)
        taken = far.getsockname()[1]
        forwards = Forwards(lambda number: box.port(taken))
        assert forwards.open([port, taken]) == [taken]
        assert forwards.open([port]) == []
        with socket.create_connection(("127.0.0.1", port), SECONDS) as line:
            other = far.accept()[0]
            with other:
                other.sendall(b"welcome")
                other.shutdown(socket.SHUT_WR)
                assert said(line) == b"welcome"
                assert other.recv(100) == b"hello"
        forwards.close([port, taken])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), SECONDS)


def test_a_port_at_which_nothing_listens_closes_the_client_s_connection(box: Remote) -> None:
    port, closed = free_port(), free_port()
    forwards = Forwards(lambda number: box.port(closed))
    forwards.open([port])
    with socket.create_connection(("127.0.0.1", port), SECONDS) as line:
        assert line.recv(1) == b""
    forwards.close([port])


# ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_program_is_ready_when_it_says_so(box: Remote) -> None:
    channel, errors = box.program(shell("echo ready; exec cat"), b"ready\n", SECONDS)
    channel.sendall(b"hello")
    channel.shutdown_write()
    assert (channel.recv(100), errors) == (b"hello", "")
    channel.close()


def test_a_program_that_ends_before_it_is_ready_has_its_errors_told(box: Remote) -> None:
    assert box.program(shell("echo why >&2; exit 1"), b"ready\n", SECONDS) == (None, "why\n")


def test_a_program_that_is_not_ready_in_time_is_ended(connection: Both, box: Remote) -> None:
    assert box.program(Command(("sleep", "5")), b"ready\n", 0.2)[0] is None
    assert connection[0].runs[-1].process.wait(SECONDS) == -15


@pytest.fixture
def sudo(connection: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the host a `sudo` that changes nothing."""
    (tmp_path / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "sudo").chmod(0o755)
    environment = connection[0].environment
    monkeypatch.setitem(environment, "PATH", f"{tmp_path}:{environment['PATH']}")


@pytest.mark.usefixtures("sudo")
@pytest.mark.skipif(not shutil.which("perl"), reason="needs Perl")
def test_an_engine_is_reached_by_sudo_over_one_program(connection: Both, box: Remote, echo: Path) -> None:
    bridge, before = Bridge(box), len(connection[0].runs)
    bridge.end()
    path = bridge.socket(str(echo.parent), str(echo), 0)
    assert bridge.socket(str(echo.parent), str(echo), 0) == path
    channel = box.socket(path)
    channel.sendall(b"hello")
    channel.settimeout(SECONDS)
    assert channel.recv(100) == b"HELLO"
    channel.close()
    bridge.end()
    assert len(connection[0].runs) - before == 1
    assert connection[0].runs[-1].process.wait(SECONDS) == 0 and not Path(path).exists()


@pytest.mark.usefixtures("sudo")
def test_a_bridge_that_cannot_be_run_is_told_with_its_errors(connection: Both, box: Remote, runtime: Path) -> None:
    with pytest.raises(HostError, match="by sudo cannot be started") as caught:
        Bridge(box).socket(str(runtime / "not" / "there"), "/nowhere", 0)
    assert caught.value.details
