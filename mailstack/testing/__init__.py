"""Classes for tests: mailboxes, messages, and submission settings. The fixtures are in `mailstack.plugin`."""

from mailstack.testing.factory import MailboxFactory
from mailstack.testing.mailbox import Mailbox, MailboxUnmet
from mailstack.testing.received import Attachment, Message
from mailstack.testing.settings import Password, SmtpSettings

__all__ = ["Attachment", "Mailbox", "MailboxFactory", "MailboxUnmet", "Message", "Password", "SmtpSettings"]
