"""The lab's own certificate authority, and a certificate for each of its servers.

The CA's key signs three certificates and is forgotten: nothing can be issued in the lab's name afterwards.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailstack.secret import Secret

VALID_DAYS = 30
EARLY_SECONDS = 3600.0  # from before the moment they are made: clocks differ


@dataclass(frozen=True, slots=True)
class Pki:
    """The CA's certificate (PEM), and per service its key, certificate and chain in one PEM file."""

    ca: str
    servers: Mapping[str, Secret]


def make(names: Mapping[str, Sequence[str]], *, days: int = VALID_DAYS) -> Pki:
    """A new CA and one certificate per service; `names` gives the DNS names and addresses of each (RFC 6125, SAN).

    ECDSA on P-256: a key takes a fraction of a millisecond to make, and every TLS 1.2 client knows it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def san(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=EARLY_SECONDS)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = named("mailstack lab CA")
    key_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id),
                critical=False,
            )
        )

    def usage(*, ca: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=True, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip

    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(ca=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM).decode()

    servers = {}
    for service, alternatives in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            builder(named(service), key.public_key())
            .add_extension(x509.SubjectAlternativeName([san(name) for name in alternatives]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(serialization.Encoding.PEM)
        servers[service] = Secret(pem.decode() + ca_pem)
    return Pki(ca_pem, servers)


def expires(certificate: str) -> datetime.datetime:
    """When the first certificate of a PEM text ends to be valid."""
    from cryptography import x509

    start = certificate.index("-----BEGIN CERTIFICATE-----")
    return x509.load_pem_x509_certificate(certificate[start:].encode()).not_valid_after_utc
