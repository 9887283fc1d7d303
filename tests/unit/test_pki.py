"""The lab's CA and its certificates."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest

from mailstack.config import files, pki
from mailstack.protocol import trust


@pytest.fixture(scope="module")
def made() -> pki.Pki:
    return pki.make({"postfix": ("postfix", "localhost", "127.0.0.1")})


def _shake(made: pki.Pki, directory: Path, name: str, context: ssl.SSLContext) -> str | None:
    """Do a real handshake of a server with the lab's certificate and a client; return the client's error, if any."""
    (directory / "pem").write_text(made.servers["postfix"].reveal())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "pem")
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        context.wrap_socket(near, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        near.close()
        thread.join()
    return None


@pytest.mark.parametrize("name", ["postfix", "localhost", "127.0.0.1"])
def test_a_server_is_verified_by_the_ca_and_each_of_its_names(made: pki.Pki, tmp_path: Path, name: str) -> None:
    assert _shake(made, tmp_path, name, trust.tls_context(ca=made.ca)) is None


def test_a_server_is_not_verified_by_another_name(made: pki.Pki, tmp_path: Path) -> None:
    assert "mismatch" in str(_shake(made, tmp_path, "dovecot", trust.tls_context(ca=made.ca)))


def test_a_server_is_not_verified_by_another_lab_s_ca(made: pki.Pki, tmp_path: Path) -> None:
    other = pki.make({"postfix": ("postfix",)})
    assert _shake(made, tmp_path, "postfix", trust.tls_context(ca=other.ca)) is not None


def test_certificates_are_valid_for_thirty_days_at_the_most(made: pki.Pki) -> None:
    left = pki.expires(made.ca) - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=29) < left <= datetime.timedelta(days=pki.VALID_DAYS)
    assert pki.expires(made.servers["postfix"].reveal()) == pki.expires(made.ca)


def test_the_ca_s_key_is_kept_nowhere(made: pki.Pki) -> None:
    assert "PRIVATE" not in made.ca
    assert made.servers["postfix"].reveal().count("PRIVATE KEY-----\n") == 2  # one key: its first and its last line


def test_certificates_that_end_soon_are_made_anew(tmp_path: Path) -> None:
    for days, hold in ((2, True), (1, False)):
        made = pki.make(files.SERVER_NAMES, days=days)
        (tmp_path / "ca.pem").write_text(made.ca)
        for service, pem in made.servers.items():
            (tmp_path / f"{service}.pem").write_text(pem.reveal())
        assert files.certificates_valid(tmp_path) is hold
    (tmp_path / "sender.pem").unlink()
    assert not files.certificates_valid(tmp_path)
