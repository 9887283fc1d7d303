"""The machines of the experiment's lab: programs, settings, logs and queues. A machine may be down."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import islice

from mailstack.actions import queues
from mailstack.checks.judging import Unmet, expect
from mailstack.checks.logs import ServiceLog, mail_lines
from mailstack.checks.once import Once
from mailstack.config import files
from mailstack.errors import HostError
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline, Result, ServiceState
from mailstack.secret import Secret

# Timeout in seconds for a mail, and for a log line. Deliveries take hundredths of a second.
ARRIVAL_SECONDS = 8.0


class Machines:
    """The services of a lab, in their state at the start of the experiment."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab
        self.engine = lab.engine
        self._services = {state.name: state for state in lab.services()}
        self.once = Once()  # values that several steps use

    def services(self) -> list[ServiceState]:
        """Return the services in any state."""
        return list(self._services.values())

    @property
    def running(self) -> list[str]:
        """Return the names of the services that were running."""
        return [name for name, state in self._services.items() if state.state == "running"]

    def container(self, service: str) -> str:
        """Return the id of a service's container. Raises HostError when the service was not running."""
        state = self._services.get(service)
        if state is None:
            raise HostError(f"the lab has no {service}")
        if state.state != "running":
            raise HostError(f"{service} is not running: it exited with code {state.exit_code}")
        return state.container

    @property
    def relay(self) -> tuple[str, Secret]:
        """Return the user and the password with which the student's machine submits its mail."""
        if found := files.read_relay(self.lab.directory.files):
            return found
        raise Unmet("the lab has no relay credentials")

    def execute(self, service: str, *argv: str, user: str = "", input: bytes | None = None) -> Result:
        """Run a program on a machine."""
        return self.engine.execute(self.container(service), argv, user=user, input=input)

    def output(self, service: str, *argv: str) -> str:
        """Return the output of a program on a machine. Raises Unmet when it fails."""
        result = self.execute(service, *argv)
        expect(result.code == 0, f"`{' '.join(argv)}` in {service}: {result.stderr.strip() or f'code {result.code}'}")
        return result.stdout

    def settings(self, service: str) -> dict[str, str]:
        """Return every effective setting of a Postfix: postconf(1); `-x` expands `$name`."""
        return self.once(f"settings of {service}", lambda: parse_settings(self.output(service, "postconf", "-x")))

    def reload(self, service: str) -> str:
        """Make a Postfix read its configuration again (postfix(1), reload); return the log line that confirms it."""
        marker = "]: reload -- "
        before = self.log(service).count(marker)
        self.engine.signal(self.container(service), "SIGHUP")
        with closing(ServiceLog(self.engine, self.container(service))) as log:
            lines = (line for line in log.lines(Deadline.after(ARRIVAL_SECONDS)) if marker in line)
            if (line := next(islice(lines, before, None), None)) is not None:
                return line
        raise Unmet(f"Postfix in {service} did not reload within {ARRIVAL_SECONDS:g} s")

    def log(self, service: str) -> str:
        """Return the whole log of a service."""
        return self.engine.logs(self.container(service))

    def all_logs(self) -> dict[str, str]:
        """Return the log of every service in any state, with the engine's timestamps."""
        return {name: self.engine.logs(state.container, timestamps=True) for name, state in self._services.items()}

    def lines(self, service: str, message_id: str, text: str) -> list[str]:
        """Return the log lines of a mail in a Postfix, as soon as one contains `text`. Raises Unmet."""
        with closing(ServiceLog(self.engine, self.container(service))) as log:
            lines, hit = mail_lines(log.lines(Deadline.after(ARRIVAL_SECONDS)), message_id, text)
        last = f"; its last line there: {lines[-1]}" if lines else ""
        expect(hit, f"{service} logged no “{text}” for {message_id} within {ARRIVAL_SECONDS:g} s{last}")
        return lines

    def queue(self, service: str) -> list[queues.Entry]:
        """Return the mails in the queues of a Postfix."""
        return queues.entries(self.engine, self.container(service), service)


def expect_sent(lines: Iterable[str]) -> None:
    """Raise Unmet unless the first delivery attempt in these log lines of a mail succeeded."""
    outcome = next(line for line in lines if "status=" in line)
    expect("status=sent" in outcome, f"not sent: {outcome.partition('status=')[2]}")


def parse_settings(text: str) -> dict[str, str]:
    """Return the `name = value` lines that postconf(1) prints."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
