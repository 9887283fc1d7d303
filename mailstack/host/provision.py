"""Make a machine's Docker engine usable: install it if it is missing, start it if it is stopped.

`plan` computes the steps from facts. `provision` asks for consent, runs the steps, and waits for the engine. Nothing is
changed when an engine answers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mailstack.errors import CommandFailed, DeadlinePassed, HostError
from mailstack.host.machine import LOCAL, UNKNOWN, ExitCode, Facts, Machine
from mailstack.model import Command, Deadline, Progress
from mailstack.runner.local import last_lines, shell_line
from mailstack.text import hint

PACKAGES = ("docker.io", "iptables")

_WAIT = 60.0  # seconds from the last step until the engine answers
_PAUSE = 0.1  # seconds between two requests

# The environment of each step: after Debian's `su`, PATH lacks the administrator's directories, which dpkg and dockerd
# need.
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


_SUDO = ("sudo", "-n", "env")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of provisioning."""

    title: str
    command: Command
    may_fail: bool = False  # the next step shows whether the failure matters
    log: Path | None = None  # the log of a process that keeps running in the background


def plan(facts: Facts) -> list[Step]:
    """Return the steps that make the engine usable, in order. No steps when it answers or is about to.

    Raises HostError when this command cannot make it usable.
    """
    if facts.answers:
        return []
    if facts.url != LOCAL:
        raise HostError(
            f"no Docker engine answers at {facts.url}, and only a machine's own engine can be set up",
            remedy="start that one; or unset DOCKER_HOST and DOCKER_CONTEXT, and choose `docker context use default`",
        )
    if facts.denied and (facts.daemon or facts.systemd):
        raise _denied()
    if facts.daemon:
        return []
    if not facts.installed and not facts.is_debian:
        raise HostError(
            f"there is no Docker engine, and mailstack cannot install one on {facts.distribution}",
            remedy="install the Docker engine (`dockerd`) and iptables with the system's package manager",
        )
    if not facts.root and not facts.sudo:
        steps = plan(replace(facts, root=True))
        raise HostError(
            "installing or starting the Docker engine needs root, and sudo asks for a password or is not installed",
            remedy="run as root: "
            + " && ".join(f"({command_line(step)})" if step.log else command_line(step) for step in steps),
        )
    return [*([] if facts.installed else _install(facts)), *_start(facts)]


def command_line(step: Step) -> str:
    """Return a step's command as a user types it."""
    argv = step.command.argv
    if argv[:3] == _SUDO:
        argv = ("sudo", *argv[len(_SUDO) + len(_ENVIRONMENT) :])
    return shell_line(Command(argv)) + (f" >> {step.log} 2>&1 &" if step.log else "")


def _install(facts: Facts) -> list[Step]:
    lock = "-oDPkg::Lock::Timeout=120"  # seconds; a new machine may be installing its first updates
    return [
        Step("updating the package lists", _as_root(facts, "apt-get", lock, "update"), may_fail=True),
        Step(
            f"installing {' and '.join(PACKAGES)}",
            _as_root(facts, "apt-get", lock, "install", "-y", "--no-install-recommends", *PACKAGES),
        ),
    ]


def _start(facts: Facts) -> list[Step]:
    if facts.systemd:
        return [Step("starting the engine", _as_root(facts, "systemctl", "enable", "--now", "docker"))]
    start = Step("starting the engine in the background", _as_root(facts, "dockerd"), log=facts.log)
    if facts.root:
        return [start]
    # This process opens the log, so the log must belong to this user.
    make_log = _as_root(facts, "install", "-m", "0640", "-o", str(facts.user), "/dev/null", str(facts.log))
    return [Step(f"making {facts.log}", make_log), start]


def _as_root(facts: Facts, *argv: str) -> Command:
    if facts.root:
        return Command(argv, _ENVIRONMENT)
    settings = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]  # sudo does not pass the environment on
    return Command((*_SUDO, *settings, *argv))


def provision(
    machine: Machine,
    progress: Progress,
    *,
    confirm: Callable[[Facts, list[Step]], None] = lambda facts, steps: None,
    seconds: float = _WAIT,
) -> None:
    """Make a machine's engine usable, and return when it answers.

    `confirm` receives the steps before they run, and raises to refuse them. Raises HostError when the engine cannot be
    made usable, with the engine's last lines if it was started here.
    """
    with _naming_host(machine):
        facts = machine.facts()
        if facts.answers:
            where = f"on {machine.name}" if machine.name else f"at {facts.url}"
            progress(f"the Docker engine {where} answers: nothing to do")
            return
        if steps := plan(facts):
            confirm(facts, steps)
        exit_code: ExitCode = _exit_unknown
        for step in steps:
            # A service manager other than systemd may start the engine after the installation: do not start a second
            # one.
            if step.log and machine.daemon():
                continue
            progress(step.title)
            if step.log:
                exit_code = machine.start(step.command, step.log)
            else:
                _run_step(machine, step, progress)
        progress("waiting for the engine's answer")
        if not _await_engine(machine, exit_code, Deadline.after(seconds), facts):
            provision(machine, progress, confirm=confirm, seconds=seconds)
            return
        progress("the Docker engine answers")


@contextlib.contextmanager
def _naming_host(machine: Machine) -> Iterator[None]:
    """Put another machine's name before the messages of errors."""
    try:
        yield
    except (HostError, DeadlinePassed) as error:
        if machine.name and not error.message.startswith(machine.name):
            error.message = f"{machine.name}: {error.message}"
        raise


def _run_step(machine: Machine, step: Step, progress: Progress) -> None:
    result = machine.run(step.command)
    if result.code == 0:
        return
    lines = last_lines(f"{result.stdout}\n{result.stderr}")
    if not step.may_fail:
        again = hint.line("provision", host=machine.name)
        raise CommandFailed(
            f"{step.title} failed: `{shell_line(step.command)}` exited with code {result.code}",
            remedy=f"fix the reported problem, and run `{again}` again",
            details=lines,
        )
    progress(f"{step.title} failed, continuing: {lines.rpartition(chr(10))[2]}")


def _await_engine(machine: Machine, exit_code: ExitCode, deadline: Deadline, facts: Facts) -> bool:
    """Wait for the engine's answer. Raises HostError at once when the engine that was started exits.

    Returns False when the engine that ran before has exited: it had been killed a moment earlier.
    """
    denied_before = False
    while not deadline.passed():
        answers, denied = machine.ping(deadline.remaining())
        if answers:
            return True
        if facts.daemon and machine.daemon() is None:
            return False
        if denied and denied_before:  # the first denial may fall between the creation of the socket and its permissions
            raise _denied()
        denied_before = denied
        code = exit_code()
        if code is not None and not machine.daemon():
            how = "" if code == UNKNOWN else f", with code {code}"
            raise HostError(
                f"the Docker engine exited right after its start{how}",
                remedy=f"its log is {facts.log}",
                details=machine.tail(),
            )
        time.sleep(min(_PAUSE, deadline.remaining()))
    raise DeadlinePassed(
        f"the Docker engine did not answer within {deadline.seconds:g} s",
        remedy="see below; with systemd: `journalctl -u docker`",
        details=machine.tail(),
    )


def _denied() -> HostError:
    return HostError(
        "the Docker engine is running, but this user has no permission to use it",
        remedy='run `sudo usermod -aG docker "$USER"` and log in again, or run this command with sudo',
    )


def _exit_unknown() -> None:
    """Return None, “running”: the exit of a process that was not started here is unknown."""
