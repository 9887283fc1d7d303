"""Readiness as a transaction: a mail that was submitted with authentication, and then read over IMAP."""

from __future__ import annotations

import time
from collections.abc import Callable

from mailstack import mail
from mailstack.errors import CheckFailed, DeadlinePassed, EngineError
from mailstack.model import Deadline
from mailstack.running import RunningLab


def transaction(lab: RunningLab, deadline: Deadline, dead: Callable[[], bool]) -> tuple[str, float]:
    """Send a mail from the first account to the last, read it, and take it away again: its id and the milliseconds.

    A server that has only just been started may not listen yet: it is tried again at once, until the deadline, unless
    `dead` says that there is nobody left to wait for. Raises CheckFailed, DeadlinePassed.
    """
    addresses = lab.definition.addresses()
    sender, recipient = addresses[0], addresses[-1]
    context = mail.tls_context(lab.ca_file)
    _until_it_answers(lab, deadline, dead)
    begun = time.monotonic()
    message = mail.new_message(
        sender=sender, to=[recipient], subject="mailstack: is this lab ready?", body="This mail proves it.\n"
    )
    message_id = str(message["Message-ID"])
    with mail.mailbox(lab.endpoints["imaps"], context, recipient, lab.password(recipient)) as box:
        mail.submit(mail.to(lab.endpoints["submission"]), context, sender, lab.password(sender), message, [recipient])
        found = mail.wait_for(box, message_id, deadline)
        milliseconds = (time.monotonic() - begun) * 1000
        if found.uid:
            box.delete([found.uid])
    return message_id, milliseconds


def sender(lab: RunningLab, deadline: Deadline) -> str:
    """Wait until the sender's Postfix takes mails, and knows the way to the provider's; gives the container's id.

    One program in the container waits for both. Raises CheckFailed when the container has ended, DeadlinePassed.
    """
    container = next((each for each in lab.services() if each.name == "sender"), None)
    if container is None or container.state != "running":
        raise CheckFailed(f"lab “{lab.name}” did not come up")
    ready = "healthcheck" if lab.state.relay else "healthcheck && getent ahostsv4 postfix"
    waiting = f"until {ready}; do sleep 0.02; done >/dev/null 2>&1"
    try:
        result = lab.engine.execute(
            container.container, ["timeout", f"{deadline.remaining():.1f}", "sh", "-c", waiting]
        )
    except EngineError:  # the container ended between the two questions
        raise CheckFailed(f"lab “{lab.name}” did not come up") from None
    if result.code == _TIMED_OUT:
        raise DeadlinePassed(f"the sender did not find its provider within {deadline.seconds:g} s")
    if result.code != 0:
        raise CheckFailed(f"lab “{lab.name}” did not come up")
    return container.container


_TIMED_OUT = 124  # timeout(1)


def _until_it_answers(lab: RunningLab, deadline: Deadline, dead: Callable[[], bool]) -> None:
    """Wait for Postfix's and Dovecot's greetings (RFC 5321, 4.3.1; RFC 3501, 7.1).

    The published port accepts before the server behind it does, and then closes: there is no event to wait for but the
    greeting itself.
    """
    look = Deadline.after(0.5)
    pause = 0.005
    for name, farewell in (("imap", b"a LOGOUT\r\n"), ("submission", b"QUIT\r\n")):
        while not mail.greets(mail.to(lab.endpoints[name]), farewell):
            if deadline.passed():
                endpoint = lab.endpoints[name]
                raise DeadlinePassed(
                    f"no {name} server answered at {endpoint.host}:{endpoint.port} within {deadline.seconds:g} s"
                )
            if look.passed():
                look = Deadline.after(0.5)
                if dead():
                    raise CheckFailed(f"lab “{lab.name}” did not come up")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
