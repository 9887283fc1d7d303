"""The pytest plugin: a mail server for tests, as fixtures. Each decision is a fixture that can be overridden.

Every run of pytest loads this module where mailstack is installed. It therefore imports only pytest until a test
requests a fixture. Tests work with the classes of `mailstack.testing`; docs/pytest.md shows how.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mailstack.actions.accounts import Accounts
    from mailstack.actions.queue_watch import QueueWatch
    from mailstack.engine.engine import Engine
    from mailstack.errors import MailstackError
    from mailstack.lab.running import RunningLab
    from mailstack.model import CheckResult
    from mailstack.testing import Mailbox, MailboxFactory, SmtpSettings

TTL = 3600.0  # seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line."""
    group = parser.getgroup("mailstack", "mailstack: a mail server for tests")
    group.addoption("--mailstack-name", metavar="NAME", help="use this running lab instead of creating one")
    group.addoption("--mailstack-host", metavar="HOST", help="run the lab on this Docker host, over SSH")
    group.addoption("--mailstack-keep", action="store_true", help="keep the lab after the tests")
    group.addoption(
        "--mailstack-artifacts",
        metavar="DIR",
        help="write the lab's evidence about a failed test to files in DIR/TEST/",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check that the lab of `--mailstack-name` is up."""
    if hasattr(config, "workerinput"):
        # When its controller is killed, execnet ends a worker with SIGINT, which background jobs of a shell ignore.
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return
    name = config.getoption("--mailstack-name")
    if name is None:
        return
    from mailstack.errors import MailstackError
    from mailstack.lab.running import RunningLab

    try:
        RunningLab(name, _engine(config))
    except MailstackError as error:
        raise pytest.UsageError(_message(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the lab's evidence to the report of a test that waited for a mail and got none."""
    report = yield
    if report.failed and call.excinfo:
        from mailstack.testing.mailbox import failed_wait

        if failure := failed_wait(call.excinfo.value):
            from mailstack.testing import evidence

            artifacts: str | None = item.config.getoption("--mailstack-artifacts")
            directory = None if artifacts is None else Path(artifacts).absolute() / evidence.directory_name(item.nodeid)
            report.sections += evidence.collect(failure, directory)
    return report


# ── decisions, to be overridden ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def mailstack_name(request: pytest.FixtureRequest) -> str | None:
    """Return the name of a running lab, to be used and left running; None: create a lab for this run."""
    name: str | None = request.config.getoption("--mailstack-name")
    return name


@pytest.fixture(scope="session")
def mailstack_overlays() -> Sequence[Path]:
    """Return the overlays: compose files laid over the lab's definition (other domains, accounts, limits, settings)."""
    return ()


@pytest.fixture(scope="session")
def mailstack_ttl() -> float:
    """Return the lifetime of the run's own lab in seconds. After it the lab is removed, even if the run hangs."""
    return TTL


@pytest.fixture(scope="session")
def mailstack_patience() -> float:
    """Return the time in seconds that a mailbox waits for a mail, where a test gives no timeout."""
    from mailstack.testing.mailbox import TIMEOUT_SECONDS

    return TIMEOUT_SECONDS


# ── the lab ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def mailstack_lab(
    request: pytest.FixtureRequest,
    mailstack_name: str | None,
    mailstack_overlays: Sequence[Path],
    mailstack_ttl: float,
) -> Iterator[RunningLab]:
    """Yield a running lab, proven with a mail: the run's own, shared by all workers of pytest-xdist."""
    from mailstack.lab.running import RunningLab

    with _without_traceback():
        engine = _engine(request.config)
    if mailstack_name is not None:
        with _without_traceback():
            lab = RunningLab(mailstack_name, engine)
        yield lab
        return

    from mailstack.lab.up import Request
    from mailstack.testing.run_lab import RunLab

    lab_request = Request(_own_name(request.config), tuple(map(Path, mailstack_overlays)), ttl=mailstack_ttl)
    with _without_traceback():
        own = RunLab(engine, lab_request, keep=request.config.getoption("--mailstack-keep"))
        lab = own.join()
    try:
        yield lab
    finally:
        with _without_traceback():
            own.leave()


@pytest.fixture(scope="session")
def mailstack_accounts(request: pytest.FixtureRequest, mailstack_lab: RunningLab) -> Iterator[Accounts]:
    """Yield the lab's accounts. Accounts that were added are removed, unless the lab is removed or kept."""
    from mailstack.actions.accounts import Accounts
    from mailstack.errors import MailstackError

    own = mailstack_lab.name == _own_name(request.config)
    with Accounts(mailstack_lab) as accounts:
        yield accounts
        addresses = request.config.stash.get(_ADDRESSES, set())
        if request.config.getoption("--mailstack-keep"):
            mailstack_lab.temporary.end()
        elif addresses and not own:
            with contextlib.suppress(MailstackError):  # a test may have broken the lab
                accounts.remove_several(sorted(addresses))


