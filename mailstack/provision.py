"""Making a machine's Docker engine usable: installed where it is missing, started where it stands still.

What is to be done is computed from facts (`plan`); `provision` gathers them, does it, and waits for the engine.
Where an engine answers nothing is changed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mailstack.engine import Engine, engine_url
from mailstack.errors import CommandFailed, DeadlinePassed, EngineError, HostError
from mailstack.model import Command, Deadline
from mailstack.runner import Runner, last_lines, shown

Progress = Callable[[str], None]

LOCAL = "unix:///var/run/docker.sock"
PACKAGES = ("docker.io", "iptables")

# Relative to the root directory, so that tests have one of their own.
_SOCKET = Path("var/run/docker.sock")
_PROCESS_ID = Path("var/run/docker.pid")
_LOG = Path("var/log/mailstack-dockerd.log")
_SYSTEMD = Path("run/systemd/system")  # sd_booted(3)
_RELEASE = Path("etc/os-release")
_BINARIES = tuple(Path(place) / "dockerd" for place in ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"))

_WAIT = 60.0  # seconds from the last step until the engine answers
_PAUSE = 0.1  # seconds between two questions

# For each step: after Debian's `su`, PATH is without the administrator's directories, which dpkg and dockerd need.
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of this machine before anything is changed."""

    url: str = LOCAL  # where the engine is looked for
    answers: bool = False
    denied: bool = False  # there is a socket, and this user may not use it
    installed: bool = False
    daemon: int | None = None  # the process id of a dockerd that runs
    systemd: bool = False
    debian: bool = True  # or made from it
    distribution: str = "Debian"
    root: bool = True
    sudo: bool = False  # without being asked for a password
    user: int = 0
    log: Path = Path("/") / _LOG


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    title: str
    command: Command
    may_fail: bool = False  # what comes after it tells whether it mattered
    log: Path | None = None  # it goes on in the background, and writes here


def plan(facts: Facts) -> list[Step]:
    """What makes the engine usable, in order; nothing where it answers, or is about to.

    Raises HostError where that is not in this command's power.
    """
    if facts.answers:
        return []
    if facts.url != LOCAL:
        raise HostError(
            f"no Docker engine answers at {facts.url}, and only this machine's own can be set up",
            remedy="start that one; or unset DOCKER_HOST and DOCKER_CONTEXT, and choose `docker context use default`",
        )
    if facts.denied and (facts.daemon or facts.systemd):
        raise _denied()
    if facts.daemon:
        return []
    if not facts.installed and not facts.debian:
        raise HostError(
            f"there is no Docker engine, and how to install it on {facts.distribution} is not known here",
            remedy="install the Docker engine (`dockerd`) and iptables with the system's package manager",
        )
    if not facts.root and not facts.sudo:
        steps = plan(replace(facts, root=True))
        raise HostError(
            "installing or starting the Docker engine takes root, and sudo asks for a password or is not there",
            remedy="run as root: "
            + " && ".join(f"({shown(step.command)} &)" if step.log else shown(step.command) for step in steps),
        )
    return [*([] if facts.installed else _install(facts)), *_start(facts)]


def _install(facts: Facts) -> list[Step]:
    lock = "-oDPkg::Lock::Timeout=120"  # seconds; a new machine may be busy with its first updates
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
    # The log is opened by this process, so it must be this user's.
    ours = _as_root(facts, "install", "-m", "0640", "-o", str(facts.user), "/dev/null", str(facts.log))
    return [Step(f"making {facts.log}", ours), start]


def _as_root(facts: Facts, *argv: str) -> Command:
    if facts.root:
        return Command(argv, _ENVIRONMENT)
    settings = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]  # sudo passes no environment on
    return Command(("sudo", "-n", "env", *settings, *argv))


def gather(runner: Runner, root: Path = Path("/")) -> Facts:
    """Look at this machine."""
    url = engine_url()
    answers, denied = _asked(root / _SOCKET, 5.0) if url == LOCAL else (_answers(url), False)
    if answers:
        return Facts(url=url, answers=True)
    release = _release(root / _RELEASE)
    superuser = os.geteuid() == 0
    return Facts(
        url=url,
        denied=denied,
        installed=any((root / binary).exists() for binary in _BINARIES),
        daemon=_daemon(root),
        systemd=(root / _SYSTEMD).is_dir(),
        debian="debian" in (release.get("ID"), *release.get("ID_LIKE", "").split()),
        distribution=release.get("PRETTY_NAME", "this system"),
        root=superuser,
        sudo=not superuser and _sudo(runner),
        user=os.getuid(),
        log=root / _LOG,
    )


