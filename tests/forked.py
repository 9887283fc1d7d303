"""Run `mailstack WORDS` without starting an interpreter: in a process forked from one that has imported mailstack.

    forked.run(["status", "-n", "mine"]).stdout

It takes a third of the time of a new interpreter, and a run of all tests has thousands of commands. The
entry point, another locale and whatever else belongs to an interpreter's start is tested with new ones.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
SECONDS = 180.0  # how long a command may take
_LOCK = threading.Lock()
# What an interpreter reads when it starts.
_OF_INTERPRETERS = ("PYTHON", "LC_", "LANG")


def run(
    argv: Sequence[str | Path], environment: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command, with variables in addition to those of this process. Raises subprocess.TimeoutExpired."""
    words, variables = [str(word) for word in argv], {**os.environ, **(environment or {})}
    if any(name.startswith(_OF_INTERPRETERS) for name in environment or ()):
        command = [sys.executable, "-m", "mailstack", *words]
        return subprocess.run(command, env=variables, input=stdin, capture_output=True, timeout=SECONDS, check=False)
    pipes = [os.pipe() for _ in range(3)]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    answer, told = socket.socketpair()
    case = json.dumps({"argv": words, "environment": variables, "directory": str(Path.cwd())}).encode()
    with _LOCK:
        server = _server()
        socket.send_fds(server, [len(case).to_bytes(4, "big")], [*theirs, told.fileno()])
        server.sendall(case)
    for fd in (*theirs, told.detach()):
        os.close(fd)
    files = [os.fdopen(fd, mode) for fd, mode in zip(ours, ("wb", "rb", "rb"), strict=True)]
    with answer, answer.makefile() as lines:
        return _communicate(words, files, lines, stdin)


def run_text(
    argv: Sequence[str | Path], environment: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is text in UTF-8."""
    done = run(argv, environment, stdin.encode())
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _communicate(
    words: list[str], files: list[IO[bytes]], lines: IO[str], stdin: bytes
) -> subprocess.CompletedProcess[bytes]:
    """Feed a command, and read its output until every process has closed it; return it with the exit code."""
    pid = int(lines.readline())
    output: dict[int, bytes] = {}
    readers = [
        threading.Thread(target=lambda n=number: output.update({n: files[n].read()}), daemon=True) for number in (1, 2)
    ]
    late = threading.Timer(SECONDS, os.kill, (pid, signal.SIGKILL))
    late.start()
    for reader in readers:
        reader.start()
    with contextlib.suppress(BrokenPipeError):
        files[0].write(stdin)
        files[0].flush()
    with contextlib.suppress(BrokenPipeError):
        files[0].close()
    code = int(lines.readline())
    for reader in readers:
        reader.join()
    killed = not late.is_alive()
    late.cancel()
    for file in files[1:]:
        file.close()
    if killed:
        raise subprocess.TimeoutExpired(words, SECONDS, output[1], output[2])
    return subprocess.CompletedProcess(words, code, output[1], output[2])


@functools.cache
def _server() -> socket.socket:
    """Start the process that commands are forked from; it ends when this one has closed the socket, at its end."""
    ours, theirs = socket.socketpair()
    # Not of any lab's owner: whoever looks for the processes of one shall not find it.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAILSTACK_", "DOCKER_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
        cwd=ROOT,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    process.wait()  # it goes on as nobody's child: tests look for children that they left
    return ours


def _serve(control: socket.socket) -> Callable[[], object]:
    """Fork for each case; return only in a forked process, with its command."""
    from mailstack.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    while True:
        head, fds, _, _ = socket.recv_fds(control, 4, 4)
        if not head:
            sys.exit()
        case = json.loads(control.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        # A child waits for the command, while this process takes the next case.
        if os.fork():
            for fd in fds:
                os.close(fd)
            continue
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if child := os.fork():
            for fd in fds[:3]:
                os.close(fd)
            os.write(fds[3], b"%d\n" % child)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(BrokenPipeError):
                os.write(fds[3], b"%d\n" % code)
            os._exit(0)
        os.close(fds[3])
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(case["directory"])
        os.environ.clear()
        os.environ.update(case["environment"])
        sys.argv = ["mailstack", *case["argv"]]
        sys.modules["__main__"].__package__ = ""  # click takes the command's name from it
        return main.main


def _import_all() -> None:
    """Import mailstack, and the packages that it imports late."""
    import mailstack

    for name in ("docker", "fabric", "rich.console", "rich.table", "rich.text", "yaml", "imap_tools", "smtplib"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(mailstack.__path__, "mailstack."):
        if module.name not in ("mailstack.plugin", "mailstack.__main__"):
            importlib.import_module(module.name)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    _import_all()
    _serve(socket.socket(fileno=int(sys.argv[1])))()
