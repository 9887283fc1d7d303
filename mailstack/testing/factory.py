"""Create mailboxes for a test, each with a unique address."""

from __future__ import annotations

import re
import secrets as _random
from typing import TYPE_CHECKING

from mailstack.testing.mailbox import TIMEOUT_SECONDS, Mailbox
from mailstack.testing.settings import Password

if TYPE_CHECKING:
    from mailstack.actions.accounts import Accounts
    from mailstack.actions.queue_watch import QueueWatch


class MailboxFactory:
    """Creates mailboxes, each with a unique address: `mailbox_factory()`."""

    def __init__(
        self, accounts: Accounts, stem: str, patience: float = TIMEOUT_SECONDS, *, queues: QueueWatch | None = None
    ) -> None:
        from mailstack.actions.queue_watch import QueueWatch

        self._accounts, self._stem, self._patience = accounts, stem, patience
        self._queues = queues or QueueWatch(accounts.lab)
        self.mailboxes: list[Mailbox] = []

    def __call__(self, name: str = "", *, domain: str | None = None, quota: int | None = None) -> Mailbox:
        """Create a mailbox. Its address begins with `name`; `quota` is its size in bytes.

        Raises InputError when the lab cannot have such an address.
        """
        lab = self._accounts.lab
        stem = re.sub(r"[^a-z0-9]+", "-", (name or self._stem).lower())[:30].strip("-") or "mailbox"
        domain = domain or lab.defined.domains[0].name  # `definition` reads every account that was added
        address = f"{stem}-{_random.token_hex(4)}@{domain}"
        password = self._accounts.add(address, quota=quota, fresh=True, temporary=True)
        mailbox = Mailbox(lab, address, Password(password.reveal()), self._queues, self._patience)
        self.mailboxes.append(mailbox)
        return mailbox

    def close(self) -> None:
        """Close the connections of all mailboxes that were created."""
        for mailbox in self.mailboxes:
            mailbox.close()
