"""Every MTA of a lab that listens, at each of its ports, and a session with it."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack import mail
from mailstack.checks.bench import Bench
from mailstack.mail import Smtp


@dataclass(frozen=True, slots=True)
class Mta:
    """An MTA that listens: its port, and whether it is the sender's, on the sender's own loopback."""

    port: int
    sender: bool = False

    @property
    def name(self) -> str:
        """What its checks are called after."""
        return "sender" if self.sender else str(self.port)


# Every MTA of the lab, at each of its ports.
MTAS = (Mta(25), Mta(587), Mta(465), Mta(25, sender=True))


def session(bench: Bench, mta: Mta) -> Smtp:
    """An SMTP session with an MTA, from the sender's machine; logged in as the first account where it wants that."""
    if mta.sender:
        return mail.Smtp(bench.dial("127.0.0.1", mta.port), name="localhost", helo="client.test")
    return bench.smtp(mta.port) if mta.port == 25 else bench.logged_in(mta.port, bench.alice)
