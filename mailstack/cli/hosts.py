"""Run one command on several hosts in parallel, each in its own process, and show one table of the results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from mailstack.cli.output import Progress, print_json, standard_input, table
from mailstack.errors import HostError, InputError, Interrupted, MailstackError
from mailstack.model import Command, Deadline, Result
from mailstack.runner.local import Local, ending

# Commands that answer once, in JSON, and ask no question.
COMMANDS = ("up", "down", "status", "check", "experiment", "send", "doctor", "version")
# Seconds that an interrupted command may take to clean up its host.
_TIDYING_SECONDS = 60.0
# How many lines of a failure the table shows.
_LINES = 12
_MOST_CHARACTERS = 1024**2  # characters in a file of hosts, which may be a device without an end


@dataclass(frozen=True, slots=True)
class HostResult:
    """The result of the command on one host."""

    host: str
    code: int
    seconds: float
    answer: Any
    messages: tuple[str, ...]


def expand(values: Sequence[str]) -> list[str]:
    """Return the hosts given by name or line by line in a file (`@FILE`), each once. Raises InputError."""
    hosts: list[str] = []
    for value in values:
        if not value.startswith("@"):
            hosts.append(value)
            continue
        try:
            with open(value[1:], encoding="utf-8", opener=_open_nonblocking) as file:
                if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
                    raise InputError(f"{value[1:]}: is a device", remedy="name a file with one host in each line")
                lines = file.read(_MOST_CHARACTERS).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise InputError(f"{value[1:]}: the list of hosts cannot be read: {reason}") from None
        hosts += [line for line in (each.partition("#")[0].strip() for each in lines) if line]
        if not hosts:
            raise InputError(f"{value[1:]}: there is no host in it", remedy="write one host in each line")
    return list(dict.fromkeys(hosts))


def _open_nonblocking(name: str, flags: int) -> int:
    """Open a file. Without O_NONBLOCK, opening a FIFO would block until a writer appears."""
    return os.open(name, flags | os.O_NONBLOCK)


def file_names(hosts: Sequence[str]) -> dict[str, str]:
    """Return a unique name for each host's output files."""
    names: dict[str, str] = {}
    for host in hosts:
        name = stem = re.sub(r"[^A-Za-z0-9._-]+", "-", host.removeprefix("ssh://")).strip("-.") or "host"
        number = 1
        while name in names.values():
            number += 1
            name = f"{stem}-{number}"
        names[host] = name
    return names


def host_argv(argv: Sequence[str], host: str, name: str) -> list[str]:
    """Return the command line for one host; `name` makes the paths of its output files unique."""
    words: list[str] = []
    given = iter(argv)
    for word in given:
        option, equals, value = word.partition("=")
        if option in _WRITTEN:
            own = _WRITTEN[option](Path(value if equals else next(given, "")), name)
            words += [f"{option}={own}"] if equals else [option, str(own)]
        elif option == "--host":
            if not equals:
                next(given, None)
        elif word != "--json":
            words.append(word)
    return [*words, "--json", "--host", host]


def settings(command: str, environment: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the variables for one host, with unique output paths (MAILSTACK_EXPERIMENT_OUT) and without
    MAILSTACK_HOST.
    """
    variables = {"MAILSTACK_HOST": ""}
    for option, path_for_host in _WRITTEN.items():
        variable = _variable(command, option)
        if value := environment.get(variable):
            variables[variable] = str(path_for_host(Path(value), name))
    return variables


def reads_input(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether the command reads a text from standard input, which is then read once for all hosts."""
    return _option_value(argv, environment, "--body") == "-"


def _option_value(argv: Sequence[str], environment: Mapping[str, str], option: str) -> str:
    """Return the value of an option from the command line or its variable; "" if it has none."""
    values = [
        after if word == option else word.removeprefix(f"{option}=")
        for word, after in pairwise([*argv, ""])
        if word == option or word.startswith(f"{option}=")
    ]
    return values[-1] if values else environment.get(_variable(argv[0], option), "")


def _variable(command: str, option: str) -> str:
    return f"MAILSTACK_{command.upper()}_{option.removeprefix('--').upper()}"


def _beside(file: Path, name: str) -> Path:
    return file.parent / f"{file.stem}-{name}{file.suffix}"


# Options with an output path, and the path for each host: a folder inside the folder, or a file next to the file.
_WRITTEN: dict[str, Callable[[Path, str], Path]] = {
    "--out": lambda out, name: _beside(out, name) if out.suffix.lower() == ".pdf" else out / name,
    "--junit": _beside,
}


def run(hosts: Sequence[str], argv: Sequence[str]) -> int:
    """Run the command on all hosts in parallel, print the results, and return the highest exit code."""
    if argv[:1] and argv[0] not in COMMANDS:
        raise InputError(
            f"`mailstack {argv[0]}` works on one host at a time", remedy=f"on several: {', '.join(COMMANDS)}"
        )
    names, runner = file_names(hosts), Local()
    text = standard_input() if reads_input(argv, os.environ) else None
    _make_folder(argv)
    with Progress() as show, ThreadPoolExecutor(len(hosts)) as pool:
        show(f"{argv[0]} on {len(hosts)} hosts")
        tasks = [pool.submit(_run_on, host, names[host], argv, text, runner) for host in hosts]
        try:
            results = [task.result() for task in tasks]
        except (KeyboardInterrupt, Interrupted):
            show(f"interrupting {argv[0]} on {len(hosts)} hosts")
            runner.interrupt(Deadline.after(_TIDYING_SECONDS))
            raise Interrupted("interrupted", details="\n".join(other_results(tasks))) from None
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
                    for each in results
                ]
            }
        )
    else:
        rows = [
            (each.host, "ok" if each.code == 0 else f"code {each.code}", f"{each.seconds:.1f}", summary(each))
            for each in results
        ]
        table(("host", "", "seconds", "result"), rows, flexible=3)
        click.echo(f"\n{sum(not each.code for each in results)} of {len(results)} hosts: {argv[0]} is done")
    return max(each.code for each in results)


