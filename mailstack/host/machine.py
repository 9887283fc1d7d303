"""The machine that is to have an engine: this one, or one over SSH. What is known of it, and what is done on it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, HostError
from mailstack.model import Command, Result
from mailstack.runner.local import LineSink, Runner, last_lines, must
from mailstack.target.over_ssh import SshTarget
from mailstack.target.target import Target

LOCAL = "unix:///var/run/docker.sock"

# Relative to the root directory, so that tests have one of their own.
_SOCKET = Path("var/run/docker.sock")
_PROCESS_ID = Path("var/run/docker.pid")
_LOG = Path("var/log/mailstack-dockerd.log")
_SYSTEMD = Path("run/systemd/system")  # sd_booted(3)
_RELEASE = Path("etc/os-release")
_BINARIES = tuple(Path(place) / "dockerd" for place in ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"))

_ANSWER_SECONDS = 5.0  # for an engine that is there
UNKNOWN = -1  # the code with which something ended that nobody waited for

Ended = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a machine before anything is changed."""

    url: str = LOCAL  # where its engine is looked for
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


class Machine(Protocol):
    """A machine, and who is logged in to it."""

    name: str  # of the host, as the user has given it; "" for this machine

    def facts(self) -> Facts:
        """Look at it."""

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        """Run a command to its end."""

    def start(self, command: Command, log: Path) -> Ended:
        """Start what stays; the function given back says how it ended: None while it runs, or where that is unknown."""

    def asked(self, seconds: float) -> tuple[bool, bool]:
        """Ask the engine for a sign of life: (whether it answered, whether this user may not ask)."""

    def daemon(self) -> int | None:
        """The process id of the dockerd that runs, by its own record; a record that a dead one left does not count."""

    def tail(self) -> str:
        """The last lines of the log of an engine that was started here."""


class Here:
    """This machine."""

    name = ""

    def __init__(self, target: Target, runner: Runner, root: Path = Path("/")) -> None:
        self._target = target
        self._runner = runner
        self._root = root

    def facts(self) -> Facts:
        """See Machine."""
        root, url = self._root, self._target.url
        answers, denied = self.asked(_ANSWER_SECONDS) if url == LOCAL else (_answers(self._target), False)
        if answers:
            return Facts(url=url, answers=True)
        release = released(_read(root / _RELEASE))
        superuser = os.geteuid() == 0
        return Facts(
            url=url,
            denied=denied,
            installed=any((root / binary).exists() for binary in _BINARIES),
            daemon=self.daemon(),
            systemd=(root / _SYSTEMD).is_dir(),
            debian=debian(release),
            distribution=release.get("PRETTY_NAME", "this system"),
            root=superuser,
            sudo=not superuser and self._sudo(),
            user=os.getuid(),
            log=root / _LOG,
        )

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        """See Machine."""
        return self._runner.run(command, on_line=on_line)

    def start(self, command: Command, log: Path) -> Ended:
        """See Machine."""
        return self._runner.detach(command, log)

    def asked(self, seconds: float) -> tuple[bool, bool]:
        """See Machine."""
        return _asked(self._root / _SOCKET, seconds)

    def daemon(self) -> int | None:
        """See Machine."""
        try:
            process = int((self._root / _PROCESS_ID).read_text(encoding="utf-8"))
            name = (self._root / "proc" / str(process) / "comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return process if name == "dockerd" else None

    def tail(self) -> str:
        """See Machine."""
        return last_lines(_read(self._root / _LOG))

    def _sudo(self) -> bool:
        try:
            return self._runner.run(Command(("sudo", "-n", "true"))).code == 0
        except HostError:  # there is no sudo
            return False


# What is asked of a machine over SSH, in one go: a line each, then os-release(5).
_DAEMON = f"""\
process=$(cat /{_PROCESS_ID} 2>/dev/null)
[ "$(cat "/proc/$process/comm" 2>/dev/null)" = dockerd ] || process=
"""
_FACTS = f"""\
{_DAEMON}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
command -v dockerd >/dev/null && installed=yes || installed=
[ -d /{_SYSTEMD} ] && systemd=yes || systemd=
sudo -n true 2>/dev/null && sudo=yes || sudo=
printf '%s\\n' "$(id -u)" "$process" "$installed" "$systemd" "$sudo"
cat /{_RELEASE} 2>/dev/null || :
"""
# In a session of its own: it stays when the connection ends.
_START = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'


class There:
    """A machine over SSH; its engine, once there is one, is reached through the connection."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self.name = target.host

    def facts(self) -> Facts:
        """See Machine. Raises HostError when the connection is cut, as all below do."""
        answers, denied = self.asked(_ANSWER_SECONDS)
        url = f"unix://{self._target.connection.about['socket']}"
        if answers:
            return Facts(url=url, answers=True)
        return facts_of(self._shell(_FACTS), url, denied=denied)

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        """See Machine."""
        return self._target.connection.run(command, on_line=on_line)

    def start(self, command: Command, log: Path) -> Ended:
        """See Machine."""
        words = (*(f"{name}={value}" for name, value in command.environment.items()), *command.argv)
        process = self._shell(_START, str(log), "env", *words).strip()

        def ended() -> int | None:
            return None if self.run(Command(("test", "-d", f"/proc/{process}"))).code == 0 else UNKNOWN

        return ended

    def asked(self, seconds: float) -> tuple[bool, bool]:
        """See Machine."""
        if self._target.connection.look()["way"] == "denied":
            return False, True
        return _asked(Path(self._target.url.removeprefix("unix://")), seconds)

    def daemon(self) -> int | None:
        """See Machine."""
        told = self._shell(f'{_DAEMON}echo "$process"').strip()
        return int(told) if told.isdecimal() else None

    def tail(self) -> str:
        """See Machine."""
        return last_lines(self.run(Command(("cat", f"/{_LOG}"))).stdout)

    def _shell(self, script: str, *words: str) -> str:
        return must(self._target.connection, Command(("sh", "-c", script, "mailstack", *words))).stdout


def machine_of(target: Target, runner: Runner) -> Machine:
    """Return the machine of a target; `runner` runs commands on this one."""
    return There(target) if isinstance(target, SshTarget) else Here(target, runner)


def facts_of(told: str, url: str, *, denied: bool) -> Facts:
    """The facts of a machine over SSH, from what its shell has told. Raises HostError when it has not."""
    user, daemon, installed, systemd, sudo, *rest = [*told.split("\n"), "", "", "", "", ""]
    if not user.isdecimal():
        raise HostError("its shell does not say what there is", details=last_lines(told))
    release = released("\n".join(rest))
    return Facts(
        url=url,
        denied=denied,
        installed=bool(installed),
        daemon=int(daemon) if daemon.isdecimal() else None,
        systemd=bool(systemd),
        debian=debian(release),
        distribution=release.get("PRETTY_NAME", "its system"),
        root=user == "0",
        sudo=user != "0" and bool(sudo),
        user=int(user),
    )


def released(text: str) -> dict[str, str]:
    """What os-release(5) says."""
    return {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in text.splitlines())}


def debian(release: dict[str, str]) -> bool:
    """Whether it is Debian, or made from it."""
    return "debian" in (release.get("ID"), *release.get("ID_LIKE", "").split())


def _asked(path: Path, seconds: float) -> tuple[bool, bool]:
    """Machine.asked, of a socket here."""
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


def _answers(target: Target) -> bool:
    try:
        Engine(target).version()
    except EngineError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
