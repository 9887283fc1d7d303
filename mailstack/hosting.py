"""The host that a command works on: this machine, or one over SSH.

Over SSH, a process of its own (`tunnel`) keeps the connection. The engine there has a socket here, the ports of its
labs are this machine's, and what is kept of them here has a runtime directory of its own: so whatever works on a lab
works there. What is left is done here: the files that containers are handed have to be on the host as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mailstack import control, hint, hosts, state, storage
from mailstack.errors import DeadlinePassed, HostError, InputError, Interrupted, MailstackError
from mailstack.hosts import CONTROL, ENGINE, LOCK
from mailstack.model import Command, Deadline, Json, Result
from mailstack.printed import LineSink
from mailstack.runner import Local, last_lines, must, program
from mailstack.secret import Secret
from mailstack.state import owner, same_file
from mailstack.storage import Marker

VARIABLE = "MAILSTACK_HOST"

if TYPE_CHECKING:
    import tarfile

# What is handed over takes the place of what is there, file by file and in place: containers know a file by its inode.
# The lab's directory is marked (see `storage`): what is there without the marker was made by somebody else.
_TAKE = """\
set -e
umask 077
lab=${1%/files}
mkdir -p "${lab%/*}"
if ! mkdir "$lab" 2>/dev/null && ! [ -f "$lab/.mailstack" ] && [ -n "$(ls -A "$lab")" ]; then
  echo "$lab: was not made by mailstack" >&2
  exit 1
fi
: >> "$lab/.mailstack"
mkdir -p "$1"
cd "$1"
trap 'rm -f ../.told ../.taken' EXIT
tar --overwrite -xvf - > ../.told
sort ../.told > ../.taken
find . -type f | sort | comm -23 - ../.taken | xargs -r -d '\\n' rm -f --
"""
# POSIX: blocks of 1024 bytes; the fourth column of the last line is what is available. Its parent where the user may
# not see the directory itself.
_FREE = 'df -Pk "$1" 2>/dev/null || df -Pk "${1%/*}"'
# A lab's directory with its marker; one of the version before markers by its CA. Directories in which others have
# something stay. No link is followed.
_FORGET = """\
forget() {
  [ -O "$1" ] && [ ! -L "$1" ] && [ ! -L "$1/$2" ] && [ ! -L "$1/$2/$3" ] && [ -f "$1/$2/$3/$4" ] || return 0
  rm -rf -- "$1/$2/$3/files" && rm -rf -- "$1/$2/$3" || exit  # what makes it known goes last
  rmdir -- "$1/$2" "$1" 2>/dev/null || :
}
forget "$1" "$2" "$3" .mailstack
forget "/dev/shm/mailstack-$(id -u)" "$2" "$3" files/ca.pem
"""
# The longest path of a socket (unix(7), sun_path).
_SOCKET_BYTES = 107
# How long the host may take for that; in seconds.
_SECONDS = 60.0
# What the process that keeps the connection may take, beyond a command's deadline, to end it; in seconds.
_ENDING_SECONDS = 5.0
# What it tells of the host; see `tunnel`.
_ABOUT = {"place": str, "socket": str, "way": str, "user": str, "uid": int, "clock": int, "ports": list}
# How often a password is asked for (ssh_config(5), NumberOfPasswordPrompts).
_TRIES = 3

_current: Over | None = None
_before = ""  # DOCKER_HOST as it was


def current() -> Over | None:
    """The host over SSH that this process works on; None: this machine."""
    return _current


def chosen() -> str:
    """The engine that the user has chosen by DOCKER_HOST; "" where there is no such choice."""
    return os.environ.get("DOCKER_HOST", "") if _current is None else _before


def use(name: str, ask: Callable[[str], Secret | None] = lambda question: None) -> Over:
    """Work on the host `name` from now on; `ask` gives a password, or a passphrase, where no key will do without.

    Raises InputError for what is no host, HostError when it cannot be reached.
    """
    global _before, _current  # noqa: PLW0603
    host = hosts.parse(name)
    directory = storage.root() / host.key
    if (length := len(os.fsencode(directory / CONTROL))) > _SOCKET_BYTES:
        raise HostError(
            f"{directory}: no socket fits there: its path may have {_SOCKET_BYTES} bytes, and would have {length}",
            remedy=f"set {storage.VARIABLE} to a directory with a shorter path",
        )
    engine = f"unix://{directory / ENGINE}"
    _before = "" if chosen() == engine else chosen()  # inherited from a process that works there already
    os.environ["DOCKER_HOST"] = engine
    os.environ[VARIABLE] = str(host)
    _current = _connected(host, directory, ask)
    return _current


def place_of(files: Path) -> str:
    """Where the engine finds what a lab's containers are handed: `files`, or what is the same on the host."""
    return str(files) if _current is None else f"{_current.place}/{owner()}/{files.parent.name}/files"


