"""Errors of libraries become errors of mailstack, class by class. Other errors keep their meaning."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailstack import library_errors
from mailstack.engine import client as engine_client
from mailstack.engine.engine import Engine
from mailstack.engine.unix_api import UnixApi
from mailstack.engine.unix_connection import Silent
from mailstack.errors import CheckFailed, EngineError, HostError, InputError, Interrupted, MailstackError
from mailstack.model import Endpoint
from mailstack.protocol import imap, smtp
from mailstack.ssh import login
from mailstack.ssh.address import Host
from mailstack.target.target import LocalTarget

WHERE = Endpoint("127.0.0.1", 1)
ENGINE = engine_client.errors(LocalTarget())
TABLES = {
    "docker.errors": ENGINE,
    "docker.credentials.errors": ENGINE,
    "docker.utils.socket": ENGINE,
    "requests.exceptions": ENGINE,
    "urllib3.exceptions": ENGINE,
    "http.client": ENGINE,
    "mailstack.engine.unix_connection": ENGINE,
    "smtplib": smtp.SMTP_ERRORS,
    "ssl": smtp.SMTP_ERRORS,
    "imaplib": imap.errors(WHERE, "u"),
    "imap_tools.errors": imap.errors(WHERE, "u"),
    "paramiko.ssh_exception": login.errors(Host("box")),
    "paramiko.hostkeys": login.errors(Host("box")),
}


def classes(module: str) -> list[type[Exception]]:
    """Return the errors that a module of a library defines, including those in classes."""
    found: list[type[Exception]] = []
    for each in vars(importlib.import_module(module)).values():
        inside = vars(each).values() if inspect.isclass(each) else ()
        for one in (each, *inside):
            if inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == module:
                found.append(one)
    return [one for one in dict.fromkeys(found) if not issubclass(one, Warning)]


EVERY = [
    pytest.param(TABLES[module], kind, id=f"{module}.{kind.__qualname__}")
    for module in TABLES
    for kind in classes(module)
]


def test_there_are_errors_to_look_at() -> None:
    assert {module for module in TABLES if not classes(module)} == set()
    assert len(EVERY) > 100


@pytest.mark.parametrize(("table", "kind"), EVERY)
def test_each_error_of_a_library_is_an_error_of_ours(table: library_errors.Table, kind: type[Exception]) -> None:
    assert f"{kind.__module__}.{kind.__qualname__}" in table.names
    # Whatever its constructor asks for.
    made = type("Made", (kind,), {"__init__": lambda self: None, "__str__": lambda self: "the reason"})
    found = table.of(made())
    assert isinstance(found, MailstackError)
    assert found.message


def test_what_is_in_a_table_is_there() -> None:
    missing = []
    for table in {id(each): each for each in TABLES.values()}.values():
        for name in table.names:
            module, _, rest = name.partition(".IMAP4.") if ".IMAP4." in name else name.rpartition(".")
            holder: object = importlib.import_module(module)
            for part in ("IMAP4", rest) if ".IMAP4." in name else (rest,):
                holder = getattr(holder, part, None)
            missing += [] if inspect.isclass(holder) else [name]
    # Of a library that is older or newer than the one here.
    assert missing == []


@pytest.mark.parametrize("table", {id(each): each for each in (ENGINE, TABLES["imaplib"])}.values())
@pytest.mark.parametrize("error", [OSError(28, "full"), ValueError("own"), KeyError("own"), PermissionError(13, "own")])
def test_an_error_of_our_own_is_none_of_a_library_s(table: library_errors.Table, error: Exception) -> None:
    assert table.of(error) is None


def test_errors_of_ours_pass_unchanged() -> None:
    for error in (InputError("own"), HostError("own"), Interrupted("own")):

        @engine_client.mapped
        def ask(asked: engine_client.Client, error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            ask(engine_client.Client(LocalTarget()))
        assert caught.value is error


# ── the engine's ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Yield a function that serves one answer to all requests on an engine's Unix socket, and returns its address."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "engine.sock"))
    listener.listen()

    def run(answer: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    asked = connection.recv(1 << 16)
                    while b"/images/load" in asked and not asked.endswith(b"\r\n0\r\n\r\n"):
                        if not (more := connection.recv(1 << 16)):
                            break
                        asked += more
                    version = b'{"ApiVersion": "1.41", "MinAPIVersion": "1.24"}'
                    tty = b'{"Config": {"Tty": true}}'
                    text = version if b"/version" in asked else tty if b"/json " in asked else answer
                    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text)
                    connection.sendall(head + text)

    def begin(answer: bytes) -> str:
        threading.Thread(target=run, args=(answer,), daemon=True).start()
        return f"unix://{tmp_path}/engine.sock"

    yield begin
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize("buffering", [0, 8192])
@pytest.mark.sockets
def test_a_full_disk_while_logs_are_copied_is_told_as_that_with_its_place(
    serve: Callable[[bytes], str], buffering: int
) -> None:
    there = Engine(LocalTarget(serve(b"2026-11-29T12:00:00Z a line\n")))
    full = Path("/dev/full").open("wb", buffering=buffering)  # noqa: SIM115
    with pytest.raises(HostError) as caught:
        there.copy_logs("abc", full)
    with contextlib.suppress(OSError):
        full.close()
    assert caught.value.message.startswith("/dev/full: the logs cannot be written there: No space left")
    assert not isinstance(caught.value, EngineError)


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), BrokenPipeError(32, "mine"), ValueError("mine"), InputError("x")]
)
@pytest.mark.sockets
def test_what_goes_wrong_with_images_that_are_given_to_an_engine_is_told_as_that(
    serve: Callable[[bytes], str], error: Exception
) -> None:
    def archive() -> Iterator[bytes]:
        yield b"begun"
        raise error

    with pytest.raises(type(error)) as caught:
        Engine(LocalTarget(serve(b""))).load(archive())
    assert caught.value is error


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1:x", "http://[::1", "nonsense://x", "tcp://"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(EngineError):
        Engine(LocalTarget(url)).info()


@pytest.mark.parametrize("path", ["/nowhere/docker.sock", "/tmp/" + "x" * 200, "/tmp/\0"])
@pytest.mark.sockets
def test_a_socket_that_is_none_is_told(path: str) -> None:
    with pytest.raises(Silent):
        UnixApi(path).info()
    with pytest.raises(EngineError, match="no Docker engine answers"):
        Engine(LocalTarget(f"unix://{path}")).info()


# ── of mail ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Client:
    def shutdown(self) -> None:
        """Do nothing: there is no connection."""


class _Box:
    client = _Client()

    def login(self, *_: str) -> None:
        """Accept any user."""

    def logout(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "stdout"), TimeoutError("mine"), ConnectionResetError("mine"), OSError(28, "full")]
)
def test_what_is_raised_while_a_mailbox_is_open_is_not_taken_for_its_connection(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from mailstack.secret import Secret

    monkeypatch.setattr(imap, "connect", lambda *_: _Box())
    with pytest.raises(type(error)) as caught, imap.mailbox(WHERE, ssl.create_default_context(), "u", Secret("p")):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset"), TimeoutError("timed out"), OSError(113, "no way")]
)
def test_what_goes_wrong_with_a_mailbox_s_connection_is_its_own(error: OSError) -> None:
    import imaplib

    kind = imap._connection_class()
    client: Any = kind._get_mailbox_client.__closure__[0].cell_contents

    class Broken(io.RawIOBase):
        def readline(self, size: int | None = -1) -> bytes:
            raise error

        def read(self, size: int = -1) -> bytes:
            raise error

    found = client.__new__(client)
    found._file = found.file = Broken()
    for read in (found.readline, lambda: found.read(1)):
        with pytest.raises(imaplib.IMAP4.abort):
            read()


def test_a_server_that_refuses_a_mail_is_quoted() -> None:
    import smtplib

    found = smtp.SMTP_ERRORS.of(smtplib.SMTPDataError(554, b"no \xff"))
    assert (type(found), str(found)) == (CheckFailed, "the server refused the mail: 554 no \ufffd")
    found = smtp.SMTP_ERRORS.of(smtplib.SMTPRecipientsRefused({"a@b": (550, b"who")}))
    assert str(found) == "the server refused a@b: 550 who"


# ── of SSH ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config", "Host box\n  ProxyJump\n", "your SSH configuration cannot be used"),
        ("config", "no such thing\n= =\n", "your SSH configuration cannot be used"),
    ],
)
def test_a_configuration_of_ssh_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, said: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / file).write_text(text)
    with pytest.raises(HostError, match=said):
        login.log_in(Host("box"), {})


def test_a_file_of_ssh_that_may_not_be_read_is_told_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").touch(mode=0)
    with pytest.raises(OSError, match="config"):
        login.log_in(Host("box"), {})
