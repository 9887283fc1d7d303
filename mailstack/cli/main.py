"""The command `mailstack`. Each subcommand is imported when it is used, so that `--help` is fast."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from mailstack import __version__
from mailstack.cli import stdio
from mailstack.errors import HostError, InputError, Interrupted, Reported

# command -> (module, summary for `mailstack --help`)
COMMANDS = {
    "up": ("lifecycle", "Start or repair a lab, and prove it with two mails."),
    "down": ("lifecycle", "Remove a lab, or all of yours."),
    "status": ("status", "Show services, ports and accounts."),
    "check": ("checking", "Run end-to-end checks on a lab."),
    "experiment": ("experiment", "Run the whole experiment and report on it."),
    "send": ("messages", "Send a mail and wait until it arrives."),
    "dialogue": ("dialogue", "Send a mail and show the SMTP dialogue."),
    "inbox": ("mailboxes", "List a mailbox, or watch for new mail."),
    "read": ("mailboxes", "Show a mail, or save its attachments."),
    "reply": ("messages", "Reply to a mail."),
    "trace": ("trace", "Follow a message hop by hop."),
    "queue": ("queue", "List and manage mail that waits."),
    "load": ("load", "Generate load and account for every mail."),
    "explain": ("explain", "Explain failures and their remedies."),
    "account": ("account", "Add, list and remove accounts of a running lab."),
    "env": ("env", "Print environment variables for any program."),
    "logs": ("access", "Show or follow the logs of the services."),
    "shell": ("access", "Open a shell in a service."),
    "secrets": ("access", "Create, rotate or reveal the secrets of a lab."),
    "config": ("lifecycle", "Show the definition with its overlays."),
    "doctor": ("host", "Check whether this host can run a lab."),
    "provision": ("host", "Install and start Docker if no engine runs."),
    "images": ("images", "Save the images to a file, or load them."),
    "version": ("host", "Show all versions and the image digests."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mailstack.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Lazy,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "MAILSTACK",
        "max_content_width": 80,
    },
)
@click.version_option(__version__, message="mailstack %(version)s")
def cli() -> None:
    """A mail lab in containers: real Postfix, real Dovecot and a sender.

    \b
    mailstack up                            start a lab
    mailstack send --to bob@example.com     send a mail through it
    mailstack read bob@example.com          read this mail
    mailstack down                          remove the lab

    Every command with an answer accepts --json. Variables can set all options:
    MAILSTACK_NAME sets -n, MAILSTACK_UP_TTL sets `up --ttl`, and so on.
    """


_SIGNALS = {
    signal.SIGHUP: "the terminal was closed (SIGHUP)",
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated (SIGTERM)",
}


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _ignore_signals()  # a second signal must not stop the cleanup that the first one began
    raise Interrupted(_SIGNALS[signal.Signals(number)])


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def main() -> NoReturn:
    """Run the command line. Only here does an error become a message and an exit code."""
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) ignores it
            signal.signal(number, _interrupt)
    code = _run()
    _ignore_signals()
    if error := stdio.failure():  # after the work: a failed write is no reason to abort it
        print_error(HostError(f"standard output cannot be written to: {error.strerror}"))
        code = code or HostError.exit_code
    gc.freeze()  # the search for cycles at exit would take 10 to 20 ms
    sys.exit(code)


def _run() -> int:
    """Run the command line, print its error if there is one, and return the exit code."""
    try:
        _need_a_directory(sys.argv[1:])
        code = cli.main(standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except Reported as error:
        print_error(error)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code if error.exit_code != 1 else 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("mailstack: interrupted", err=True)
        code = Interrupted.exit_code
    except UnicodeEncodeError as error:  # output has replacements in any encoding, but a file's name has none
        print_error(
            InputError(
                f"a file's name has characters that {error.encoding}, the encoding of this locale, does not have",
                remedy="a locale in UTF-8 takes it: LC_ALL=C.UTF-8",
            )
        )
        code = InputError.exit_code
    except OSError as error:
        # Errors that no other module has made more precise: a full disk, a file that cannot be opened, …
        print_error(HostError(f"{error.filename or 'this machine'}: {error.strerror or error}"))
        code = HostError.exit_code
    return code if isinstance(code, int) else 0


def _need_a_directory(argv: Sequence[str]) -> None:
    """Raise InputError when the current directory has been removed: relative paths and Compose would fail."""
    if not argv or not {"-h", "--help", "--version"}.isdisjoint(argv):
        return
    try:
        os.getcwd()  # noqa: PTH109 - asked for, and not used
    except OSError as error:
        raise InputError(
            f"the current directory cannot be used: {error.strerror}; it was removed, or is not yours to read",
            remedy="change to another one (`cd`), and try again",
        ) from None


def print_error(error: Reported) -> None:
    """Print an error for people: the event, the log lines that explain it, and the remedy."""
    from mailstack.text.printable import printable

    first, *below = error.lines()
    for line in (f"mailstack: {first}", *below):
        click.echo(printable(line), err=True)
