"""Try the credentials and the CA of an outside relay, from the sender's container, during `up`.

It connects as the sender will: the same host name, network and certificate authorities, TLS before AUTH.
"""

from __future__ import annotations

import smtplib
import socket
import ssl

from mailstack.engine.dialer import Dialer
from mailstack.engine.engine import Engine
from mailstack.errors import CheckFailed, CredentialsError
from mailstack.model import Relay
from mailstack.protocol import smtp, trust
from mailstack.secret import Secret, blot

# Time limit for one reply, in seconds: enough for a relay on another continent.
ANSWER_SECONDS = 20.0

# The certificate authorities that the sender's Postfix trusts; written by stack/sender/entrypoint.
_AUTHORITIES = "/run/relay/ca-certificates.crt"
_IMPLICIT_TLS_PORT = 465  # RFC 8314, section 3.3


def log_in(engine: Engine, sender: str, relay: Relay, credentials: Secret) -> None:
    """Log in to the relay with `user:password`, from the container `sender`.

    Raises CredentialsError with the relay's reply when it refuses them, CheckFailed when no safe log-in is possible.
    """
    user, _, password = credentials.reveal().rstrip("\n").partition(":")
    where = f"{relay.host}:{relay.port}"
    authorities = engine.execute(sender, ["cat", _AUTHORITIES])
    if authorities.code != 0:
        raise CheckFailed(f"the sender has no CA certificates: {authorities.stderr.strip()}")
    try:
        context = trust.tls_context(ca=authorities.stdout)
        with Dialer(lambda argv: engine.stream(sender, argv)) as dialer, _session(dialer, relay, context) as session:
            session.ehlo()
            session.login(user, password)
    except ssl.SSLCertVerificationError as error:
        raise CheckFailed(
            f"the certificate of the relay {where} is not valid: {error.verify_message}",
            remedy="nothing was sent to it; --relay-ca FILE names a CA to trust for it",
        ) from None
    except smtplib.SMTPNotSupportedError:
        raise CheckFailed(
            f"the relay {where} offers no TLS, or no authentication after it", remedy="no credentials were sent to it"
        ) from None
    except smtplib.SMTPResponseException as error:
        reply = _blotted(error, password)
        # RFC 4954, section 6: 5yz is a permanent refusal; 4yz (such as 454) is a temporary problem of the server.
        if isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500:
            raise CredentialsError(
                f"the relay {where} refused the credentials: {reply}",
                remedy="check the user and the password; some providers require an application password",
            ) from None
        raise CheckFailed(f"the relay {where} did not let the sender log in: {reply}") from None
    except (smtplib.SMTPException, OSError) as error:
        raise CheckFailed(
            f"the relay {where} cannot be reached from the sender: {_reason(engine, sender, relay) or error}"
        ) from None


def _session(dialer: Dialer, relay: Relay, context: ssl.SSLContext) -> smtp.Smtp:
    def dial() -> socket.socket:
        connection = dialer.dial(relay.host, relay.port)
        connection.settimeout(ANSWER_SECONDS)
        return connection

    implicit = relay.port == _IMPLICIT_TLS_PORT
    return smtp.Smtp(dial, name=relay.host, tls="implicit" if implicit else "starttls", context=context, helo="sender")


def _reason(engine: Engine, sender: str, relay: Relay) -> str:
    """Return why no connection is possible, as nc reports it; "" when one is."""
    probe = engine.execute(sender, ["nc", "-v", "-z", "-w", "5", relay.host, str(relay.port)])
    lines = probe.stderr.strip().splitlines()
    return "" if probe.code == 0 else (lines[-1] if lines else "no answer within 5 s")


def _blotted(error: smtplib.SMTPResponseException, password: str) -> str:
    """Return the reply in one line, without the password, which the server may have repeated."""
    reply = error.smtp_error
    text = f"{error.smtp_code} {reply.decode(errors='replace') if isinstance(reply, bytes) else reply}"
    return " ".join(blot(text, [Secret(password)]).split())
