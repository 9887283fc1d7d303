"""Commands in locales without Unicode, run by the dozen: one interpreter for each locale, a fork for each command."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What a user's locale, or an option of Python's, can make of the standard streams; and their encoding then.
LOCALES = {
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, without UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "euc-jp": {"PYTHONIOENCODING": "euc-jp"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
}
ENCODINGS = {name: name.partition(",")[0] for name in LOCALES}

_MAIN = """
import base64, contextlib, json, os, pty, sys, tempfile, termios
import click
from mailstack import __main__
from mailstack.cli import main, stdio
if len(json.loads(sys.argv[2])) > 5:  # what most commands import, once and not in each child
    import concurrent.futures, email.message, hashlib, imaplib, smtplib, ssl, subprocess, xml.etree.ElementTree
    import docker, rich.console, rich.table, rich.text, yaml
    for name in main.COMMANDS:
        main.cli.get_command(click.Context(main.cli), name)
answers = []
for argv in json.loads(sys.argv[2]):
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child, terminal = pty.fork() if sys.argv[1] else (os.fork(), None)
    if not child:
        if not sys.argv[1]:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
        elif int(sys.argv[1]):
            termios.tcsetwinsize(1, (24, int(sys.argv[1])))
        sys.argv = ["mailstack", *(os.fsdecode(word.encode()) for word in argv)]
        __main__.main()
    if terminal is not None:
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(terminal, 65536):
                out.write(more)
        os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for file in (out, err):
        file.seek(0)
        texts.append(base64.b64encode(file.read()).decode())
    answers.append([code, *texts])
os.write(1, json.dumps(answers).encode())
"""


@dataclass(frozen=True)
class Answer:
    """What a command gave back, in its encoding."""

    argv: tuple[str, ...]
    code: int
    out: bytes
    err: bytes


def answers(
    argvs: Sequence[Sequence[str]], environment: Mapping[str, str], *, terminal: bool = False, width: int = 0
) -> list[Answer]:
    """Run commands, each in a process of its own, in an environment; on a terminal, `out` is all that it shows.

    A terminal has `width` columns, or does not say how many it has.
    """
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, str(width) if terminal else "", json.dumps(argvs)],
        env={**bare, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=300,
    )
    return [
        Answer(tuple(argv), code, base64.b64decode(out), base64.b64decode(err))
        for argv, (code, out, err) in zip(argvs, json.loads(done.stdout), strict=True)
    ]
