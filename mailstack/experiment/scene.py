"""The lab on which the experiment is performed: who plays whom, and how a step looks at each of them."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from email.utils import make_msgid
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from mailstack import down, files, mail, mailboxes, post, queues, tracing
from mailstack.errors import DeadlinePassed, HostError, MailstackError
from mailstack.experiment.evidence import Unmet, expect
from mailstack.lab import Report, Request, up
from mailstack.message import Message
from mailstack.model import Deadline, Json, Result, ServiceState
from mailstack.runner import Local
from mailstack.running import RunningLab
from mailstack.secret import Secret
from mailstack.trace.journey import Journey
from mailstack.users import Users, guard

if TYPE_CHECKING:
    from imap_tools import BaseMailBox, MailMessage

T = TypeVar("T")

# A mail that has not arrived by then will not: deliveries take hundredths of a second.
ARRIVAL_SECONDS = 8.0
# A lab that nobody could remove, because this process and the guard were killed, goes by itself after this time.
LIFE_SECONDS = 900.0


class Scene:
    """A lab in which some servers may not run."""

    def __init__(self, lab: RunningLab, came_up: Report | MailstackError | None = None) -> None:
        self.lab = lab
        self.came_up = came_up  # what `up` said of it: how it was proven, or what kept it from being proven
        self.engine = lab.engine
        self.second = second_lab(lab.name)
        self._second_turn, self._over = threading.Lock(), False
        self._second_users = Users(lab.directory.home, self.second)
        self._services = {state.name: state for state in lab.services()}
        self.journeys: dict[str, Journey] = {}  # model → the mail's
        self.dialogue: Json = {}
        self._known: dict[str, Any] = {}
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        mailname = lab.definition().mailname
        self.student = f"{post.STUDENT}@{mailname}"
        others = [address for address in lab.definition().addresses() if address != self.student]
        self.recipient = others[min(1, len(others) - 1)]
        # The mail of steps 5 and 6; its id is chosen here, so that each step can look for it.
        self.first_mail = make_msgid("first", domain=mailname)

    def bring_up_second(self, request: Request) -> RunningLab:
        """The second lab, which is removed with the first. Unmet when the experiment was interrupted meanwhile."""
        with self._second_turn:
            expect(not self._over, "the experiment was interrupted")
            self._second_users.join()
            guard(self.lab.target, self.lab.directory.home, self.second, Local())
            up(self.engine, request, lambda text: None)
        return RunningLab(self.second, self.engine)

    def end(self) -> None:
        """Remove the second lab: one that is being brought up is waited for, and none is brought up any more."""
        with self._second_turn:
            self._over = True
            self._second_users.leave(lambda: down.down(self.engine, self.second, lambda text: None))

    # ── its machines ───────────────────────────────────────────────────────────────────────────────────────────

    def services(self) -> list[ServiceState]:
        """Its services, as they were when the experiment began."""
        return list(self._services.values())

    def container(self, service: str) -> str:
        """A service's container. Raises HostError where it did not run when the experiment began."""
        state = self._services.get(service)
        if state is None:
            raise HostError(f"the lab has no {service}")
        if state.state != "running":
            raise HostError(f"{service} does not run: it ended with code {state.exit_code}")
        return state.container

    @property
    def running(self) -> list[str]:
        """The services that ran when the experiment began."""
        return [name for name, state in self._services.items() if state.state == "running"]

    @property
    def relay(self) -> tuple[str, Secret]:
        """The user and the password with which the student's machine submits its mail."""
        if found := files.read_relay(self.lab.directory.files):
            return found
        raise Unmet("the lab has no relay credentials")

    def execute(self, service: str, *argv: str, user: str = "", input: bytes | None = None) -> Result:
        """Run a program on a machine of the lab."""
        return self.engine.execute(self.container(service), argv, user=user, input=input)

    def output(self, service: str, *argv: str) -> str:
        """What a program on a machine of the lab prints; Unmet when it fails."""
        result = self.execute(service, *argv)
        expect(result.code == 0, f"`{' '.join(argv)}` in {service}: {result.stderr.strip() or f'code {result.code}'}")
        return result.stdout

    def once(self, what: str, look: Callable[[], T]) -> T:
        """What `look` finds, looked for once for all steps that ask for `what`."""
        with self._lock:
            turn = self._turns.setdefault(what, threading.Lock())
        with turn:
            if what not in self._known:
                self._known[what] = look()
            found: T = self._known[what]
        return found

    def settings(self, service: str) -> dict[str, str]:
        """Every setting in effect in a Postfix: postconf(1), `-x` expands `$name`."""
        return self.once(f"settings of {service}", lambda: parse_settings(self.output(service, "postconf", "-x")))

    def reload(self, service: str) -> str:
        """Let a Postfix begin anew with its configuration (postfix(1), reload): the line in which it says so."""
        said = "]: reload -- "
        before = self.log(service).count(said)
        self.engine.signal(self.container(service), "SIGHUP")
        found = self._logged(service, lambda log: log.count(said) > before)
        if found is None:
            raise Unmet(f"Postfix in {service} did not begin anew within {ARRIVAL_SECONDS:g} s")
        return found.splitlines()[-1]

    def _logged(self, service: str, wanted: Callable[[str], bool]) -> str | None:
        """A service's log, as soon as it is as `wanted`; None when it is not in time."""
        log = ""
        followed = self.engine.follow({service: self.container(service)}, deadline=Deadline.after(ARRIVAL_SECONDS))
        with closing(followed):
            for found in followed:
                if found is None:
                    return None
                log += found[1].partition(" ")[2].rstrip("\n") + "\n"
                if wanted(log):
                    return log
        return None

    def log(self, service: str) -> str:
        """Everything that a service has logged."""
        return self.engine.logs(self.container(service))

    def all_logs(self) -> dict[str, str]:
        """The same of every service, also of those that do not run, with the engine's times."""
        return {name: self.engine.logs(state.container, timestamps=True) for name, state in self._services.items()}

    def queue(self, service: str) -> list[queues.Entry]:
        """What stands in the queues of a Postfix."""
        return queues.entries(self.engine, self.container(service), service)

    # ── its mails ──────────────────────────────────────────────────────────────────────────────────────────────

    def lines(self, service: str, message_id: str, wanted: str) -> list[str]:
        """The log lines of a mail in a Postfix, once one of them has `wanted` in it."""

        def there(log: str) -> bool:
            return wanted in log and any(wanted in line for line in lines_of(log, message_id))

        log = self._logged(service, there)
        if log is None:
            found = lines_of(self.log(service), message_id)
            last = f"; its last line there: {found[-1]}" if found else ""
            raise Unmet(f"{service} logged no “{wanted}” for {message_id} within {ARRIVAL_SECONDS:g} s{last}")
        return lines_of(log, message_id)

    def journey(self, message_id: str) -> Journey:
        """The way of a mail that has arrived, once both MTAs are done with it."""
        for service in ("sender", "postfix"):
            self.lines(service, message_id, ": removed")
        return self.once(f"journey of {message_id}", lambda: self.trace(message_id))

    def trace(self, message_id: str) -> Journey:
        """The way of a mail, by the lab's logs alone. Unmet when they do not know it."""
        with tracing.lab_lines(self.lab) as read:
            found = tracing.traced(read, message_id).journeys
        expect(found, f"no server has logged {message_id}")
        return found[-1]

    def keep(self, model: str, journey: Journey) -> Journey:
        """Put a journey into the document, as the one that shows a model."""
        self.journeys[model] = journey
        return journey

    def whereabouts(self, message_id: str) -> str:
        """What the logs and queues tell of a mail, in one line."""
        found = tracing.of_lab(self.lab, message_id)
        return found[-1].sentence(time.time()) if found else "no server has seen it"

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        """A TLS client that trusts the lab's CA, and nothing else."""
        return mail.tls_context(self.lab.ca_file)

    def box(self, address: str) -> AbstractContextManager[BaseMailBox]:
        """An account's mailbox, over IMAP."""
        self.container("dovecot")  # rather than: the connection was refused
        return mail.mailbox(self.lab.endpoints["imaps"], self.trusting, address, self.lab.password(address))

    def arrived(self, address: str, message_id: str) -> list[MailMessage]:
        """The copies of a mail in a mailbox, once there is one. Unmet when none comes."""
        with self.box(address) as box:
            self._wait(box, address, message_id)
            return mail.find(box, message_id)

    def _wait(self, box: BaseMailBox, address: str, message_id: str) -> MailMessage:
        try:
            return mail.wait_for(box, message_id, Deadline.after(ARRIVAL_SECONDS))
        except DeadlinePassed:
            where = self.whereabouts(message_id)
        raise Unmet(f"the mail is not in the mailbox of {address} after {ARRIVAL_SECONDS:g} s: {where}")

    def message(self, address: str, message_id: str) -> Message:
        """A mail as it lies in a mailbox, byte by byte. Unmet when it does not come."""
        with self.box(address) as box:
            found = mailboxes.message(box, int(self._wait(box, address, message_id).uid or 0))
        if found is None:
            raise Unmet(f"{message_id} is no longer in the mailbox of {address}")
        return found

    def first(self) -> Message:
        """The first mail, as it lies in the recipient's mailbox."""
        return self.once("first mail", lambda: self.message(self.recipient, self.first_mail))

    def blot(self, text: str) -> str:
        """`text` without any of the lab's secrets."""
        return files.blot(self.lab.directory.files, text)


def second_lab(name: str) -> str:
    """What the second lab is called, that of a student with a provider outside."""
    return f"{name[:26]}-out"


def parse_settings(text: str) -> dict[str, str]:
    """`name = value` lines, as postconf(1) prints them."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def lines_of(log: str, message_id: str) -> list[str]:
    """The lines of a Postfix's log that are of this mail, by its queue ids there."""
    ids = set(re.findall(rf"cleanup\[\d+\]: (\w+): message-id={re.escape(message_id)}$", log, re.MULTILINE))
    return [line for line in log.splitlines() if any(f": {queue_id}: " in line for queue_id in ids)]
