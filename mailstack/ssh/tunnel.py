"""The open connection to one host, in its daemon (`daemon`), which `daemon_client` starts.

<directory>/docker.sock    leads to the host's engine
<directory>/control.sock   takes requests, one line of JSON each; see `daemon_control`
127.0.0.1:PORT             leads to the same port of the host's loopback, for each port of a lab

The daemon exits when the connection ends, or when the last command has left and no lab exists.
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

# Timeout of the shell script that describes the host; in seconds.
_LOOK_SECONDS = 10.0

# Describe the host: one line for each fact, in this order, then all listening sockets (proc_pid_net(5)). Secrets go
# into shared memory: systemd removes the user's runtime directory when the user logs out.
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


# Remove the socket, which stays if its listener was killed. The directory stays when others have labs in it.
_LEAVE = 'rm -f -- "$1/$2"; rmdir -- "$1"'


class Tunnel:
    """The sockets and ports that are forwarded to one host."""

    def __init__(self, remote: Remote, directory: Path) -> None:
        self.remote = remote
        self.directory = directory  # see `daemon_client`
        self.about: Json = {}
        self._forwards = Forwards(remote.port)
        self._bridge = Bridge(remote)
        self._lock = threading.Lock()
        self._users = 0

    def look(self) -> None:
        """Query the host's state. Raises HostError, DeadlinePassed."""
        try:
            result = self.remote.run(Command(("sh", "-c", _ABOUT)), deadline=Deadline.after(_LOOK_SECONDS))
        except DeadlinePassed:
            raise DeadlinePassed(
                f"{self.remote.host}: its shell did not answer within {_LOOK_SECONDS:g} s",
                remedy=f"what does `ssh {self.remote.host} sudo -n true` wait for?",
            ) from None
        lines, output = result.stdout.split("\n"), result.stderr or result.stdout
        place, path, way, user, number, clock, *sockets = [*lines, *[""] * 6]
        if not (path and number.isdecimal() and clock.isdecimal()):
            raise HostError(
                f"{self.remote.host}: its shell did not report the expected facts", details=last_lines(output)
            )
        if not place:
            raise HostError(
                f"{self.remote.host}: there is no private directory for secrets in its shared memory (/dev/shm)",
                remedy="on that machine: does /dev/shm exist, and does no mailstack-… in it belong to another user?",
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
        """Return a connection to the host's engine. Raises HostError."""
        return self.remote.socket(self._by_sudo() if self.about["way"] == "sudo" else self.about["socket"])

    def _by_sudo(self) -> str:
        return self._bridge.socket(self.about["place"], self.about["socket"], self.about["uid"])

    def forward(self, ports: list[int]) -> list[int]:
        """Listen on these ports of the loopback. Return those that are in use."""
        return self._forwards.open(ports)

    def close(self, ports: list[int]) -> None:
        """Stop listening on these ports."""
        self._forwards.close(ports)

    def client_joined(self) -> None:
        """Count a command that has connected."""
        with self._lock:
            self._users += 1

    def client_left(self) -> None:
        """Count a command that has disconnected. After the last one, end the connection unless there is a lab."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        with contextlib.suppress(FileNotFoundError), (self.directory / LOCK).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # no command can join meanwhile
            if self._users == 0 and not daemon_client.labs(self.directory):
                self.clean_up()
                daemon_client.discard(self.directory)
                self.end()

    def clean_up(self) -> None:
        """Remove this connection's files from the host."""
        self._bridge.end()
        if self.about:
            with contextlib.suppress(HostError):
                self.remote.run(Command(("sh", "-c", _LEAVE, "sh", self.about["place"], self._bridge.name)))

    def end(self) -> NoReturn:
        """End this process, because the connection has ended. The labs' files stay for the next command."""
        for name in (ENGINE, CONTROL):
            (self.directory / name).unlink(missing_ok=True)
        os._exit(0)  # exit without joining threads that may block forever