def provision(runner: Runner, progress: Progress, *, root: Path = Path("/"), seconds: float = _WAIT) -> None:
    """Make this machine's engine usable, and come back when it answers.

    Raises HostError (with the engine's last lines, if it was started here) when it cannot be done.
    """
    facts = gather(runner, root)
    if facts.answers:
        progress(f"the Docker engine at {facts.url} answers: nothing to do")
        return
    ended: Callable[[], int | None] = _runs
    for step in plan(facts):
        # Installing may have started the engine (a service manager other than systemd): never start a second one.
        if step.log and _daemon(root):
            continue
        progress(step.title)
        if step.log:
            ended = runner.detach(step.command, step.log)
        else:
            _do(runner, step, progress)
    progress("waiting for the engine's answer")
    if not _await(root, ended, Deadline.after(seconds), facts.daemon):
        provision(runner, progress, root=root, seconds=seconds)
        return
    progress("the Docker engine answers")


def _do(runner: Runner, step: Step, progress: Progress) -> None:
    result = runner.run(step.command)
    if result.code == 0:
        return
    lines = last_lines(f"{result.stdout}\n{result.stderr}")
    if not step.may_fail:
        raise CommandFailed(
            f"{step.title} failed: `{shown(step.command)}` ended with code {result.code}",
            remedy="put right what it says, and run `mailstack provision` again",
            details=lines,
        )
    progress(f"{step.title} failed, going on: {lines.rpartition(chr(10))[2]}")


def _await(root: Path, ended: Callable[[], int | None], deadline: Deadline, found: int | None) -> bool:
    """Wait for the engine's answer; give up at once when the one that was started has ended.

    False when the one that was `found` is gone: it had been killed a moment before.
    """
    before = False
    while not deadline.passed():
        answers, denied = _asked(root / _SOCKET, deadline.remaining())
        if answers:
            return True
        if found and _daemon(root) is None:
            return False
        if denied and before:  # once may be the moment between the making of the socket and its permissions
            raise _denied()
        before = denied
        code = ended()
        if code is not None and not _daemon(root):
            raise HostError(
                f"the Docker engine ended as soon as it was started, with code {code}",
                remedy=f"its log is {root / _LOG}",
                details=_tail(root / _LOG),
            )
        time.sleep(min(_PAUSE, deadline.remaining()))
    raise DeadlinePassed(
        f"the Docker engine did not answer within {deadline.seconds:g} s",
        remedy="see below; with systemd: `journalctl -u docker`",
        details=_tail(root / _LOG),
    )


def _asked(path: Path, seconds: float) -> tuple[bool, bool]:
    """Ask the engine behind this socket for a sign of life: (whether it answered, whether this user may not ask)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64), False
        except PermissionError:
            return False, True
        except OSError:
            return False, False


def _answers(url: str) -> bool:
    try:
        Engine(url).version()
    except EngineError:
        return False
    return True


def _daemon(root: Path) -> int | None:
    """The process id of the dockerd that runs, by its own record; a record that a dead one left does not count."""
    try:
        process = int((root / _PROCESS_ID).read_text())
        name = (root / "proc" / str(process) / "comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return process if name == "dockerd" else None


def _sudo(runner: Runner) -> bool:
    try:
        return runner.run(Command(("sudo", "-n", "true"))).code == 0
    except HostError:  # there is no sudo
        return False


def _release(path: Path) -> dict[str, str]:
    """What os-release(5) says."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}


def _tail(log: Path) -> str:
    try:
        return last_lines(log.read_text(errors="replace"))
    except OSError:
        return ""


def _denied() -> HostError:
    return HostError(
        "the Docker engine runs, and this user may not use it",
        remedy='run `sudo usermod -aG docker "$USER"` and log in again, or run this command with sudo',
    )


def _runs() -> None:
    """How a process ended that was not started here: not known, so it counts as running."""
