"""What a login ends with, for each answer of a host: the server is one of the test, on the loopback interface."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import paramiko
import pytest

from mailstack.errors import HostError
from mailstack.secret import Secret
from mailstack.ssh import login
from mailstack.ssh.address import Host
from tests.unit.ssh_server import Server, key
from tests.unit.ssh_user import free_port, home, threads_ended

pytestmark = pytest.mark.sockets


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a server."""
    with threads_ended(), contextlib.closing(Server(tmp_path)) as found:
        yield found


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    """Return the user's directory with the key for the server."""
    return home(tmp_path, monkeypatch, server)


def enter(host: Host, answers: Mapping[str, str] | None = None) -> int:
    """Log in, and leave. Return the number of connections."""
    hops = login.log_in(host, {question: Secret(answer) for question, answer in (answers or {}).items()})
    for hop in reversed(hops):
        hop.close()
    return len(hops)


def refused(host: Host, answers: Mapping[str, str] | None = None) -> HostError:
    """Return the error of a login."""
    with pytest.raises(HostError) as caught:
        enter(host, answers)
    assert str(host) in caught.value.message and caught.value.remedy
    return caught.value


def test_a_known_key_logs_in(server: Server, ssh: Path) -> None:
    assert enter(server.host) == 1


def test_a_jump_host_is_gone_through(server: Server, ssh: Path) -> None:
    with (ssh / "config").open("a") as config:
        config.write(f"Host far way\n  HostName 127.0.0.1\n  Port {server.port}\nHost far\n  ProxyJump tester@way\n")
    assert enter(Host("far", "tester")) == 2
    server.keys.clear()
    assert "(on the way, " in refused(Host("far", "tester")).message


def test_without_a_key_that_will_do_the_password_is_asked_for_where_it_may_help(server: Server, ssh: Path) -> None:
    server.keys.clear()
    question = f"password for {server.host}"
    error = refused(server.host, {question: "useless"})
    assert isinstance(error, login.Refused) and error.question == ""
    server.password = "right"
    error = refused(server.host)
    assert "none of your keys was accepted" in error.message
    assert isinstance(error, login.Refused) and error.question == question
    assert "is refused with this password" in refused(server.host, {question: "wrong"}).message
    assert enter(server.host, {question: "right"}) == 1


def test_without_any_key_the_password_is_asked_for(server: Server, ssh: Path) -> None:
    (ssh / "config").unlink()
    error = refused(server.host)
    assert isinstance(error, login.Refused) and error.question == f"password for {server.host}"


def test_the_passphrase_of_an_encrypted_key_is_asked_for(server: Server, ssh: Path) -> None:
    own = key(ssh / "encrypted", "right")
    (ssh / "config").write_text(f"Host *\n  IdentityFile {own}\n")
    server.keys = {paramiko.Ed25519Key.from_private_key_file(str(own), "right").get_base64()}
    question = f"passphrase of the key for {server.host}"
    for answers, says in (({}, "the key for it is encrypted"), ({question: "wrong"}, "wrong passphrase")):
        error = refused(server.host, answers)
        assert says in error.message
        assert isinstance(error, login.Refused) and error.question == question
    assert enter(server.host, {question: "right"}) == 1


def test_a_key_that_is_not_known_is_told_by_its_fingerprint(server: Server, ssh: Path) -> None:
    (ssh / "known_hosts").write_text("")
    assert f"its host key is unknown: {login.fingerprint(server.key)}" in refused(server.host).message


def test_a_key_that_has_changed_is_told_with_the_one_that_is_known(server: Server, ssh: Path, tmp_path: Path) -> None:
    other = paramiko.Ed25519Key.from_private_key_file(str(key(tmp_path / "other")))
    (ssh / "known_hosts").write_text(server.known.replace(server.key.get_base64(), other.get_base64()))
    error = refused(server.host)
    shown = (login.fingerprint(other), login.fingerprint(server.key))
    assert "its host key has changed: known is {}, offered was {}".format(*shown) in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in error.remedy or f"[127.0.0.1]:{server.port}" in error.remedy


def test_a_connection_that_is_cut_while_logging_in_says_nothing_of_the_keys(server: Server, ssh: Path) -> None:
    server.cuts = True
    assert "the connection was lost while logging in" in refused(server.host).message


def test_a_port_at_which_nothing_listens_is_told(server: Server, ssh: Path) -> None:
    port = free_port()
    error = refused(Host("127.0.0.1", "tester", port))
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" in error.message


def test_a_server_of_another_protocol_is_told(server: Server, ssh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            line = listener.accept()[0]
            with line, line.makefile("rb") as stream, contextlib.suppress(ConnectionError):
                line.sendall(b"220 mail.example.com ESMTP\r\n" * 200)
                stream.read()

        server.start(answer)
        assert "SSH failed" in refused(Host("127.0.0.1", "tester", listener.getsockname()[1])).message


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the host name cannot be resolved: Name or service"),
        (TimeoutError(), "it does not answer"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_an_error_of_the_network_is_told(
    server: Server, ssh: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, says: str
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert says in refused(server.host).message


@pytest.mark.parametrize("line", ["nonsense", "Port many"])
def test_a_configuration_that_cannot_be_read_is_told(server: Server, ssh: Path, line: str) -> None:
    (ssh / "config").write_text(f"Host *\n  {line}\n")
    assert "your SSH configuration cannot be used" in refused(Host("127.0.0.1")).message


def test_errors_of_the_program_itself_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), login.mapped(Host("box")):
        raise ZeroDivisionError
    with pytest.raises(HostError, match="box: the connection was lost"), login.mapped(Host("box")):
        raise EOFError
