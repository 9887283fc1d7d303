"""The log-in at an outside relay, which is a server of the test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from mailstack.config import pki
from mailstack.engine.streams import shut
from mailstack.errors import CheckFailed, CredentialsError, MailstackError
from mailstack.lab import relay_login
from mailstack.model import Relay, Result
from mailstack.secret import Secret
from tests.unit.fakes import OK, FakeEngine
from tests.unit.mail_server import MailServer, serving

pytestmark = pytest.mark.sockets

PKI = pki.make({"relay": ["relay.test"]})
PASSWORD = "S3CRET"


class Sender(FakeEngine):
    """An engine whose sender trusts an authority, and reports each connection that nc tries."""

    def __init__(self, trusted: Result, nc: Result) -> None:
        super().__init__()
        self._trusted, self._nc = trusted, nc

    def execute(
        self, container: str, argv: Sequence[str], *, user: str = "", input: bytes | Iterable[bytes] | None = None
    ) -> Result:
        return self._trusted if argv[0] == "cat" else self._nc


class Direct:
    """A Dialer whose connections begin here; the port is chosen by whether it is for implicit TLS."""

    ports: dict[int, int]

    def __init__(self, open_stream: Callable[[list[str]], socket.socket]) -> None:
        self._made: list[socket.socket] = []

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._made:
            shut(each)  # smtplib keeps a file of a connection that it gave up
            each.close()

    def dial(self, host: str, port: int) -> socket.socket:
        self._made.append(socket.create_connection(("127.0.0.1", self.ports[port])))
        return self._made[-1]


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    pem = tmp_path / "relay.pem"
    pem.write_text(PKI.servers["relay"].reveal())
    with serving(pem) as server:
        monkeypatch.setattr(relay_login, "Dialer", Direct)
        ports = {587: server.ports["submission"], 465: server.ports["submissions"]}
        monkeypatch.setattr(Direct, "ports", ports, raising=False)
        yield server


def log_in(port: int = 587, *, host: str = "relay.test", ca: str = PKI.ca, code: int = 0, nc: Result = OK) -> None:
    engine = Sender(Result(code, ca, "cat: no such file\n"), nc)
    relay_login.log_in(engine, "sender", Relay(host, port), Secret(f"user:{PASSWORD}\n"))


def refused(*, kind: type[MailstackError] = CheckFailed, **given: object) -> MailstackError:
    with pytest.raises(kind) as caught:
        log_in(**given)  # type: ignore[arg-type]
    assert PASSWORD not in caught.value.whole()
    return caught.value


@pytest.mark.parametrize(("port", "starttls"), [(587, True), (465, False)])
def test_credentials_that_the_relay_accepts_are_sent_after_tls_only(
    relay: MailServer, port: int, starttls: bool
) -> None:
    log_in(port)
    verbs = [line.split()[0].upper() for line in relay.heard]
    assert verbs.count("AUTH") == 1 and ("STARTTLS" in verbs[: verbs.index("AUTH")]) is starttls


def test_credentials_that_the_relay_refuses_are_told_with_its_reply_and_without_the_password(
    relay: MailServer,
) -> None:
    relay.auth = f"535 5.7.8 not {PASSWORD}"
    error = refused(kind=CredentialsError)
    assert str(error).startswith("the relay relay.test:587 refused the credentials: 535 5.7.8 not ")


def test_a_relay_with_a_temporary_problem_says_nothing_about_the_credentials(relay: MailServer) -> None:
    relay.auth = "454 4.7.0 later"
    error = refused()
    assert str(error) == "the relay relay.test:587 did not let the sender log in: 454 4.7.0 later"
    assert not isinstance(error, CredentialsError)


def test_nothing_secret_is_sent_to_a_relay_without_tls(relay: MailServer) -> None:
    relay.starttls = False
    assert "offers no TLS" in str(refused())
    assert not any(line.startswith("AUTH") for line in relay.heard)


@pytest.mark.parametrize("port", [587, 465])
@pytest.mark.parametrize(("host", "ca"), [("other.test", PKI.ca), ("relay.test", pki.make({}).ca)])
def test_nothing_is_sent_to_a_relay_with_an_invalid_certificate(
    relay: MailServer, port: int, host: str, ca: str
) -> None:
    error = refused(port=port, host=host, ca=ca)
    assert f"the certificate of the relay {host}:{port} is not valid" in str(error) and "--relay-ca" in error.remedy
    assert not any(line.startswith("AUTH") for line in relay.heard)


@pytest.mark.parametrize(
    ("nc", "reason"),
    [
        (Result(1, "", "trying\nnc: connect to relay.test: refused\n"), "nc: connect to relay.test: refused"),
        (Result(1, "", ""), "no answer within 5 s"),
        (OK, "Connection unexpectedly closed"),
    ],
)
def test_a_relay_that_cannot_be_reached_is_told_with_the_reason(relay: MailServer, nc: Result, reason: str) -> None:
    relay.silent = 1
    assert str(refused(nc=nc)) == f"the relay relay.test:587 cannot be reached from the sender: {reason}"


def test_a_sender_without_authorities_connects_to_nothing() -> None:
    assert str(refused(code=1)) == "the sender has no CA certificates: cat: no such file"
