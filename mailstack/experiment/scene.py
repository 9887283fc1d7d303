"""The lab of the experiment: its machines, the experiment's mails, and the mailboxes they arrive in."""

from __future__ import annotations

import ssl
import time
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

from mailstack.actions import mailboxes, tracing
from mailstack.checks.judging import Unmet, expect
from mailstack.errors import DeadlinePassed, MailstackError
from mailstack.experiment.machines import ARRIVAL_SECONDS, Machines
from mailstack.experiment.second import SecondLab
from mailstack.lab.running import RunningLab
from mailstack.lab.up import Report
from mailstack.message import draft
from mailstack.message.message import Message
from mailstack.model import STUDENT, Deadline, Json
from mailstack.protocol import imap, trust
from mailstack.trace.journey import Journey

if TYPE_CHECKING:
    from imap_tools import BaseMailBox, MailMessage

# After this time, a lab is removed even if this process and the guard were killed.
TTL_SECONDS = 900.0


class Scene(Machines):
    """The lab's machines, the student and the recipient, and the journeys and dialogue for the document."""

    mark = ""  # a part of the Message-ID of each mail, in a lab that has other mails

    def __init__(self, lab: RunningLab, up_result: Report | MailstackError | None = None) -> None:
        super().__init__(lab)
        self.up_result = up_result  # the report of `up`, or the reason why the lab was not proven
        self.second = SecondLab(lab)
        self.journeys: dict[str, Journey] = {}  # by model
        self.dialogue: Json = {}
        self.student = f"{STUDENT}@{lab.definition().mailname}"
        others = [address for address in lab.definition().addresses() if address != self.student]
        self.recipient = others[min(1, len(others) - 1)]
        # The mail of steps 5 and 6. Its Message-ID is chosen here, so that each step can look for it.
        self.first_mail = self.new_id(self.student, "first")

    def new_id(self, sender: str, name: str) -> str:
        """Return the Message-ID of a mail of the experiment."""
        return draft.new_id(sender, f"{name}.{self.mark}" if self.mark else name)

    @property
    def login(self) -> str:
        """Return the user as whom the student's machine logs in."""
        return self.relay[0]

    def is_verified(self, tls: str) -> bool:
        """Whether the student's machine verified its provider, by the TLS connection that it logged."""
        return tls.endswith(", verified")

    def journey(self, message_id: str) -> Journey:
        """Return the journey of a mail that has arrived, once both MTAs have removed it from their queues."""
        for service in ("sender", "postfix"):
            self.lines(service, message_id, ": removed")
        return self.once(f"journey of {message_id}", lambda: self.trace(message_id))

    def trace(self, message_id: str) -> Journey:
        """Return the journey of a mail from the lab's logs. Raises Unmet when the logs do not have it."""
        with tracing.lab_lines(self.lab) as read:
            found = tracing.traced(read, message_id).journeys
        expect(found, f"no server has logged {message_id}")
        return found[-1]

    def keep(self, model: str, journey: Journey) -> Journey:
        """Add a journey to the document as the example of a model."""
        self.journeys[model] = journey
        return journey

    @cached_property
    def lab_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the lab's CA only."""
        return trust.tls_context(self.lab.ca_file)

    def box(self, address: str) -> AbstractContextManager[BaseMailBox]:
        """Open an account's mailbox over IMAP. Raises HostError when Dovecot is not running."""
        self.container("dovecot")
        return imap.mailbox(self.lab.endpoints["imaps"], self.lab_context, address, self.lab.password(address))

    def arrived(self, address: str, message_id: str) -> list[MailMessage]:
        """Return the copies of a mail in a mailbox, once there is one. Raises Unmet."""
        with self.box(address) as box:
            self._wait(box, address, message_id)
            return imap.find(box, message_id)

    def _wait(self, box: BaseMailBox, address: str, message_id: str) -> str:
        """Wait for a mail; return its UID. Raises Unmet with the evidence of logs and queues."""
        try:
            return imap.wait_for_arrival(box, message_id, Deadline.after(ARRIVAL_SECONDS))
        except DeadlinePassed:
            found = tracing.of_lab(self.lab, message_id)
        where = found[-1].sentence(time.time()) if found else "no server has seen it"
        raise Unmet(f"the mail is not in the mailbox of {address} after {ARRIVAL_SECONDS:g} s: {where}")

    def message(self, address: str, message_id: str) -> Message:
        """Return a mail in a mailbox, byte for byte. Raises Unmet when it does not arrive."""
        with self.box(address) as box:
            found = mailboxes.message(box, int(self._wait(box, address, message_id)))
        if found is None:
            raise Unmet(f"{message_id} is no longer in the mailbox of {address}")
        return found

    def first(self) -> Message:
        """Return the first mail from the recipient's mailbox."""
        return self.once("first mail", lambda: self.message(self.recipient, self.first_mail))
