"""The listeners of a lab's MTAs, and SMTP sessions with them."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack.checks.bench import Bench
from mailstack.engine.engine import Engine
from mailstack.protocol import smtp
from mailstack.protocol.smtp import Smtp

# A client outside the lab. Nobody owns `.test` (RFC 6761, section 6.2).
STRANGER = "someone@outside.test"


@dataclass(frozen=True, slots=True)
class Mta:
    """An MTA and a port of it. The sender's MTA listens on its own loopback only."""

    port: int
    sender: bool = False

    @property
    def name(self) -> str:
        """Return the part of a check's id that names this listener."""
        return "sender" if self.sender else str(self.port)

    @property
    def label(self) -> str:
        """Return the part of a check's title that names this listener."""
        return "the sender" if self.sender else str(self.port)


PROVIDER = (Mta(25), Mta(587), Mta(465))
SENDER = (Mta(25, sender=True),)
MTAS = PROVIDER + SENDER


def session(bench: Bench, mta: Mta) -> Smtp:
    """Open an SMTP session from the sender, up to EHLO; log in as the first account where AUTH is required."""
    if mta.sender:
        smtp_session = smtp.Smtp(bench.dial("127.0.0.1", mta.port), name="localhost", helo="client.test")
        smtp_session.ehlo()
        return smtp_session
    return bench.smtp(mta.port) if mta.port == 25 else bench.logged_in(mta.port, bench.alice)


def wait_until_healthy(engine: Engine, container: str, seconds: float) -> bool:
    """Wait until the healthcheck of a container passes; return False after `seconds`."""
    wait = "until healthcheck; do sleep 0.02; done"
    return engine.execute(container, ["timeout", f"{seconds:g}", "sh", "-c", wait]).code == 0


def envelope_reply(session: Smtp, sender: str, recipient: str) -> tuple[int, str]:
    """Send MAIL and RCPT in a session, and end it; return the reply that refuses, or the last one."""
    with session:
        return envelope(session, sender, recipient)


def envelope(session: Smtp, sender: str, recipient: str) -> tuple[int, str]:
    """Send MAIL and RCPT; return the reply that refuses, or the last one."""
    code, text = session.command(f"MAIL FROM:<{sender}>")
    return session.command(f"RCPT TO:<{recipient}>") if code == 250 else (code, text)
