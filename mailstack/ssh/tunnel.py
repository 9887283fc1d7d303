"""The connection to one host, kept open by a process of its own (`daemon`), which `daemon_client` starts.

<directory>/docker.sock    leads to the host's engine
<directory>/control.sock   what this process is asked to do: a line of JSON each, see `daemon_control`
127.0.0.1:PORT                     leads to the same port of the host's loopback, for each port of a lab

It ends when the connection does, and when the last command has gone and no lab is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path
from typing import Any, NoReturn

from mailstack.errors import DeadlinePassed, HostError
from mailstack.model import Command, Deadline, Json
from mailstack.network.ports import listening
from mailstack.runner.local import last_lines
from mailstack.ssh import daemon_client
from mailstack.ssh.address import CONTROL, ENGINE, LOCK
from mailstack.ssh.forwarding import Forwards
from mailstack.ssh.remote import Remote
from mailstack.ssh.sudo_bridge import Bridge

# How long the host's shell may take to say what there is; in seconds.
_LOOK_SECONDS = 10.0

# What has to be known of a host before anything is done there: one line each, in this order, and all that listens
# there (proc_pid_net(5)). Secrets go into shared memory: where systemd runs, the user's own runtime directory goes when
# the user logs out.
_ABOUT = """\
umask 077
socket=${DOCKER_HOST:-unix:///var/run/docker.sock}; socket=${socket#unix://}
if [ -r "$socket" ] && [ -w "$socket" ]; then way=socket
elif [ -e "$socket" ] && sudo -n true 2>/dev/null; then way=sudo
elif [ -e "$socket" ]; then way=denied
else way=absent; fi
user=$(id -un) uid=$(id -u) clock=$(date +%s) place=/dev/shm/mailstack-hosted-$(id -u)
mkdir "$place" 2>/dev/null
case $([ -O "$place" ] && ls -ld "$place") in drwx------*) ;; *) place= ;; esac
printf '%s\\n' "$place" "$socket" "$way" "$user" "$uid" "$clock"
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
"""


# The socket, should what has listened there have been killed; the directory stays where others have labs.
_LEAVE = 'rm -f -- "$1/$2"; rmdir -- "$1"'


class Tunnel:
    """What is open towards one host."""

    def __init__(self, remote: Remote, directory: Path) -> None:
        self.remote = remote
        self.directory = directory  # see `daemon_client`
        self.about: Json = {}
        self._forwards = Forwards(remote.port)
        self._bridge = Bridge(remote)
        self._lock = threading.Lock()
        self._users = 0

    def look(self) -> None:
        """Learn what there is on the host. Raises HostError, DeadlinePassed."""
        try:
            result = self.remote.run(Command(("sh", "-c", _ABOUT)), deadline=Deadline.after(_LOOK_SECONDS))
        except DeadlinePassed:
            raise DeadlinePassed(
                f"{self.remote.host}: its shell has not said within {_LOOK_SECONDS:g} s what there is",
                remedy=f"what does `ssh {self.remote.host} sudo -n true` wait for?",
            ) from None
        told, said = result.stdout.split("\n"), result.stderr or result.stdout
        place, path, way, user, number, clock, *sockets = [*told, *[""] * 6]
        if not (path and number.isdecimal() and clock.isdecimal()):
            raise HostError(f"{self.remote.host}: its shell does not say what there is", details=last_lines(said))
        if not place:
            raise HostError(
                f"{self.remote.host}: there is no private directory for secrets in its shared memory (/dev/shm)",
                remedy="on that machine: is /dev/shm there, and no mailstack-… in it somebody else's?",
            )
        self.about = {
            "place": place,
            "socket": path,
            "way": way,
            "user": user,
            "uid": int(number),
            "clock": int(clock),
            "ports": sorted(listening(sockets)),
        }
        if way == "sudo":
            self._by_sudo()

    def engine(self) -> Any:
        """A connection to the host's engine. Raises HostError."""
        return self.remote.socket(self._by_sudo() if self.about["way"] == "sudo" else self.about["socket"])

    def _by_sudo(self) -> str:
        return self._bridge.socket(self.about["place"], self.about["socket"], self.about["uid"])

    def forward(self, ports: list[int]) -> list[int]:
        """Listen on these ports of the loopback; returns those that are taken."""
        return self._forwards.open(ports)

    def close(self, ports: list[int]) -> None:
        """Listen on these ports no longer."""
        self._forwards.close(ports)

    def joined(self) -> None:
        """A command has come."""
        with self._lock:
            self._users += 1

    def left(self) -> None:
        """A command has gone; the last one, when there is no lab, ends the connection."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        with contextlib.suppress(FileNotFoundError), (self.directory / LOCK).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # no command comes meanwhile
            if self._users == 0 and not daemon_client.labs(self.directory):
                self.leave()
                daemon_client.discard(self.directory)
                self.end()

    def leave(self) -> None:
        """Remove from the host what this connection has there."""
        self._bridge.end()
        if self.about:
            with contextlib.suppress(HostError):
                self.remote.run(Command(("sh", "-c", _LEAVE, "sh", self.about["place"], self._bridge.name)))

    def end(self) -> NoReturn:
        """End this process: the connection has ended. What is kept of labs is for the next command to look at."""
        for name in (ENGINE, CONTROL):
            (self.directory / name).unlink(missing_ok=True)
        os._exit(0)  # threads that wait for what never comes are not waited for
