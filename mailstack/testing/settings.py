"""Settings with which an application sends mail through the lab, in the format of each framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import smtplib
    import ssl


class Password(str):
    """A password for libraries that expect a string. Its repr, which pytest shows, hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'••••••'"


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Endpoint and credentials of submission (RFC 6409). The lab's own CA issued the server's certificate."""

    host: str
    port: int
    user: str
    password: Password
    ca_file: Path
    starttls: bool = True

    def context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the lab's CA only."""
        from mailstack.protocol import trust

        return trust.tls_context(self.ca_file)

    def connect(self) -> smtplib.SMTP:
        """Return a session of smtplib, with TLS and logged in, to be used in `with`. Raises the errors of smtplib."""
        from mailstack.model import Endpoint
        from mailstack.protocol import smtp, trust

        dial = smtp.dial_to(Endpoint(self.host, self.port))
        session = smtp.Smtp(
            dial, name=self.host, tls="starttls", context=trust.cached_context(self.ca_file.read_text(encoding="utf-8"))
        )
        session.login(self.user, self.password)
        return session

    def django(self) -> dict[str, object]:
        """Return Django's settings. It trusts the CA if `SSL_CERT_FILE` is in its environment (docs/environment.md)."""
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": self.host,
            "EMAIL_PORT": self.port,
            "EMAIL_HOST_USER": self.user,
            "EMAIL_HOST_PASSWORD": self.password,
            "EMAIL_USE_TLS": self.starttls,
        }

    def flask(self) -> dict[str, object]:
        """Return the configuration of Flask-Mail and Flask-Mailman."""
        return {
            "MAIL_SERVER": self.host,
            "MAIL_PORT": self.port,
            "MAIL_USERNAME": self.user,
            "MAIL_PASSWORD": self.password,
            "MAIL_USE_TLS": self.starttls,
        }

    def environment(self) -> dict[str, str]:
        """Return the environment in which programs and libraries with OpenSSL's defaults trust the lab's CA only."""
        return {"SSL_CERT_FILE": str(self.ca_file)}
