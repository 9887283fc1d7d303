"""What an application needs to send mail through the lab, in the words of those that it is told to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import smtplib
    import ssl


class Password(str):
    """A password for libraries that want a string: what pytest shows of it is a blot."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'••••••'"


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Where mail is submitted, and as whom (RFC 6409); the server's certificate is of the lab's own CA."""

    host: str
    port: int
    user: str
    password: Password
    ca_file: Path
    starttls: bool = True

    def context(self) -> ssl.SSLContext:
        """A TLS client that trusts the lab's CA, and nobody else."""
        from mailstack.protocol import trust

        return trust.tls_context(self.ca_file)

    def connect(self) -> smtplib.SMTP:
        """A session of smtplib, with TLS and logged in; to be used in `with`. Raises what smtplib does."""
        from mailstack.model import Endpoint
        from mailstack.protocol import smtp, trust

        dial = smtp.to(Endpoint(self.host, self.port))
        session = smtp.Smtp(
            dial, name=self.host, tls="starttls", context=trust.kept_context(self.ca_file.read_text(encoding="utf-8"))
        )
        session.login(self.user, self.password)
        return session

    def django(self) -> dict[str, object]:
        """Django's settings; it trusts the CA when the environment has `SSL_CERT_FILE`: see docs/environment.md."""
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": self.host,
            "EMAIL_PORT": self.port,
            "EMAIL_HOST_USER": self.user,
            "EMAIL_HOST_PASSWORD": self.password,
            "EMAIL_USE_TLS": self.starttls,
        }

    def flask(self) -> dict[str, object]:
        """The configuration that Flask-Mail and Flask-Mailman read."""
        return {
            "MAIL_SERVER": self.host,
            "MAIL_PORT": self.port,
            "MAIL_USERNAME": self.user,
            "MAIL_PASSWORD": self.password,
            "MAIL_USE_TLS": self.starttls,
        }

    def environment(self) -> dict[str, str]:
        """What has programs and libraries that use OpenSSL's defaults trust the lab's CA, and only it."""
        return {"SSL_CERT_FILE": str(self.ca_file)}