@pytest.fixture(scope="session")
def _mailstack_queues(mailstack_lab: RunningLab) -> Iterator[QueueWatch]:
    """Yield a watch on the lab's queues."""
    from mailstack.actions.queue_watch import QueueWatch

    with QueueWatch(mailstack_lab) as looks:
        yield looks


# ── what tests use ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def mailbox_factory(
    request: pytest.FixtureRequest,
    mailstack_accounts: Accounts,
    mailstack_patience: float,
    _mailstack_queues: QueueWatch,
) -> Iterator[MailboxFactory]:
    """Yield a factory of mailboxes, each with a fresh address and its own password: `mailbox_factory("customer")`."""
    from mailstack.testing import MailboxFactory

    stem = request.node.name.removeprefix("test_")
    factory = MailboxFactory(mailstack_accounts, stem, mailstack_patience, queues=_mailstack_queues)
    try:
        yield factory
    finally:
        factory.close()
        addresses = request.config.stash.setdefault(_ADDRESSES, set())
        addresses |= {mailbox.address for mailbox in factory.mailboxes}


@pytest.fixture
def mailbox(mailbox_factory: MailboxFactory) -> Mailbox:
    """Return a mailbox with a fresh address and a password of its own, for this test only."""
    with _without_traceback():
        return mailbox_factory()


@pytest.fixture(scope="session")
def smtp_settings(mailstack_lab: RunningLab) -> SmtpSettings:
    """Return settings with which an application submits mail as any address of the lab's domains: smtplib, Django,
    Flask.
    """
    from mailstack.config import files
    from mailstack.network.ports import loopback_name
    from mailstack.testing import Password, SmtpSettings

    relay = files.read_relay(mailstack_lab.directory.files)
    if relay is None:
        pytest.fail(f"smtp_settings: lab “{mailstack_lab.name}” has no relay user", pytrace=False)
    user, password = relay
    port = mailstack_lab.endpoints["submission"].port
    return SmtpSettings(loopback_name(), port, user, Password(password.reveal()), mailstack_lab.ca_file, starttls=True)


@pytest.fixture(scope="session")
def mailstack_checks(mailstack_lab: RunningLab) -> Callable[..., list[CheckResult]]:
    """Return a function that runs checks or families (`mailstack_checks("auth", "tls")`), and fails if one of them
    fails.
    """
    from mailstack import checks
    from mailstack.checks.bench import Bench
    from mailstack.model import Verdict

    def run(*ids: str) -> list[CheckResult]:
        with _without_traceback(), Bench(mailstack_lab) as bench:
            results = checks.run(bench, checks.select(ids), lambda result: None)
        failed = [result for result in results if result.verdict is Verdict.FAIL]
        if failed:
            lines = [f"{each.id}: {each.title}\n    {each.evidence}\n    {each.source}" for each in failed]
            raise AssertionError("\n".join([f"{len(failed)} of {len(results)} checks failed", *lines]))
        return results

    return run


# ── below ────────────────────────────────────────────────────────────────────────────────────────────────────────

_ADDRESSES = pytest.StashKey[set[str]]()
_TOKEN = pytest.StashKey[str]()
_ENGINE = pytest.StashKey["Engine"]()


def _own_name(config: pytest.Config) -> str:
    """Return the name of the run's own lab, the same in all workers."""
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    token = worker["testrunuid"] if worker else config.stash.setdefault(_TOKEN, secrets.token_hex(16))
    return "pytest-" + hashlib.sha256(token.encode()).hexdigest()[:12]


def _engine(config: pytest.Config) -> Engine:
    """Return the engine of the run's target, created once. Raises MailstackError."""
    from mailstack.engine.engine import Engine
    from mailstack.target.choice import choose
    from mailstack.target.target import VARIABLE

    if _ENGINE not in config.stash:
        host = config.getoption("--mailstack-host") or os.environ.get(VARIABLE, "")
        config.stash[_ENGINE] = Engine(choose(os.environ, host=host))
    return config.stash[_ENGINE]


@contextlib.contextmanager
def _without_traceback() -> Iterator[None]:
    """Show mailstack's errors without a traceback."""
    from mailstack.errors import MailstackError

    try:
        yield
    except MailstackError as error:
        pytest.fail(_message(error), pytrace=False)


def _message(error: MailstackError) -> str:
    return f"mailstack: {error.whole()}"
