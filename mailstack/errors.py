"""All errors of mailstack, as one tree.

MailstackError
├── CheckFailed         1    a check failed, or a mail did not arrive
├── InputError          2    the user's input is wrong
│   ├── LabFileError         … in a compose file; says file:line:col
│   └── CredentialsError     … in the relay's credentials
├── HostError           3    the engine or the host cannot be used
│   ├── EngineError          … the Docker engine
│   └── CommandFailed        … a command that was run for the user
└── DeadlinePassed      4    something did not happen in time

Interrupted           130    Ctrl-C, SIGTERM or SIGHUP; like KeyboardInterrupt it is no Exception

Errors of libraries are converted into one of these where they arise (engine, mail, runner). So the command line has
one message to print and one exit code to return.
"""

from __future__ import annotations

from typing import ClassVar


class Reported(BaseException):
    """An error that ends a command. Its message says what happened and where; `remedy`, if any, says what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details = details  # log lines or output, printed below the message

    def __str__(self) -> str:
        return self.message  # read again, because it may have been extended

    def lines(self) -> list[str]:
        """Return the lines for the user: message, details, notes and remedy."""
        below = [*self.details.splitlines(), *(line for note in self.notes() for line in note.splitlines())]
        return [self.message, *(f"  {line}" for line in below), *([f"  → {self.remedy}"] if self.remedy else [])]

    def whole(self) -> str:
        """Return these lines as one text."""
        return "\n".join(self.lines())

    def happened(self) -> str:
        """Return the text without the remedy, for output that shows the remedy elsewhere."""
        return "\n".join(self.lines()[:-1] if self.remedy else self.lines())

    def notes(self) -> list[str]:
        """Return the notes that were added to the error (PEP 678)."""
        return list(getattr(self, "__notes__", ()))


class MailstackError(Reported, Exception):
    """An error."""


class CheckFailed(MailstackError):
    """A check failed, or a mail did not arrive."""

    exit_code = 1


class InputError(MailstackError):
    """The user's input (an option, a file, a name) is wrong."""

    exit_code = 2


class LabFileError(InputError):
    """A compose file is no valid definition of a lab; the message begins with file:line:col."""


class CredentialsError(InputError):
    """The relay's credentials are missing, malformed, readable by others, or refused by the relay."""


class HostError(MailstackError):
    """The engine or the host cannot be used."""

    exit_code = 3


class EngineError(HostError):
    """The Docker engine did not answer, or refused a request."""


class CommandFailed(HostError):
    """A command ended with an exit code other than 0."""


class DeadlinePassed(MailstackError):
    """Something did not happen before its deadline; the message names both."""

    exit_code = 4


class Interrupted(Reported):
    """The user or the system requested the end (SIGINT, SIGTERM, SIGHUP).

    A signal can arrive within any library, and `except Exception` there must not take it for an error of its own.
    """

    exit_code = 130
