"""Command lines of mailstack that a message tells the user to type: of this lab, and on this host."""

from __future__ import annotations

import os
import shlex

_DEFAULT_LAB = "lab"
# Commands that have commands of their own.
_GROUPS = ("account", "secrets")


def line(*words: str, lab: str = "", host: str = "") -> str:
    """Return a command line, as it is to be typed in the shell that this process was started in.

    It names lab and host, unless they are the default. `lab` is the lab that it is about, "" where it is about none;
    `host` is the host over SSH, "" for this machine. See `Target.line`, too.

        hint.line("logs", "postfix", lab="a")     # mailstack logs -n a postfix
    """
    first = 2 if words[0] in _GROUPS else 1
    where = []
    if lab and lab != os.environ.get("MAILSTACK_NAME", _DEFAULT_LAB):
        where += ["-n", lab]
    if host:
        where += ["--host", host]
    return shlex.join(("mailstack", *words[:first], *where, *words[first:]))
