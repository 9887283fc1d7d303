"""Fixtures that configure the application with the settings of the lab."""

from __future__ import annotations

import pytest
from shop import Shop

from mailstack.testing import Mailbox, MailboxFactory, SmtpSettings


@pytest.fixture
def shop(smtp_settings: SmtpSettings) -> Shop:
    # For Flask: `app.config.update(smtp_settings.flask())`; for Django: `smtp_settings.django()`.
    return Shop({**smtp_settings.flask(), "MAIL_CA_FILE": smtp_settings.ca_file})


@pytest.fixture
def bookkeeping(mailbox_factory: MailboxFactory, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """A second mailbox, for copies of the invoices."""
    mailbox = mailbox_factory("bookkeeping")
    monkeypatch.setattr(shop, "bookkeeping", mailbox.address)
    return mailbox
