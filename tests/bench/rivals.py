"""What a user would pick instead: fakes that take mails, installed for the occasion from their registries.

Each is set up to be as real as it can be (TLS, AUTH), in a process of its own, and asked in its own way for what has
come in. The client is the same for all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mailstack.config import pki
from mailstack.lab.running import RunningLab
from mailstack.load.plan import Mails
from mailstack.model import Deadline, Endpoint
from mailstack.protocol import imap, smtp, trust
from mailstack.secret import Secret
from tests import engines
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, run

TITLE = "against what a user would pick instead"
NAME = "bench-rivals"
MAILS = 200  # on one connection
SIZE = 2048
PATIENCE = 30.0  # seconds, for anything

MAILDEV, SMTPDFIX, LOCALSERVER = "MailDev", "smtpdfix", "pytest-localserver"
PACKAGES = {MAILDEV: "maildev@3.0.0", SMTPDFIX: "smtpdfix==0.5.3", LOCALSERVER: "pytest-localserver==0.10.0.post0"}
USER, PASSWORD = "shop", Secret("a-password-for-a-fake")


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server that runs, and how one learns how many mails it has."""

    endpoint: Endpoint
    tls: smtp.Tls
    context: ssl.SSLContext
    count: Callable[[], int]
    user: str = USER
    password: Secret = PASSWORD
    addresses: tuple[str, str] = ("shop@example.com", "customer@example.com")
    read: str = ""  # how the mails are read

    def connect(self) -> smtp.Smtp:
        """A session; waits until somebody answers."""
        deadline = Deadline.after(PATIENCE)
        while True:
            with suppress(ConnectionRefusedError):
                return smtp.Smtp(smtp.dial_to(self.endpoint), name="localhost", tls=self.tls, context=self.context)
            assert not deadline.passed(), f"nobody answers at {self.endpoint}"
            time.sleep(0.002)

    def wait_for(self, count: int) -> None:
        """Until so many mails can be seen."""
        deadline, pause = Deadline.after(PATIENCE), 0.001
        while self.count() < count:
            assert not deadline.passed(), f"{self.count()} of {count} mails came"
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)  # who looks too often takes a processor from the server


Side = Callable[[], AbstractContextManager[Server]]


def measure(runs: int) -> Figures:
    """From the start of each to the first mail that can be seen in it; then many mails on that connection."""
    with tempfile.TemporaryDirectory() as name:
        sides, missing = _installed(Path(name))
        notes = _tried(sides, missing)
        rates: dict[str, list[float]] = {side: [] for side in sides}
        seconds = alternate({side: _timed(start, rates[side]) for side, start in sides.items()}, runs)
    counted = {side: tuple(each[1:]) for side, each in rates.items()}
    every = ("mailstack", *PACKAGES)
    compared = [side for side in sides if side != "mailstack"]
    return Figures(
        (
            *(Row(f"{side}: start to the first mail seen", seconds.get(side, ())) for side in every),
            *(Row(f"{side}: one connection, 2 KB", counted.get(side, ()), "messages/s") for side in every),
        ),
        (
            *(Ratio(f"start: mailstack ÷ {side}", paired(seconds["mailstack"], seconds[side])) for side in compared),
            *(Ratio(f"rate: mailstack ÷ {side}", paired(counted["mailstack"], counted[side])) for side in compared),
        ),
        (*notes, *(f"{side} is not measured: {why}." for side, why in missing.items()), _DIFFERENT),
    )


_DIFFERENT = (
    "The others answer before a mail is synced to disk, if it ever is; mailstack's is then in a queue on disk, and is "
    "seen when a second server has it in a mailbox."
)


def _tried(sides: dict[str, Side], missing: dict[str, str]) -> list[str]:
    """What each side proves; one that does not work on this machine is taken out, and told as missing."""
    notes = []
    for side, start in list(sides.items()):
        try:
            notes.append(_proven(side, start))
        except (AssertionError, OSError, ValueError, smtplib.SMTPException) as error:
            if side == "mailstack":
                raise
            missing[side] = f"it does not work here: {error}"
            del sides[side]
    return notes


def _timed(start: Side, rates: list[float]) -> Callable[[], float]:
    def once() -> float:
        begun = time.perf_counter()
        with start() as server, server.connect() as session:
            mails = Mails("bench", server.addresses[1:], SIZE)
            _log_in(session, server)
            _send(session, server, mails, range(1))
            server.wait_for(1)
            seconds = time.perf_counter() - begun
            begun = time.perf_counter()
            _send(session, server, mails, range(1, MAILS + 1))
            server.wait_for(MAILS + 1)
            rates.append(MAILS / (time.perf_counter() - begun))
        return seconds

    return once


def _log_in(session: smtp.Smtp, server: Server) -> None:
    session.ehlo_or_helo_if_needed()
    if session.has_extn("auth"):
        session.login(server.user, server.password.reveal())


def _send(session: smtp.Smtp, server: Server, mails: Mails, numbers: range) -> None:
    for number in numbers:
        each = mails.mail(number, server.addresses[0])
        code, reply = session.transaction(each.sender, each.recipient, each.data, each.size)
        assert code == 250, f"{code} {reply}"


