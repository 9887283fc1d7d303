"""The connection to one host, kept open: `python -m mailstack.tunnel HOST`, a process that `hosting` starts.

<directory>/docker.sock    leads to the host's engine
<directory>/control.sock   what this process is asked to do: a line of JSON each, see `_Control`
127.0.0.1:PORT                     leads to the same port of the host's loopback, for each port of a lab

It ends when the connection does, and when the last command has gone and no lab is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import os
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mailstack import control, hosting, hosts, storage
from mailstack.errors import DeadlinePassed, HostError
from mailstack.hosts import CONTROL, ENGINE, LOCK
from mailstack.model import Command, Deadline, Json
from mailstack.ports import listening
from mailstack.remote import Remote
from mailstack.runner import last_lines
from mailstack.secret import Secret

_BUFFER = 1 << 16
# How long the host's shell may take to say what there is; in seconds.
_LOOK_SECONDS = 10.0
# How long the program that leads to the engine by sudo may take to end; in seconds.
_BRIDGE_SECONDS = 5.0

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


# What SSH leads to when the user may not use the engine's socket, but root may: a socket of the user's beside it, until
# this program's standard input ends. One program for all that a connection leads there: sshd_config(5), MaxSessions.
# What another one has left that was killed goes first. Perl is part of every Debian (perl-base is essential); Docker's
# own command need not be there.
_BRIDGE = """\
use strict; use IO::Socket::UNIX; use IO::Select;
my ($ours, $engine, $user) = @ARGV;
$SIG{CHLD} = "IGNORE"; umask 0077; $| = 1;
for (glob $ours =~ s/[^-]*$/*/r) {
  next unless -S;
  next if -M $_ > 1 / 1440 ? IO::Socket::UNIX->new(Peer => $_) || !$!{ECONNREFUSED} : $_ ne $ours;
  unlink;
}
my $listener = IO::Socket::UNIX->new(Local => $ours, Listen => 64) or die "$ours: $!\\n";
chown $user, -1, $ours; print "ready\\n";
my $all = IO::Select->new(\\*STDIN, $listener);
while (my @ready = $all->can_read) {
  for (@ready) {
    if ($_ != $listener) { unlink $ours; exit }
    my $one = $listener->accept or next;
    fork or serve($one);
  }
}
sub serve {
  my ($one) = @_;
  my $two = IO::Socket::UNIX->new(Peer => $engine) or exit;
  my $both = IO::Select->new($one, $two);
  while (my @ready = $both->can_read) {
    for my $from (@ready) {
      my $to = $from == $one ? $two : $one;
      if (sysread($from, my $data, 65536)) {
        my $done = 0;
        while ($done < length $data) { $done += syswrite($to, $data, length($data) - $done, $done) // exit }
      } else { $both->remove($from); shutdown($to, 1) }
    }
  }
  exit;
}
"""
# The socket, should what has listened there have been killed; the directory stays where others have labs.
_LEAVE = 'rm -f -- "$1/$2"; rmdir -- "$1"'


class Tunnel:
    """What is open towards one host."""

    def __init__(self, remote: Remote, directory: Path) -> None:
        self.remote = remote
        self.directory = directory  # see `hosting`
        self.about: Json = {}
        self._forwarded: dict[int, _Ports] = {}
        self._lock = threading.Lock()
        self._users = 0
        self._bridge: Any = None  # see _BRIDGE
        self._bridge_lock = threading.Lock()
        self._bridge_name = f"engine-{secrets.token_hex(4)}"  # its socket: other connections of the user's have theirs

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
            self._lead_by_sudo()

    def engine(self) -> Any:
        """A connection to the host's engine. Raises HostError."""
        if self.about["way"] != "sudo":
            return self.remote.socket(self.about["socket"])
        return self.remote.socket(self._lead_by_sudo())

    def _lead_by_sudo(self) -> str:
        """The socket that leads to the engine by sudo; what leads there is started where it does not run (any more)."""
        path = f"{self.about['place']}/{self._bridge_name}"
        with self._bridge_lock:
            if self._bridge is not None and not self._bridge.exit_status_ready():
                return path
            bridge = ("sudo", "-n", "perl", "-e", _BRIDGE, path, self.about["socket"], str(self.about["uid"]))
            channel, said = self.remote.program(Command(bridge), b"ready\n", _LOOK_SECONDS)
            if channel is not None:
                self._bridge = channel
                return path
        raise HostError(
            f"{self.remote.host}: what leads to its engine by sudo cannot be run",
            remedy="it takes Perl there (Debian: apt-get install perl-base); or have the user be in the group `docker`",
            details=said,
        )

    def forward(self, ports: list[int]) -> list[int]:
        """Listen on these ports of the loopback; those that could not be had."""
        taken = []
        with self._lock:
            for port in set(ports) - set(self._forwarded):
                try:
                    server = _Ports(("127.0.0.1", port), functools.partial(self.remote.port, port))
                except OSError:
                    taken.append(port)
                    continue
                self._forwarded[port] = server
                threading.Thread(target=server.serve_forever, daemon=True).start()
        return sorted(taken)

    def close(self, ports: list[int]) -> None:
        """Listen on these ports no longer."""
        with self._lock:
            servers = [self._forwarded.pop(port) for port in ports if port in self._forwarded]
        for server in servers:
            with contextlib.suppress(OSError):
                server.socket.shutdown(socket.SHUT_RDWR)  # it wakes up; else it looks every half a second
            server.shutdown()
            server.server_close()

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
            if self._users == 0 and not hosting.labs(self.directory):
                self.leave()
                hosting.discard(self.directory)
                self.end()

    def leave(self) -> None:
        """Remove from the host what this connection has there."""
        if self._bridge is not None:
            self._bridge.shutdown_write()  # its end
            self._bridge.status_event.wait(_BRIDGE_SECONDS)
        if self.about:
            with contextlib.suppress(HostError):
                self.remote.run(Command(("sh", "-c", _LEAVE, "sh", self.about["place"], self._bridge_name)))

    def end(self) -> NoReturn:
        """End this process: the connection has ended. What is kept of labs is for the next command to look at."""
        for name in (ENGINE, CONTROL):
            (self.directory / name).unlink(missing_ok=True)
        os._exit(0)  # threads that wait for what never comes are not waited for


class _Sockets(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, handle: Callable[[socket.socket], None]) -> None:
        path.unlink(missing_ok=True)
        self._handle = handle
        super().__init__(str(path), socketserver.BaseRequestHandler)
        path.chmod(0o600)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._handle(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One client's trouble is told to that client alone: its connection ends."""


class _Ports(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], lead: Callable[[], Any]) -> None:
        self._lead = lead
        super().__init__(address, socketserver.BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        join(request, self._lead())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As above: nothing listens at the other end, say."""


def join(client: socket.socket, channel: Any) -> None:
    """Carry what is said between a client and a channel, until both have said all."""

    def towards_client() -> None:
        with contextlib.suppress(OSError):
            while data := channel.recv(_BUFFER):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=towards_client, daemon=True)
    back.start()
    with contextlib.suppress(OSError):
        while data := client.recv(_BUFFER):
            channel.sendall(data)
    with contextlib.suppress(OSError):
        channel.shutdown_write()
    back.join()
    channel.close()


class _Control:
    """What a command asks for, and gets, over a connection for each question; one is kept open as long as it lives."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def __call__(self, client: socket.socket) -> None:
        self._tunnel.joined()
        try:
            with client.makefile("rwb") as stream, contextlib.suppress(OSError):  # it has gone
                try:
                    if (asked := control.heard(stream)) is not None:
                        control.say(stream, self._answer(client, stream, asked))
                except _Gone:
                    pass
                except Exception as error:  # whatever it is, the command that has asked is told
                    control.say(stream, control.told(error))
        finally:
            self._tunnel.left()

    def _answer(self, client: socket.socket, stream: io.BufferedRWPair, asked: Json) -> Json:
        match control.value(asked, "do", str):
            case "about":
                self._tunnel.look()
                return self._tunnel.about
            case "run":
                return self._run(client, stream, asked)
            case "forward":
                return {"taken": self._tunnel.forward(control.items(asked, "ports", int))}
            case "close":
                self._tunnel.close(control.items(asked, "ports", int))
                return {}
            case other:
                raise control.Broken(f"{other!r:.40} cannot be asked for")

    def _run(self, client: socket.socket, stream: io.BufferedRWPair, asked: Json) -> Json:
        size, deadline = control.value(asked, "input", int), None
        data = stream.read(size)
        if len(data) < size:
            raise _Gone  # whoever asked was killed: half an input is none
        if asked.get("of") is not None:
            seconds = control.value(asked, "seconds", float)
            deadline = Deadline(control.value(asked, "of", float), time.monotonic() + seconds)
        environment = control.value(asked, "environment", dict)
        command = Command(tuple(control.items(asked, "argv", str)), environment, data or None)
        channel = self._tunnel.remote.session()
        threading.Thread(target=self._watch, args=(client, channel), daemon=True).start()

        def tell(line: str) -> None:
            try:
                control.say(stream, {"line": line})
            except OSError:
                raise _Gone from None

        on_line = tell if control.value(asked, "lines", bool) else None
        result = self._tunnel.remote.run(command, deadline=deadline, on_line=on_line, channel=channel)
        return {"code": result.code, "stdout": result.stdout, "stderr": result.stderr}

    def _watch(self, client: socket.socket, channel: Any) -> None:
        """End what runs on the channel when whoever asked for it goes: nothing more is said until then."""
        with contextlib.suppress(OSError):
            client.recv(1)
        self._tunnel.remote.end(channel)


class _Gone(Exception):
    """Whoever asked has gone: there is nobody to answer."""


def main(name: str) -> None:
    """Connect, say so on standard input (a socket, on which the user's answers come), and serve."""
    with socket.socket(fileno=os.dup(0)) as starter, starter.makefile("rwb") as stream:
        if (given := control.heard(stream)) is None:
            return  # the starter was killed
        answers = {question: Secret(control.value(given, question, str)) for question in given}
        host = hosts.parse(name)
        remote = Remote(host, answers)
        directory = storage.root() / host.key
        tunnel = Tunnel(remote, directory)
        try:
            remote.open()
            tunnel.look()
            for place, handle in (
                (ENGINE, lambda client: join(client, tunnel.engine())),
                (CONTROL, _Control(tunnel)),
            ):
                server = _Sockets(directory / place, handle)
                threading.Thread(target=server.serve_forever, daemon=True).start()
            for lab in hosting.labs(directory):
                tunnel.forward(list(lab.ports.values()))
        except Exception as error:  # whatever it is, the starter is told
            with contextlib.suppress(Exception):
                tunnel.leave()
            said = control.told(error)
        else:
            said = {}
        # Not left by the starter: it is the first user, from now on.
        with contextlib.suppress(OSError):  # it was killed
            control.say(stream, said)
    if not said:
        remote.wait()
    tunnel.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
