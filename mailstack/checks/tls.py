"""Every port: verified by the lab's CA and the name, by nothing else, and by no TLS older than 1.2."""

from __future__ import annotations

import datetime
import socket
import ssl

from mailstack import pki
from mailstack.checks import Family, NotApplicable, Unmet, expect
from mailstack.checks.bench import Bench
from mailstack.model import PORTS, Port

family = Family("tls")

# How a clear session is turned into TLS: what to say after the greeting, and how the reply to go ahead begins.
_STARTTLS = {
    "smtp": (b"EHLO client.test\r\n", b"250 ", b"STARTTLS\r\n", b"220 "),
    "submission": (b"EHLO client.test\r\n", b"250 ", b"STARTTLS\r\n", b"220 "),
    "imap": (b"", b"", b"a STARTTLS\r\n", b"a OK"),  # RFC 3501, section 6.2.1
    "pop3": (b"", b"", b"STLS\r\n", b"+OK"),  # RFC 2595, section 4
}

_REFUSALS = (b"4", b"5", b"a NO", b"a BAD", b"-ERR")


def _connected(bench: Bench, port: Port) -> socket.socket:
    """A connection to the port, at the point where the TLS handshake begins."""
    connection = bench.published(port)
    if port.name in _STARTTLS:
        hello, ready, start, go = _STARTTLS[port.name]
        _read_until(connection, b"")
        if hello:
            connection.sendall(hello)
            _read_until(connection, ready)
        connection.sendall(start)
        _read_until(connection, go)
    return connection


def _read_until(connection: socket.socket, beginning: bytes) -> None:
    """Read lines until one begins so."""
    while True:
        line = b""
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                raise Unmet(f"the server closed the connection before it said {beginning.decode()!r}")
            line += byte
        if line.startswith(beginning):
            return
        if line.startswith(_REFUSALS):
            raise Unmet(line.decode(errors="replace").rstrip())


def _shaken(bench: Bench, port: Port, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    connection = _connected(bench, port)
    try:
        return context.wrap_socket(connection, server_hostname=name)
    except BaseException:
        connection.close()
        raise


def _anybodys() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _cipher(session: ssl.SSLSocket) -> str:
    """The name of the cipher that was agreed to."""
    cipher = session.cipher()
    return cipher[0] if cipher else ""


def _verified(port: Port) -> None:
    @family(
        f"verified-{port.name}",
        f"{port.number} is verified by the lab's CA and the name {port.service}",
        "RFC 8314, section 4; RFC 6125, section 6",
    )
    def _(bench: Bench) -> str:
        try:
            with _shaken(bench, port, bench.trusting, port.service) as session:
                evidence = f"{session.version()} {_cipher(session)}"
        except ssl.SSLError as error:
            raise Unmet(f"by the name {port.service}: {error}") from None
        try:
            _shaken(bench, port, bench.trusting, "another.test").close()
        except ssl.SSLCertVerificationError as error:
            return f"{evidence}; as another.test: {error.verify_message}"
        raise Unmet("the certificate was accepted for another name, another.test, too")


def _untrusted(port: Port) -> None:
    @family(
        f"untrusted-{port.name}",
        f"{port.number} is not verified without the lab's CA",
        "RFC 5280, section 6; RFC 8314, section 4",
    )
    def _(bench: Bench) -> str:
        try:
            _shaken(bench, port, ssl.create_default_context(), port.service).close()
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        raise Unmet("a client that does not know the lab's CA accepted the certificate")


def _old_refused(port: Port) -> None:
    @family(f"old-{port.name}", f"{port.number} refuses TLS below 1.2", "RFC 8996; RFC 8314, section 4.1")
    def _(bench: Bench) -> str:
        old, new = _anybodys(), _anybodys()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        try:
            with _shaken(bench, port, old, port.service) as session:
                raise Unmet(f"the server agreed to {session.version()}")
        except ssl.SSLError as error:
            if error.reason and "NO_PROTOCOLS" in error.reason:
                raise NotApplicable("this machine's TLS library cannot speak TLS 1.1") from None
            refusal = error.reason or str(error)
        except ConnectionError as error:
            refusal = str(error)
        # A server that is not there refuses, too: this one answers who speaks as it wants.
        with _shaken(bench, port, new, port.service) as session:
            return f"offered TLS 1.0 and 1.1: {refusal}; offered newer: {session.version()}"


def _named(port: Port) -> None:
    @family(
        f"anonymous-{port.name}",
        f"{port.number} agrees to no cipher without a certificate (aNULL)",
        "RFC 9325, section 4.1; postconf(5), smtpd_tls_exclude_ciphers",
    )
    def _(bench: Bench) -> str:
        nameless = _anybodys()
        nameless.set_ciphers("aNULL:@SECLEVEL=0")
        nameless.maximum_version = ssl.TLSVersion.TLSv1_2  # TLS 1.3 has none
        try:
            with _shaken(bench, port, nameless, port.service) as session:
                raise Unmet(f"the server agreed to {_cipher(session)}, which proves nobody's name")
        except ssl.SSLError as error:
            refusal = error.reason or str(error)
        except ConnectionError as error:
            refusal = str(error)
        nameless.set_ciphers("DEFAULT")
        with _shaken(bench, port, nameless, port.service) as session:
            return f"offered aNULL: {refusal}; offered others of TLS 1.2: {_cipher(session)}"


for _port in PORTS:
    _verified(_port)
    _untrusted(_port)
    _old_refused(_port)
    _named(_port)


def _lifetime(service: str, port: Port) -> None:
    @family(
        f"lifetime-{service}",
        f"{service}'s certificate is valid now, and for 30 days at the most",
        "RFC 5280, section 4.1.2.5",
    )
    def _(bench: Bench) -> str:
        from cryptography import x509

        with _shaken(bench, port, _anybodys(), service) as session:
            der = session.getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(der or b"")
        now = datetime.datetime.now(datetime.UTC)
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        evidence = f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
        expect(start <= now <= end and end - start <= datetime.timedelta(days=pki.VALID_DAYS), evidence)
        return evidence


for _service, _port in (("postfix", PORTS[1]), ("dovecot", PORTS[4])):
    _lifetime(_service, _port)
