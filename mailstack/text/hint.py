"""Format the mailstack command lines that messages suggest, for a lab and a host."""

from __future__ import annotations

import os
import shlex

_DEFAULT_LAB = "lab"
# Commands with subcommands.
_GROUPS = ("account", "secrets")


def line(*words: str, lab: str = "", host: str = "") -> str:
    """Return a command line for the shell from which this process was started.

    It names the lab and the host, unless they are the default. `lab` is "" for a command without a lab; `host` is the
    host over SSH, "" for this machine. See also `Target.line`.

        hint.line("logs", "postfix", lab="a")     # mailstack logs -n a postfix
    """
    first = 2 if words[0] in _GROUPS else 1
    where = []
    if lab and lab != os.environ.get("MAILSTACK_NAME", _DEFAULT_LAB):
        where += ["-n", lab]
    if host:
        where += ["--host", host]
    return shlex.join(("mailstack", *words[:first], *where, *words[first:]))