def hand_over(files: Path) -> None:
    """Have what the host has of a lab's files be what it is here. Raises HostError, DeadlinePassed."""
    if _current is None:
        return
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(files, ".", filter=_nobodys)
    take = Command(("sh", "-c", _TAKE, "mailstack", place_of(files)), input=archive.getvalue())
    result = _current.run(take, deadline=Deadline.after(_SECONDS))
    if result.code == 0:
        return
    free, size = _current.free(_current.place), len(archive.getvalue())
    full = f": its shared memory is full, {free // 1024} KiB are free and {size // 1024} are needed"
    raise HostError(
        f"{_current.host}: the lab's files cannot be put into {_current.place}" + (full if free < size else ""),
        remedy="make room there: `df /dev/shm` shows how much there is",
        details=last_lines(result.stderr, 3),
    )


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def forget(lab: str, ports: Collection[int]) -> None:
    """Remove a lab's files from the host, and lead its ports there no longer. Raises HostError, DeadlinePassed."""
    if _current is not None:
        away = Command(("sh", "-c", _FORGET, "mailstack", _current.place, owner(), lab))
        must(_current, away, deadline=Deadline.after(_SECONDS))
        _current.close(ports)


def forward(ports: Collection[int]) -> list[int]:
    """Have these ports of this machine lead to the host's; those that could not be had."""
    return [] if _current is None else _current.forward(ports)


def close(ports: Collection[int]) -> None:
    """Have these ports lead nowhere. Raises HostError."""
    if _current is not None:
        _current.close(ports)


def still_there() -> None:
    """Raise HostError when the host has gone: what failed meanwhile has failed for that, and is no verdict on a lab."""
    if _current is not None:
        _current.look()


def explained(error: MailstackError) -> MailstackError:
    """What an error comes from: once the host has gone, whatever fails meanwhile fails for that."""
    if _current is None or isinstance(error, InputError | Interrupted):
        return error
    try:
        _current.look()
    except MailstackError as gone:
        if gone.message != error.message:
            gone.details = error.happened()
        return gone
    return error


class Over:
    """A host over SSH: runs commands there, as `runner.Local` does here."""

    def __init__(self, host: hosts.Host, directory: Path, control: socket.socket) -> None:
        self.host = host
        self._directory = directory
        self._control = control  # open as long as this is: the connection is in use
        self.about: Json = {}
        self.ahead = 0.0  # by how many seconds its clock is, of which it tells whole ones
        self.look()

    @property
    def place(self) -> str:
        """The host's directory for what labs are handed: on tmpfs, and its user's alone."""
        return str(self.about["place"])

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run `command` on the host; see Runs. On Ctrl-C or SIGTERM it is ended.

        Raises HostError when the connection is cut meanwhile, DeadlinePassed when it was ended for taking too long,
        and what `on_line` raises.
        """
        data = command.input or b""
        asked = {
            "do": "run",
            "argv": list(command.argv),
            "environment": dict(command.environment),
            "input": len(data),
            "lines": on_line is not None,
            "of": deadline and float(deadline.seconds),
            "seconds": deadline and float(min(deadline.remaining(), threading.TIMEOUT_MAX)),
        }
        told = self._ask(asked, {"code": int, "stdout": str, "stderr": str}, data, on_line, deadline)
        return Result(told["code"], told["stdout"], told["stderr"])

    def look(self) -> Json:
        """What there is on the host now: see `tunnel`. Raises HostError."""
        before = time.time()
        self.about = self._ask({"do": "about"}, _ABOUT)
        self.ahead = self.about["clock"] - (before + time.time()) / 2
        return self.about

    def free(self, place: str) -> int:
        """How many bytes are free on the host's file system that has `place`. Raises HostError."""
        told = self.run(Command(("sh", "-c", _FREE, "df", place)), deadline=Deadline.after(_SECONDS)).stdout
        words = told.strip().rpartition("\n")[2].split()
        return int(words[3]) * 1024 if len(words) > 3 else 0

    def forward(self, ports: Collection[int]) -> list[int]:
        """See `hosting.forward`."""
        return list(self._ask({"do": "forward", "ports": list(ports)}, {"taken": list})["taken"])

    def close(self, ports: Collection[int]) -> None:
        """Have these ports lead nowhere."""
        self._ask({"do": "close", "ports": list(ports)}, {})

    def cut(self) -> HostError:
        """What to say when the host has gone."""
        return HostError(
            f"{self.host}: the connection was cut",
            remedy=f"when it is back: {hint.line('down', '--stale', host=str(self.host))} removes what was left there",
        )

    def _ask(
        self,
        asked: Json,
        shape: Mapping[str, type],
        data: bytes = b"",
        on_line: LineSink | None = None,
        deadline: Deadline | None = None,
    ) -> Json:
        """Ask the process that keeps the connection; what its answer has to have is `shape`.

        Each over a connection of its own: where nobody waits for the answer any more, it ends what was asked for.
        """
        with contextlib.ExitStack() as stack:
            with self._mapped(deadline):
                if (sock := _attempt(self._directory)) is None:
                    raise self.cut()
                stack.enter_context(sock)
                if deadline or asked["do"] != "run":
                    left = deadline.remaining() if deadline else _SECONDS
                    sock.settimeout(min(left + _ENDING_SECONDS, threading.TIMEOUT_MAX))
                stream = stack.enter_context(sock.makefile("rwb"))
                stream.write(json.dumps(asked).encode() + b"\n" + data)
                stream.flush()
            while True:
                with self._mapped(deadline):
                    told = control.heard(stream)
                    if told is None:
                        raise self.cut()
                    if "error" in told:
                        raise control.error_of(told)
                    if "line" not in told:
                        for name, kind in shape.items():
                            control.value(told, name, kind)
                        return told
                    line = control.value(told, "line", str)
                if on_line:
                    on_line(line)

    @contextlib.contextmanager
    def _mapped(self, deadline: Deadline | None) -> Iterator[None]:
        """Turn what goes wrong with that process into errors of the host."""
        try:
            yield
        except TimeoutError:
            if deadline:
                raise DeadlinePassed(f"{self.host}: no answer within {deadline.seconds:g} s") from None
            raise HostError(f"{self.host}: the process that keeps the connection does not answer") from None
        except control.Broken as error:
            raise unread(self.host, error) from None
        except OSError:
            raise self.cut() from None


