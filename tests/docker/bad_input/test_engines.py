"""An engine that is none or refuses, and a port that is taken: told in its words, and nothing is left."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.bad import Outcome, listen
from tests.docker.bad_input import RUN

pytestmark = pytest.mark.docker

LAB = f"engines-{RUN}"  # never comes up
UP = ("up", "-n", LAB)


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
    with _answering(listen(tmp_path / "docker.sock"), answer):
        assert host in wrong(*command, code=3).messages[0]


@pytest.mark.parametrize("command", NEED_AN_ENGINE, ids=("up", "down", "down --all"))
def test_a_context_that_is_not_known_is_named(
    command: tuple[str, ...], wrong: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")
    assert "the Docker context “no-such-context” is not known" in wrong(*command, code=3).messages[0]


# ── what is taken, and what the engine refuses ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", ["postfix", "dovecot", "sender"])
def test_a_port_that_is_taken_is_named(service: str, wrong: Callable[..., Outcome], tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        network = "    networks: {edge: {}}\n" if service == "sender" else ""
        overlay.write_text(f"services:\n  {service}:\n    ports: ['127.0.0.1:{port}:25']\n{network}")
        outcome = wrong(*UP, "-f", str(overlay), code=3)
    assert f"127.0.0.1:{port} is in use" in outcome.messages[0]


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
