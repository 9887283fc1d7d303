"""Everything that can go wrong, as one tree.

MailstackError
├── CheckFailed         1    a check failed, or a mail did not arrive
├── InputError          2    what the user gave is wrong
│   ├── LabFileError         … in a compose file; says file:line:col
│   └── CredentialsError     … in the relay's credentials
├── HostError           3    the engine or the host cannot be used
│   ├── EngineError          … the Docker engine
│   └── CommandFailed        … a command that was run for the user
├── DeadlinePassed      4    something did not happen in time
└── Interrupted       130    Ctrl-C or SIGTERM

Other libraries' errors are turned into one of these where they arise (engine, mail, runner), so that the command
line has one thing to print and one exit code to give.
"""

from __future__ import annotations

from typing import ClassVar


class MailstackError(Exception):
    """What happened and where, in one sentence; `remedy`, if any, says what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details = details  # log lines or output that explain; printed below the message

    def __str__(self) -> str:
        return self.message  # to which something may have been added since

    def lines(self) -> list[str]:
        """Return all that it says, for people: what happened, what explains it, what came with it, and what to do."""
        below = [*self.details.splitlines(), *(line for note in self.notes() for line in note.splitlines())]
        return [self.message, *(f"  {line}" for line in below), *([f"  → {self.remedy}"] if self.remedy else [])]

    def whole(self) -> str:
        """Return the same as one text."""
        return "\n".join(self.lines())

    def happened(self) -> str:
        """Return the same without what to do, for where that has a place of its own."""
        return "\n".join(self.lines()[:-1] if self.remedy else self.lines())

    def notes(self) -> list[str]:
        """Return what was added to it on its way (PEP 678)."""
        return list(getattr(self, "__notes__", ()))


class CheckFailed(MailstackError):
    """A check failed, or a mail did not arrive."""

    exit_code = 1


class InputError(MailstackError):
    """What the user gave (an option, a file, a name) is wrong."""

    exit_code = 2


class LabFileError(InputError):
    """A compose file says something that the lab cannot be made from; the message opens with file:line:col."""


class CredentialsError(InputError):
    """The relay's credentials are missing, malformed, readable by others, or refused by the relay."""


class HostError(MailstackError):
    """The engine or the host cannot be used."""

    exit_code = 3


class EngineError(HostError):
    """The Docker engine did not answer, or refused."""


class CommandFailed(HostError):
    """A command ended with another code than 0."""


class DeadlinePassed(MailstackError):
    """Something did not happen before its deadline; the message names both."""

    exit_code = 4


class Interrupted(MailstackError):
    """The user, or the system, asked to stop."""

    exit_code = 130
