"""TLS on every port: the certificate is verified with the lab's CA and the name only, and TLS is 1.2 or later."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable

from mailstack.checks import Family
from mailstack.checks.bench import Bench
from mailstack.checks.judging import NotApplicable, Unmet, expect
from mailstack.config import pki
from mailstack.model import PORTS, Port

family = Family("tls")

# The steps from a plain-text session to TLS: a command and the beginning of its reply each.
_GREETING = (b"", b"")
_EHLO = (b"EHLO client.test\r\n", b"250 ")
_STARTTLS = {
    "smtp": (_GREETING, _EHLO, (b"STARTTLS\r\n", b"220 ")),
    "submission": (_GREETING, _EHLO, (b"STARTTLS\r\n", b"220 ")),
    "imap": (_GREETING, (b"a STARTTLS\r\n", b"a OK")),  # RFC 3501, section 6.2.1
    "pop3": (_GREETING, (b"STLS\r\n", b"+OK")),  # RFC 2595, section 4
}
_REFUSALS = (b"4", b"5", b"a NO", b"a BAD", b"-ERR")


def _read_until(connection: socket.socket, beginning: bytes) -> None:
    """Read lines until one has this beginning. Raises Unmet for a line that refuses, and at the end of the stream."""
    while True:
        line = b""
        while not line.endswith(b"\n"):  # byte by byte: the handshake reads the rest
            byte = connection.recv(1)
            expect(byte, f"the server closed the connection before it sent {beginning.decode()!r}")
            line += byte
        if line.startswith(beginning):
            return
        expect(not line.startswith(_REFUSALS), line.decode(errors="replace").rstrip())


def _handshake(bench: Bench, port: Port, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    """Connect to a port, change to TLS where the session begins in plain text, and do the handshake."""
    connection = bench.published(port)
    try:
        for command, reply in _STARTTLS.get(port.name, ()):
            connection.sendall(command)
            _read_until(connection, reply)
        return context.wrap_socket(connection, server_hostname=name)
    except BaseException:
        connection.close()
        raise


def _lax_context(ciphers: str = "DEFAULT", *versions: ssl.TLSVersion) -> ssl.SSLContext:
    """Return a context that accepts any certificate and offers `ciphers`. `versions` are the lowest and the highest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(ciphers)
    if versions:
        context.minimum_version, context.maximum_version = versions
    return context


def _cipher(session: ssl.SSLSocket) -> str:
    cipher = session.cipher()
    return cipher[0] if cipher else ""


def _verification_error(bench: Bench, port: Port, context: ssl.SSLContext, name: str, accepted: str) -> str:
    """Return why a client rejects the certificate. Raises Unmet with `accepted` when it accepts it."""
    try:
        _handshake(bench, port, context, name).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    raise Unmet(accepted)


def _refusal(bench: Bench, port: Port, context: ssl.SSLContext, describe: Callable[[ssl.SSLSocket], str | None]) -> str:
    """Return how the server refuses the client's offer. Raises Unmet when it agrees."""
    try:
        with _handshake(bench, port, context, port.service) as session:
            raise Unmet(f"the server agreed to {describe(session)}")
    except ssl.SSLError as error:
        if error.reason and "NO_PROTOCOLS" in error.reason:
            raise NotApplicable("this machine's TLS library cannot speak TLS 1.1") from None
        return error.reason or str(error)
    except ConnectionError as error:
        return str(error)


@family(
    "verified-{port.name}",
    "{port.number} is verified by the lab's CA and the name {port.service}",
    "RFC 8314, section 4; RFC 6125, section 6",
    port=PORTS,
)
def certificate_is_verified(bench: Bench, port: Port) -> str:
    try:
        with _handshake(bench, port, bench.lab_context, port.service) as session:
            evidence = f"{session.version()} {_cipher(session)}"
    except ssl.SSLError as error:
        raise Unmet(f"not verified for the name {port.service}: {error}") from None
    accepted = "the certificate was also accepted for another name, another.test"
    refusal = _verification_error(bench, port, bench.lab_context, "another.test", accepted)
    return f"{evidence}; as another.test: {refusal}"


@family(
    "untrusted-{port.name}",
    "{port.number} is not verified without the lab's CA",
    "RFC 5280, section 6; RFC 8314, section 4",
    port=PORTS,
)
def certificate_needs_the_labs_ca(bench: Bench, port: Port) -> str:
    accepted = "a client that does not know the lab's CA accepted the certificate"
    return _verification_error(bench, port, bench.system_context, port.service, accepted)


@family("old-{port.name}", "{port.number} refuses TLS below 1.2", "RFC 8996; RFC 8314, section 4.1", port=PORTS)
def old_versions_are_refused(bench: Bench, port: Port) -> str:
    old = _lax_context("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
    refusal = _refusal(bench, port, old, ssl.SSLSocket.version)
    # A broken server refuses, too. This one agrees to a newer version.
    with _handshake(bench, port, _lax_context(), port.service) as session:
        return f"offered TLS 1.0 and 1.1: {refusal}; offered newer: {session.version()}"


@family(
    "anonymous-{port.name}",
    "{port.number} agrees to no cipher without a certificate (aNULL)",
    "RFC 9325, section 4.1; postconf(5), smtpd_tls_exclude_ciphers",
    port=PORTS,
)
def anonymous_ciphers_are_refused(bench: Bench, port: Port) -> str:
    versions = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2  # TLS 1.3 has no anonymous ciphers
    anonymous, named = _lax_context("aNULL:@SECLEVEL=0", *versions), _lax_context("DEFAULT", *versions)
    refusal = _refusal(bench, port, anonymous, lambda session: f"{_cipher(session)}, which authenticates no server")
    with _handshake(bench, port, named, port.service) as session:
        return f"offered aNULL: {refusal}; offered others of TLS 1.2: {_cipher(session)}"


@family(
    "lifetime-{port.service}",
    "{port.service}'s certificate is valid now, and for 30 days at the most",
    "RFC 5280, section 4.1.2.5",
    port=(PORTS[1], PORTS[4]),
)
def certificate_is_short_lived(bench: Bench, port: Port) -> str:
    from cryptography import x509

    with _handshake(bench, port, _lax_context(), port.service) as session:
        der = session.getpeercert(binary_form=True)
    certificate = x509.load_der_x509_certificate(der or b"")
    now = datetime.datetime.now(datetime.UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return expect(
        start <= now <= end and end - start <= datetime.timedelta(days=pki.VALID_DAYS),
        f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC",
    )
