"""A small application that sends mail: a shop with sign-up and invoices. It does not depend on mailstack."""

from __future__ import annotations

import secrets
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any


class Shop:
    """A shop. `config` has the keys of Flask-Mail, and `MAIL_CA_FILE` for a provider with a private CA."""

    sender = "shop@example.com"
    bookkeeping = "bookkeeping@example.com"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.customers: set[str] = set()
        self._waiting: dict[str, tuple[str, str]] = {}  # address -> token, code

    def sign_up(self, address: str) -> None:
        """Send a link and a code. Either of them confirms the address."""
        token, code = secrets.token_urlsafe(16), f"{secrets.randbelow(10**6):06}"
        self._waiting[address] = token, code
        mail = self._mail(address, "Welcome to the shop")
        link = f"https://shop.example/confirm?token={token}"
        mail.set_content(f"Your code is {code}, or follow {link}\n")
        mail.add_alternative(f'<p>Your code is <b>{code}</b>, or <a href="{link}">confirm</a>.</p>', subtype="html")
        self._send(mail)

    def confirm(self, address: str, secret: str) -> bool:
        """Make the address a customer if `secret` is its code or token. Return whether it is."""
        if secret not in self._waiting.get(address, ()):
            return False
        del self._waiting[address]
        self.customers.add(address)
        return True

    def order(self, address: str, article: str) -> None:
        """Send the invoice to a customer, with a copy to the bookkeeping. Raise PermissionError for other addresses."""
        if address not in self.customers:
            raise PermissionError(f"{address} is no customer")
        mail = self._mail(address, f"Your invoice – {article}")
        mail["Cc"] = self.bookkeeping
        mail.set_content("Thank you for your order. The invoice is attached.\n")
        mail.add_attachment(f"article;{article}\n".encode(), maintype="text", subtype="csv", filename="invoice.csv")
        self._send(mail)

    def _mail(self, to: str, subject: str) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = f"The Shop <{self.sender}>", to, subject
        return mail

    def _send(self, mail: EmailMessage) -> None:
        config = self.config
        with smtplib.SMTP(config["MAIL_SERVER"], config["MAIL_PORT"]) as session:
            if config["MAIL_USE_TLS"]:
                session.starttls(context=ssl.create_default_context(cafile=config.get("MAIL_CA_FILE")))
            session.login(config["MAIL_USERNAME"], config["MAIL_PASSWORD"])
            session.send_message(mail)
