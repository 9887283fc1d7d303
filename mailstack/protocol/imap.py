"""IMAP client: connections whose socket errors differ from errors of other work, such as a full disk.

The library passes an OSError of its socket unchanged, so its origin would be unknown. Here it becomes imaplib's own
error.
"""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mailstack import library_errors
from mailstack.errors import CheckFailed, DeadlinePassed, HostError
from mailstack.model import Deadline, Endpoint
from mailstack.protocol import idle, smtp
from mailstack.roles import STANDARD, Role
from mailstack.secret import Secret, blot_error
from mailstack.text import hint

if TYPE_CHECKING:
    from imap_tools import BaseMailBox, MailMessage

_ROOM_KIB = 4  # what a short mail takes with its header, generously


def connect(endpoint: Endpoint, context: ssl.SSLContext, seconds: float) -> BaseMailBox:
    """Connect with TLS; `seconds` is the time limit for each answer. Raises OSError, imaplib.IMAP4.error."""
    found: BaseMailBox = _connection_class()(endpoint.host, endpoint.port, timeout=seconds, ssl_context=context)
    return found


def errors(endpoint: Endpoint, user: str) -> library_errors.Table:
    """Return the table of the libraries' errors and the project's own."""
    where = f"{endpoint.host}:{endpoint.port}"
    status, logs = (
        hint.line(*words, lab=endpoint.lab, host=endpoint.target)
        for words in (("status",), ("logs", STANDARD[Role.STORE]))
    )
    remedy = f"`{status}` says what runs, `{logs}` what happened"

    def lost(error: Exception) -> HostError:
        return HostError(f"the IMAP connection to {where} was lost", details=str(error), remedy=remedy)

    def refused(error: Exception) -> HostError:
        return HostError(f"the IMAP server at {where} refused a command", details=str(error), remedy=remedy)

    def login(_: Exception) -> CheckFailed:
        return CheckFailed(f"the IMAP server refused the password of {user}")

    return library_errors.Table(
        {lost: library_errors.IMAP_LOST, refused: library_errors.IMAP_REFUSED, login: library_errors.IMAP_LOGIN}
    )


@contextmanager
def _abort_on_socket_error() -> Iterator[None]:
    import imaplib

    try:
        yield
    except (BlockingIOError, ssl.SSLWantReadError):
        raise  # no data yet: see `idle`
    except OSError as error:
        raise imaplib.IMAP4.abort(str(error)) from None


@functools.cache
def _connection_class() -> Any:
    """Return the class of connections; the library is imported at the first one."""
    import imaplib

    from imap_tools import MailBox

    class Client(imaplib.IMAP4_SSL):
        def read(self, size: int) -> bytes:
            with _abort_on_socket_error():
                return super().read(size)

        def readline(self) -> bytes:
            with _abort_on_socket_error():
                return super().readline()

        def send(self, data: Any) -> None:
            with _abort_on_socket_error():
                super().send(data)

    class Box(MailBox):
        def _get_mailbox_client(self) -> imaplib.IMAP4:
            return Client(self._host, self._port, ssl_context=self._ssl_context, timeout=self._timeout)

    return Box


@contextmanager
def mailbox(
    endpoint: Endpoint, context: ssl.SSLContext, user: str, password: Secret, seconds: float = smtp.ANSWER_SECONDS
) -> Iterator[BaseMailBox]:
    """Open a user's mailbox over IMAP with implicit TLS, with the inbox selected.

    `seconds` is the time limit for each answer.

    Raises CheckFailed if it cannot be opened, HostError if the connection is lost while it is open, or the server
    refuses a command. Other errors raised while it is open pass unchanged.
    """
    import imaplib

    from imap_tools.errors import ImapToolsError

    try:
        connection = connect(endpoint, context, seconds)
    except (OSError, imaplib.IMAP4.error) as error:
        raise CheckFailed(f"IMAP at {endpoint.host}:{endpoint.port} cannot be reached: {error}") from None
    try:
        try:
            connection.login(user, password.reveal())
            yield connection
        except BaseException:
            with suppress(OSError):
                connection.client.shutdown()  # no LOGOUT: the server may be gone
            raise
        connection.logout()
    except (imaplib.IMAP4.error, ImapToolsError) as error:
        raise blot_error(errors(endpoint, user).of(error) or error, password) from None


def quota(box: BaseMailBox) -> tuple[int, int] | None:
    """Return a mailbox's usage and limit in KiB (RFC 9208, STORAGE), None if the server knows of no limit."""
    import imaplib

    try:
        _, (_, quotas) = box.client.getquotaroot("INBOX")
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error:  # no extension QUOTA
        return None
    text = b" ".join(each for each in quotas if isinstance(each, bytes))
    found = re.search(rb"STORAGE (\d+) (\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def is_full(box: BaseMailBox) -> bool:
    """Return whether there is no room for a short mail in a mailbox."""
    found = quota(box)
    return found is not None and found[1] - found[0] < _ROOM_KIB


def find(box: BaseMailBox, message_id: str) -> list[MailMessage]:
    """Return the messages in the selected folder with this Message-ID (RFC 3501, SEARCH HEADER)."""
    from imap_tools import AND, H

    return list(box.fetch(AND(header=H("Message-ID", message_id)), mark_seen=False))


def wait_for(box: BaseMailBox, message_id: str, deadline: Deadline) -> MailMessage:
    """Return the first message with this Message-ID, as soon as it has arrived. Raises DeadlinePassed."""
    wait_for_arrival(box, message_id, deadline)
    return find(box, message_id)[0]


def wait_for_arrival(box: BaseMailBox, message_id: str, deadline: Deadline) -> str:
    """Return the UID of the first message with this Message-ID, as soon as it has arrived. Raises DeadlinePassed."""
    from imap_tools import AND, H

    while True:
        passed = deadline.passed()
        idle.refresh(box)
        found = box.uids(AND(header=H("Message-ID", message_id)))
        if found:
            return found[0]
        if passed:
            raise DeadlinePassed(f"the mail {message_id} was not in the mailbox after {deadline.seconds:g} s")
        idle.wait(box, deadline)