def unread(host: hosts.Host, error: control.Broken) -> HostError:
    """Return what to say of an answer that is none."""
    return HostError(
        f"{host}: the process that keeps the connection gave an answer that cannot be read: {error}",
        remedy="is it another version's? It ends with the last command and the last lab on that host",
    )


def _connected(host: hosts.Host, directory: Path, ask: Callable[[str], Secret | None]) -> Over:
    """Join the process that keeps the connection; it is started where there is none."""
    while True:
        fd = _open_lock(directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # of several commands that begin at once, one starts it
            if not same_file(fd, directory / LOCK):
                continue  # the one that was there has just ended, and has tidied up
            if (control := _attempt(directory)) is None:
                try:
                    _started(host, directory, ask)
                except BaseException:
                    discard(directory)
                    raise
                control = _attempt(directory)
            if control is None:
                raise HostError(f"{host}: the connection was cut as soon as it was there", remedy="try again")
            return Over(host, directory, control)
        finally:
            os.close(fd)


def _open_lock(directory: Path) -> int:
    """Open the lock of a host's directory, which is made if it is not there. Raises HostError."""
    root = directory.parent
    while True:
        storage.make(root, Marker(storage.ROOT))
        with contextlib.suppress(FileNotFoundError), storage.held(root):
            storage.make(directory, Marker(storage.HOST))
            return storage.open_file(directory / LOCK, os.O_RDWR | os.O_CREAT)


def labs(directory: Path) -> list[state.State]:
    """Return how this user's labs on the host of a directory were brought up."""
    endpoint = state.endpoint_of(f"unix://{directory / ENGINE}")
    homes = [home for home in state.homes(directory.parent) if home.endpoint == endpoint]
    return [lab for home in homes for lab in state.others(home, "")]


def discard(directory: Path) -> None:
    """Remove a host's directory, unless there is a lab on that host."""
    if not labs(directory):
        with contextlib.suppress(OSError), storage.held(directory.parent):
            storage.remove(directory)


def _attempt(directory: Path) -> socket.socket | None:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control.connect(str(directory / CONTROL))
    except OSError:
        control.close()
        return None
    return control


def _started(host: hosts.Host, directory: Path, ask: Callable[[str], Secret | None]) -> None:
    answers: dict[str, Secret] = {}
    tries: Counter[str] = Counter()
    told = _start(host, directory, answers)
    while (question := str(told.get("question", ""))) and tries[question] < _TRIES and (answer := ask(question)):
        tries[question] += 1
        answers[question] = answer
        told = _start(host, directory, answers)
    if "error" in told:
        raise control.error_of(told)


def _start(host: hosts.Host, directory: Path, answers: Mapping[str, Secret]) -> Json:
    """Start the process; what it says once it is connected, or is not."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environment = {storage.VARIABLE: str(directory.parent.parent)}
        keeper = program("mailstack.tunnel", str(host), environment=environment)
        Local().release(keeper, stdin=theirs.fileno())
        theirs.close()
        revealed = {question: answer.reveal() for question, answer in answers.items()}
        with ours.makefile("rwb") as stream:
            try:
                control.say(stream, revealed)
                told = control.heard(stream)
            except control.Broken as error:
                raise unread(host, error) from None
            except OSError:
                told = None
    if told is None:
        raise HostError(f"{host}: the process that keeps the connection ended", remedy="try again")
    return told
