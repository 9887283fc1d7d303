"""One command on several hosts at once: each by a process of its own, and one table of what came of it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mailstack.cli.output import Progress, print_json, table
from mailstack.errors import InputError, Interrupted
from mailstack.model import Command, Deadline
from mailstack.runner import Local

# Those that answer once, in JSON, and ask nothing.
COMMANDS = ("up", "down", "status", "check", "experiment", "send", "doctor", "version")
# What an interrupted command may take to leave nothing behind on its host.
_TIDYING_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended on one host."""

    host: str
    code: int
    seconds: float
    answer: Any
    messages: tuple[str, ...]


def named(values: Sequence[str]) -> list[str]:
    """The hosts that were named, or stand line by line in a file (`@FILE`), each once. Raises InputError."""
    found: list[str] = []
    for value in values:
        if not value.startswith("@"):
            found.append(value)
            continue
        try:
            lines = Path(value[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise InputError(f"{value[1:]}: the list of hosts cannot be read: {reason}") from None
        found += [line for line in (each.partition("#")[0].strip() for each in lines) if line]
        if not found:
            raise InputError(f"{value[1:]}: there is no host in it", remedy="write one host in each line")
    return list(dict.fromkeys(found))


def alone(argv: Sequence[str], host: str) -> list[str]:
    """The command line of one host; what it writes to a folder goes to a folder of the host's own in there."""
    words: list[str] = []
    given = iter(argv)
    for word in given:
        if word == "--host":
            next(given, None)
        elif word == "--out":
            words += [word, str(Path(next(given, "")) / _as_file(host))]
        elif word.startswith("--out="):
            words.append(f"--out={Path(word.removeprefix('--out=')) / _as_file(host)}")
        elif not word.startswith("--host=") and word != "--json":
            words.append(word)
    return [*words, "--json", "--host", host]


def run(hosts: Sequence[str], argv: Sequence[str]) -> int:
    """Do it on all of them at once, show what came of it, and give the highest of their exit codes."""
    if argv[:1] and argv[0] not in COMMANDS:
        raise InputError(
            f"`mailstack {argv[0]}` works on one host at a time", remedy=f"on several: {', '.join(COMMANDS)}"
        )
    runner = Local()
    with Progress() as show, ThreadPoolExecutor(len(hosts)) as pool:
        show(f"{argv[0]} on {len(hosts)} hosts")
        try:
            ended = list(pool.map(lambda host: _on(host, argv, runner), hosts))
        except (KeyboardInterrupt, Interrupted):
            show(f"interrupting {argv[0]} on {len(hosts)} hosts")
            runner.interrupt(Deadline.after(_TIDYING_SECONDS))
            raise
    if "--json" in argv:
        print_json(
            {
                "hosts": [
                    {
                        "host": each.host,
                        "code": each.code,
                        "seconds": round(each.seconds, 3),
                        "answer": each.answer,
                        "messages": list(each.messages),
                    }
                    for each in ended
                ]
            }
        )
    else:
        rows = [
            (each.host, "ok" if each.code == 0 else f"code {each.code}", f"{each.seconds:.1f}", _told(each))
            for each in ended
        ]
        table(("host", "", "seconds", "what came of it"), rows, flexible=3)
        click.echo(f"\n{sum(not each.code for each in ended)} of {len(ended)} hosts: {argv[0]} is done")
    return max(each.code for each in ended)


def _on(host: str, argv: Sequence[str], runner: Local) -> Ended:
    begun = time.monotonic()
    command = Command((sys.executable, "-m", "mailstack", *alone(argv, host)), {"MAILSTACK_HOST": ""})
    result = runner.run(command)
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        answer = None
    messages = tuple(line for line in result.stderr.splitlines() if not line.endswith(" …"))
    return Ended(host, result.code, time.monotonic() - begun, answer, messages)


def _told(ended: Ended) -> tuple[str, ...]:
    """The answer in a line."""
    if ended.code and ended.messages:
        return tuple(re.sub(r"^mailstack: ", "", line.strip()) for line in ended.messages[:6])
    answer = ended.answer if isinstance(ended.answer, dict) else {}
    if "verified" in answer:
        return (f"{answer['lab']}: a mail crossed it in {answer['verified']['milliseconds']:.0f} ms",)
    if "passed" in answer:
        return (f"{answer['passed']} passed, {answer['failed']} failed",)
    if "removed" in answer:
        return (", ".join(answer["removed"]) or "there was nothing to remove",)
    return ("done" if ended.code == 0 else "see its --json",)


def _as_file(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", host.removeprefix("ssh://")).strip("-.") or "host"
