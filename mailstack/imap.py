"""IMAP connections whose failures are told from those of what is done meanwhile: a full disk, an output that is closed.

The library lets an OSError of its socket pass as it is, which could be anybody's. Here it is imaplib's own.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mailstack import foreign, hint
from mailstack.errors import CheckFailed, HostError
from mailstack.model import Endpoint
from mailstack.roles import STANDARD, Role

if TYPE_CHECKING:
    from imap_tools import BaseMailBox


def connect(endpoint: Endpoint, context: ssl.SSLContext, seconds: float) -> BaseMailBox:
    """Connect with TLS; an answer may take so many `seconds`. Raises OSError, imaplib.IMAP4.error."""
    found: BaseMailBox = _kind()(endpoint.host, endpoint.port, timeout=seconds, ssl_context=context)
    return found


def errors(endpoint: Endpoint, user: str) -> foreign.Table:
    """Return what the errors of the libraries are for the user."""
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

    return foreign.Table({lost: foreign.IMAP_LOST, refused: foreign.IMAP_REFUSED, login: foreign.IMAP_LOGIN})


@contextmanager
def _lost() -> Iterator[None]:
    import imaplib

    try:
        yield
    except (BlockingIOError, ssl.SSLWantReadError):
        raise  # nothing has come yet: see `news`
    except OSError as error:
        raise imaplib.IMAP4.abort(str(error)) from None


@functools.cache
def _kind() -> Any:
    """Return the kind of connection; the library is imported when one is made."""
    import imaplib

    from imap_tools import MailBox

    class Client(imaplib.IMAP4_SSL):
        def read(self, size: int) -> bytes:
            with _lost():
                return super().read(size)

        def readline(self) -> bytes:
            with _lost():
                return super().readline()

        def send(self, data: Any) -> None:
            with _lost():
                super().send(data)

    class Box(MailBox):
        def _get_mailbox_client(self) -> imaplib.IMAP4:
            return Client(self._host, self._port, ssl_context=self._ssl_context, timeout=self._timeout)

    return Box
