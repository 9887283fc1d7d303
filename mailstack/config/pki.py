"""The lab's own certificate authority, and a certificate for each of its servers.

The CA's key signs three certificates and is discarded, so that no other certificate can be issued afterwards.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailstack.secret import Secret

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

VALID_DAYS = 30
EARLY_SECONDS = 3600.0  # certificates are valid from before their creation, because clocks differ


@dataclass(frozen=True, slots=True)
class Pki:
    """The CA's certificate (PEM), and for each service its key, certificate and chain in one PEM text."""

    ca: str
    servers: Mapping[str, Secret]


def make(names: Mapping[str, Sequence[str]], *, days: int = VALID_DAYS) -> Pki:
    """Return a new CA and one certificate per service; `names` maps a service to its DNS names and addresses (SAN).

    Keys are ECDSA on P-256: generated in less than 1 ms, and supported by every TLS 1.2 client. RFC 5280, RFC 6125.
    """
    from cryptography.hazmat.primitives import serialization

    authority = _Authority(days)
    ca = authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
    servers = {service: Secret(authority.server(service, alternatives) + ca) for service, alternatives in names.items()}
    return Pki(ca, servers)


class _Authority:
    """A certificate authority whose key lives as long as this object."""

    def __init__(self, days: int) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        self._begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=EARLY_SECONDS)
        self._end = self._begin + datetime.timedelta(days=days)
        self._name = _common_name("mailstack lab CA")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(
            self._name,
            self._key.public_key(),
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_key_usage(ca=True), True),
        )

    def server(self, service: str, alternatives: Sequence[str]) -> str:
        """Return a new key and its certificate, as PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(
            _common_name(service),
            key.public_key(),
            (x509.SubjectAlternativeName([_general_name(name) for name in alternatives]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(ca=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(serialization.Encoding.PEM)
        return pem.decode()

    def _signed(
        self, subject: x509.Name, public: EllipticCurvePublicKey, *extensions: tuple[x509.ExtensionType, bool]
    ) -> x509.Certificate:
        """Issue a certificate; each extension is paired with its critical flag."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._begin)
            .not_valid_after(self._end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


def _common_name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def expires(certificate: str) -> datetime.datetime:
    """Return the end of validity of the first certificate in a PEM text. Raises ValueError when there is none."""
    from cryptography import x509

    start = certificate.index("-----BEGIN CERTIFICATE-----")
    return x509.load_pem_x509_certificate(certificate[start:].encode()).not_valid_after_utc
