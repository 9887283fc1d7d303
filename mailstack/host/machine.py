"""The machine to provision with an engine, here or over SSH: facts about it, and commands on it."""

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
from mailstack.runner.local import LineSink, Runner, last_lines, run_checked
from mailstack.target.over_ssh import SshTarget
from mailstack.target.target import Target

LOCAL = "unix:///var/run/docker.sock"

# Relative to the root directory, so that tests can use another one.
_SOCKET = Path("var/run/docker.sock")
_PROCESS_ID = Path("var/run/docker.pid")
_LOG = Path("var/log/mailstack-dockerd.log")
_SYSTEMD = Path("run/systemd/system")  # sd_booted(3)
_RELEASE = Path("etc/os-release")
_BINARIES = tuple(Path(place) / "dockerd" for place in ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"))

_ANSWER_SECONDS = 5.0  # seconds; for the answer of an engine that runs
UNKNOWN = -1  # the exit code of a process that ended without a wait

ExitCode = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a machine before any change."""

    url: str = LOCAL  # the address of its engine
    answers: bool = False
    denied: bool = False  # the socket exists, and this user may not use it
    installed: bool = False
    daemon: int | None = None  # the process id of the running dockerd
    systemd: bool = False
    is_debian: bool = True  # or derived from it
    distribution: str = "Debian"
    root: bool = True
    sudo: bool = False  # without a password
    user: int = 0
    log: Path = Path("/") / _LOG


class Machine(Protocol):
    """A machine, as the logged-in user."""

    name: str  # of the host, as the user typed it; "" for this machine

    def facts(self) -> Facts:
        """Collect the facts about the machine."""

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        """Run a command to its end."""

    def start(self, command: Command, log: Path) -> ExitCode:
        """Start a process that stays. The returned function gives its exit code; None: it runs, or is not known."""

    def ping(self, seconds: float) -> tuple[bool, bool]:
        """Ping the engine. Return (whether it answered, whether this user is denied)."""

    def daemon(self) -> int | None:
        """Return the process id of the running dockerd by its pid file, or None. A stale pid file is ignored."""

    def tail(self) -> str:
        """Return the last lines of the log of an engine that mailstack started."""


class LocalMachine:
    """This machine."""

    name = ""

    def __init__(self, target: Target, runner: Runner, root: Path = Path("/")) -> None:
        self._target = target
        self._runner = runner
        self._root = root

    def facts(self) -> Facts:
        root, url = self._root, self._target.url
        answers, denied = self.ping(_ANSWER_SECONDS) if url == LOCAL else (_engine_answers(self._target), False)
        if answers:
            return Facts(url=url, answers=True)
        release = parse_os_release(_read(root / _RELEASE))
        superuser = os.geteuid() == 0
        return Facts(
            url=url,
            denied=denied,
            installed=any((root / binary).exists() for binary in _BINARIES),
            daemon=self.daemon(),
            systemd=(root / _SYSTEMD).is_dir(),
            is_debian=is_debian(release),
            distribution=release.get("PRETTY_NAME", "this system"),
            root=superuser,
            sudo=not superuser and self._sudo(),
            user=os.getuid(),
            log=root / _LOG,
        )

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        return self._runner.run(command, on_line=on_line)

    def start(self, command: Command, log: Path) -> ExitCode:
        return self._runner.detach(command, log)

    def ping(self, seconds: float) -> tuple[bool, bool]:
        return _ping(self._root / _SOCKET, seconds)

    def daemon(self) -> int | None:
        try:
            process = int((self._root / _PROCESS_ID).read_text(encoding="utf-8"))
            name = (self._root / "proc" / str(process) / "comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return process if name == "dockerd" else None

    def tail(self) -> str:
        return last_lines(_read(self._root / _LOG))

    def _sudo(self) -> bool:
        try:
            return self._runner.run(Command(("sudo", "-n", "true"))).code == 0
        except HostError:  # sudo is not installed
            return False


# Facts of a machine over SSH, in one script: a line each, then os-release(5).
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
# In a session of its own, so that it keeps running when the connection ends.
_START = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'


class RemoteMachine:
    """A machine over SSH. The connection also leads to its engine, when there is one."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self.name = target.host

    def facts(self) -> Facts:
        """See Machine. All methods raise HostError when the connection is cut."""
        answers, denied = self.ping(_ANSWER_SECONDS)
        url = f"unix://{self._target.connection.about['socket']}"
        if answers:
            return Facts(url=url, answers=True)
        return facts_of(self._shell(_FACTS), url, denied=denied)

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        return self._target.connection.run(command, on_line=on_line)

    def start(self, command: Command, log: Path) -> ExitCode:
        words = (*(f"{name}={value}" for name, value in command.environment.items()), *command.argv)
        process = self._shell(_START, str(log), "env", *words).strip()

        def exit_code() -> int | None:
            return None if self.run(Command(("test", "-d", f"/proc/{process}"))).code == 0 else UNKNOWN

        return exit_code

    def ping(self, seconds: float) -> tuple[bool, bool]:
        if self._target.connection.look()["way"] == "denied":
            return False, True
        return _ping(Path(self._target.url.removeprefix("unix://")), seconds)

    def daemon(self) -> int | None:
        output = self._shell(f'{_DAEMON}echo "$process"').strip()
        return int(output) if output.isdecimal() else None

    def tail(self) -> str:
        return last_lines(self.run(Command(("cat", f"/{_LOG}"))).stdout)

    def _shell(self, script: str, *words: str) -> str:
        return run_checked(self._target.connection, Command(("sh", "-c", script, "mailstack", *words))).stdout


def machine_of(target: Target, runner: Runner) -> Machine:
    """Return the machine of a target; `runner` runs commands on this one."""
    return RemoteMachine(target) if isinstance(target, SshTarget) else LocalMachine(target, runner)


def facts_of(output: str, url: str, *, denied: bool) -> Facts:
    """Parse the facts of a machine over SSH from its shell's output. Raises HostError when they are incomplete."""
    user, daemon, installed, systemd, sudo, *rest = [*output.split("\n"), "", "", "", "", ""]
    if not user.isdecimal():
        raise HostError("its shell did not report the expected facts", details=last_lines(output))
    release = parse_os_release("\n".join(rest))
    return Facts(
        url=url,
        denied=denied,
        installed=bool(installed),
        daemon=int(daemon) if daemon.isdecimal() else None,
        systemd=bool(systemd),
        is_debian=is_debian(release),
        distribution=release.get("PRETTY_NAME", "its system"),
        root=user == "0",
        sudo=user != "0" and bool(sudo),
        user=int(user),
    )


def parse_os_release(text: str) -> dict[str, str]:
    """Parse os-release(5)."""
    return {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in text.splitlines())}


def is_debian(release: dict[str, str]) -> bool:
    """Return whether a distribution is Debian or derived from it."""
    return "debian" in (release.get("ID"), *release.get("ID_LIKE", "").split())


def _ping(path: Path, seconds: float) -> tuple[bool, bool]:
    """Implement Machine.asked for a socket on this machine."""
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


def _engine_answers(target: Target) -> bool:
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