def _proven(side: str, start: Side) -> str:
    """What a mail that passes shows, tried: whether passwords and recipients are looked at, and how mails are read."""
    with start() as server:
        with server.connect() as session:
            session.ehlo_or_helo_if_needed()
            auth = "no AUTH"
            if session.has_extn("auth"):
                try:
                    session.login(server.user, "wrong")
                    auth = "AUTH that takes a wrong password"
                except smtplib.SMTPAuthenticationError:
                    auth = "AUTH that refuses a wrong password"
        with server.connect() as session:
            _log_in(session, server)
            session.mail(server.addresses[0])
            code, _ = session.rcpt("nobody@example.com")
        tls = {"starttls": "STARTTLS", "implicit": "TLS", "none": "no TLS"}[server.tls]
        unknown = "takes" if code < 300 else "refuses"
        return f"{side}: {tls}, {auth}, {unknown} unknown recipients, mails are read {server.read}."


# ── mailstack ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _mailstack() -> Iterator[Server]:
    run([MAILSTACK, "up", "-n", NAME, "--json", "--progress", "quiet"])
    try:
        lab = RunningLab(NAME, engines.here())
        sender, recipient = "alice@example.com", "bob@example.com"
        context = trust.tls_context(lab.ca_file)
        with imap.mailbox(lab.endpoints["imaps"], context, recipient, lab.password(recipient)) as box:
            yield Server(
                lab.endpoints["submission"],
                "starttls",
                context,
                lambda: len(box.uids()),
                sender,
                lab.password(sender),
                (sender, recipient),
                "over IMAP",
            )
    finally:
        run([MAILSTACK, "down", "-n", NAME])


# ── the others ───────────────────────────────────────────────────────────────────────────────────────────────────


def _installed(directory: Path) -> tuple[dict[str, Side], dict[str, str]]:
    """Each side, and why others cannot be had on this machine; installs them in `directory`."""
    made = pki.make({"fake": ("localhost", "127.0.0.1")})
    pem = directory / "fake.pem"
    pem.touch(0o600)
    pem.write_text(made.servers["fake"].reveal())
    context = trust.tls_context(ca=made.ca)
    sides: dict[str, Side] = {"mailstack": _mailstack}
    missing: dict[str, str] = {}
    if not shutil.which("npm") or not shutil.which("node"):
        missing[MAILDEV] = "there is no node, or no npm"
    elif said := _fails("npm", "install", "--prefix", directory, "--no-audit", "--no-fund", PACKAGES[MAILDEV]):
        missing[MAILDEV] = said
    else:
        sides[MAILDEV] = lambda: _maildev(directory, pem, context)
    python = directory / "venv" / "bin" / "python"
    without = _fails(sys.executable, "-m", "venv", directory / "venv")
    for name in (SMTPDFIX, LOCALSERVER):
        if said := without or _fails(python, "-m", "pip", "install", "--quiet", "pytest", PACKAGES[name]):
            missing[name] = said
        else:
            sides[name] = lambda name=name: _in_python(python, name, pem, context)  # type: ignore[misc]
    return sides, missing


def _fails(*argv: str | Path) -> str:
    """What a command says when it fails; "" when it does not."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"code {done.returncode}"]
    return said[-1] if done.returncode else ""


@contextmanager
def _maildev(directory: Path, pem: Path, context: ssl.SSLContext) -> Iterator[Server]:
    smtp, web = _free_port(), _free_port()
    options = {"smtp": smtp, "ip": "127.0.0.1", "web": web, "web-ip": "127.0.0.1", "incoming-user": USER}
    options |= {"incoming-pass": PASSWORD.reveal(), "incoming-cert": pem, "incoming-key": pem}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    script = directory / "node_modules" / "maildev" / "dist" / "bin" / "maildev.js"
    counted = f"http://127.0.0.1:{web}/api/email/summary?limit=1"

    def count() -> int:
        with suppress(OSError), urllib.request.urlopen(counted, timeout=PATIENCE) as answer:
            return int(json.load(answer)["total"])
        return 0

    with _process(["node", str(script), "--silent", "--incoming-secure", *words], {"TMPDIR": str(directory)}):
        yield Server(Endpoint("127.0.0.1", smtp), "implicit", context, count, read="over HTTP")


# Both are meant to be fixtures in the process of the tests; here they have one of their own, like the others.
_IN_PYTHON = """
import logging, sys
logging.disable(logging.WARNING)
if sys.argv[1] == "smtpdfix":
    from smtpdfix import SMTPDFix
    server = SMTPDFix("127.0.0.1").__enter__()
    port, count = server.port, lambda: len(server.messages)
else:
    from pytest_localserver.smtp import Server
    server = Server("127.0.0.1")
    server.start()
    port, count = server.addr[1], lambda: len(server.outbox)
print(port, flush=True)
for line in sys.stdin:
    print(count(), flush=True)
server.stop()
"""


@contextmanager
def _in_python(python: Path, name: str, pem: Path, context: ssl.SSLContext) -> Iterator[Server]:
    environment = {
        "SMTPD_USE_STARTTLS": "True",
        "SMTPD_ENFORCE_AUTH": "True",
        "SMTPD_LOGIN_NAME": USER,
        "SMTPD_LOGIN_PASSWORD": PASSWORD.reveal(),
        "SMTPD_SSL_CERTIFICATE_FILE": str(pem),
    }
    with _process([str(python), "-c", _IN_PYTHON, name], environment) as process:
        assert process.stdin and process.stdout
        asked, answered = process.stdin, process.stdout

        def count() -> int:
            asked.write("\n")
            asked.flush()
            return int(answered.readline())

        endpoint = Endpoint("127.0.0.1", int(answered.readline()))
        tls: smtp.Tls = "starttls" if name == SMTPDFIX else "none"
        yield Server(endpoint, tls, context, count, read="in the process")


@contextmanager
def _process(argv: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env={**own, **environment}, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
