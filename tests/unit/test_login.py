"""Log in over SSH to a server of the test on the loopback interface."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from mailstack.errors import HostError
from mailstack.ssh import login
from mailstack.ssh.address import Host
from tests.unit.ssh_server import key

pytestmark = pytest.mark.sockets


class Silent(paramiko.ServerInterface):  # type: ignore[misc]
    """Does not answer about a key until the test is over."""

    def __init__(self, over: threading.Event) -> None:
        self._over = over

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._over.wait()
        return int(paramiko.AUTH_FAILED)


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the port of a host that greets and then is silent, for a user who has two keys for it."""
    ssh, over = tmp_path / ".ssh", threading.Event()
    ssh.mkdir(mode=0o700)
    own = paramiko.Ed25519Key.from_private_key_file(str(key(tmp_path / "host")))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as undo:
        port: int = listener.getsockname()[1]
        (ssh / "known_hosts").write_text(f"[127.0.0.1]:{port} {own.get_name()} {own.get_base64()}\n")
        names = [key(ssh / name) for name in ("first", "second")]
        (ssh / "config").write_text("Host *\n" + "".join(f"  IdentityFile {name}\n" for name in names))

        def serve() -> None:
            server = undo.enter_context(contextlib.closing(paramiko.Transport(listener.accept()[0])))
            server.add_server_key(own)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                server.start_server(server=Silent(over))

        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        over.set()
        thread.join()


def test_a_host_that_is_silent_while_logging_in_is_given_up_once_for_all_keys_and_is_called_silent(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert login.LOGIN_SECONDS <= 13  # with what else a command takes to begin: 15
    monkeypatch.setattr(login, "LOGIN_SECONDS", 1)
    begun = time.monotonic()
    with pytest.raises(HostError) as caught:
        login.log_in(Host("127.0.0.1", "somebody", silent), {})
    assert time.monotonic() - begun < 5
    name = f"ssh://somebody@127.0.0.1:{silent}"
    assert (type(caught.value), caught.value.message) == (
        HostError,
        f"{name}: no answer while logging in, after 1 s",
    )
    assert f"`ssh {name}`" in caught.value.remedy