def other_results(tasks: Sequence[Future[HostResult]]) -> Iterator[str]:
    """Yield the results of hosts where the interruption did not end the command: it was done before, or it failed."""
    for task in tasks:
        with contextlib.suppress(Interrupted):  # it was never started
            each = task.result()
            if each.code == 0:
                yield f"{each.host}: had finished before"
            elif each.code != Interrupted.exit_code:
                yield f"{each.host}: exited with code {each.code}: {' '.join(summary(each))}"


def _make_folder(argv: Sequence[str]) -> None:
    """Create the folder in which each host has its own folder."""
    if folder := _option_value(argv, os.environ, "--out"):
        try:
            Path(folder).mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be created for the reports of the hosts: {error.strerror}") from None


def _run_on(host: str, name: str, argv: Sequence[str], text: bytes | None, runner: Local) -> HostResult:
    started_at = time.monotonic()
    words = (sys.executable, "-m", "mailstack", *host_argv(argv, host, name))
    # The answer is read as UTF-8, whatever the locale.
    environment = {**settings(argv[0], os.environ, name), "PYTHONIOENCODING": "utf-8"}
    command = Command(words, environment, text)
    try:
        result = runner.run(command)
    except MailstackError as error:
        return HostResult(host, error.exit_code, time.monotonic() - started_at, None, tuple(error.lines()))
    return host_result(host, result, time.monotonic() - started_at)


def host_result(host: str, result: Result, seconds: float) -> HostResult:
    """Return the result on one host. Without an answer, or after a signal, the command has failed."""
    messages = [line for line in result.stderr.splitlines() if not line.endswith(" …")]
    code, answer = result.code, None
    if code < 0:
        messages.append(f"mailstack: the process for {host} {ending(code)}")
        code = Interrupted.exit_code if -code in (signal.SIGINT, signal.SIGTERM) else HostError.exit_code
    try:
        answer = json.loads(result.stdout)
    except (ValueError, RecursionError):
        if code == 0:
            messages.append(f"mailstack: the process for {host} exited without a readable answer")
            code = HostError.exit_code
    return HostResult(host, code, seconds, answer, tuple(messages))


def summary(each: HostResult) -> tuple[str, ...]:
    """Return the table cell for one host: the answer in a line, or the error and its remedy."""
    if each.code and each.messages:
        return abridged([re.sub(r"^mailstack: ", "", line.strip()) for line in each.messages if line.strip()])
    with contextlib.suppress(KeyError, TypeError, ValueError):  # an answer of another version
        if "verified" in each.answer:
            milliseconds = each.answer["verified"]["milliseconds"]
            return (f"{each.answer['lab']}: a mail crossed it in {milliseconds:.0f} ms",)
        if "passed" in each.answer:
            return (f"{each.answer['passed']} passed, {each.answer['failed']} failed",)
        if "removed" in each.answer:
            return (", ".join(each.answer["removed"]) or "nothing to remove",)
    return ("see its --json" if each.code else "done",)


def abridged(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the first of some lines, which says what happened, and the last ones, with the reason and the remedy."""
    if len(lines) <= _LINES:
        return tuple(lines)
    return (lines[0], "…", *lines[2 - _LINES :])
