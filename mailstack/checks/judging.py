"""Verdicts: turn the result of a proof into a verdict with evidence. Shared by checks and the experiment's steps."""

from __future__ import annotations

from collections.abc import Callable

from mailstack import library_errors
from mailstack.errors import MailstackError
from mailstack.model import Verdict


class Unmet(Exception):
    """A promise is broken; the text is the evidence."""


class NotApplicable(Exception):
    """The lab has nothing to try this on; the text says which part is missing."""


def expect(met: object, evidence: str) -> str:
    """Return `evidence`; raise Unmet with it unless `met`."""
    if not met:
        raise Unmet(evidence)
    return evidence


# A server that refuses, hangs up or does not answer has broken a promise, too.
SERVER_ERRORS = library_errors.Table(
    {
        lambda error: Unmet(f"{type(error).__name__}: {error}"): (
            *(*library_errors.SMTP_REFUSED, *library_errors.SMTP_RECIPIENTS, *library_errors.SMTP_BROKEN),
            *(*library_errors.IMAP_LOST, *library_errors.IMAP_LOGIN, *library_errors.IMAP_REFUSED, "builtins.EOFError"),
        )
    }
)


def judge(prove: Callable[[], str], *unreadable: type[Exception]) -> tuple[Verdict, str]:
    """Return the verdict on `prove`, with its return value or its error as evidence.

    Errors of the classes `unreadable` mean an answer that cannot be parsed. Raises Interrupted, and every error that
    is neither mailstack's nor a server's: a bug in the proof is no broken promise.
    """
    try:
        return Verdict.PASS, prove()
    except Unmet as unmet:
        return Verdict.FAIL, str(unmet)
    except NotApplicable as reason:
        return Verdict.SKIP, str(reason)
    except MailstackError as error:
        return Verdict.FAIL, error.whole()
    except unreadable as error:
        return Verdict.FAIL, f"unexpected answer: {type(error).__name__}: {error}"
    except Exception as error:
        if (broken := SERVER_ERRORS.of(error)) is None:
            raise
        return Verdict.FAIL, str(broken)
