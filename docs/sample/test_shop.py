"""Tests of the mail that customers of the shop receive, in real mailboxes on a real mail server."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from shop import Shop

from mailstack.testing import Mailbox


def test_sign_up_sends_a_code_that_confirms_the_address(shop: Shop, mailbox: Mailbox) -> None:
    shop.sign_up(mailbox.address)
    message = mailbox.wait_for_message(subject="Welcome", sender=shop.sender)
    assert shop.confirm(mailbox.address, message.code())
    assert mailbox.address in shop.customers


def test_the_link_confirms_the_address(shop: Shop, mailbox: Mailbox) -> None:
    shop.sign_up(mailbox.address)
    link = urlsplit(mailbox.wait_for_message(subject="Welcome").link("/confirm"))
    (token,) = parse_qs(link.query)["token"]
    assert shop.confirm(mailbox.address, token)


def test_the_newest_code_counts(shop: Shop, mailbox: Mailbox) -> None:
    shop.sign_up(mailbox.address)
    first = mailbox.wait_for_message(subject="Welcome")
    shop.sign_up(mailbox.address)
    second = mailbox.wait_for_message(subject="Welcome", after=first)
    assert not shop.confirm(mailbox.address, urlsplit(first.link("/confirm")).query.removeprefix("token="))
    assert shop.confirm(mailbox.address, second.code())


def test_customer_and_bookkeeping_get_the_invoice(shop: Shop, mailbox: Mailbox, bookkeeping: Mailbox) -> None:
    shop.customers.add(mailbox.address)
    shop.order(mailbox.address, "teapot")
    for each in (mailbox, bookkeeping):
        message = each.wait_for_message(subject="invoice – teapot")
        assert message.attachment("invoice.csv").text == "article;teapot\n"
        assert message.recipients == [mailbox.address, bookkeeping.address]


def test_an_order_without_sign_up_sends_no_invoice(shop: Shop, mailbox: Mailbox) -> None:
    with pytest.raises(PermissionError):
        shop.order(mailbox.address, "teapot")
    mailbox.assert_no_message(within=0.2)


def test_the_mail_is_delivered_over_tls(shop: Shop, mailbox: Mailbox) -> None:
    shop.sign_up(mailbox.address)
    message = mailbox.wait_for_message()
    assert message.journey().status == "delivered"
    assert any("TLSv1.3" in header for header in message.headers.all("Received"))
