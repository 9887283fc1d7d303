"""The pytest plugin: a mail server for tests, as fixtures. Every decision is a fixture that can be overridden.

Every run of pytest loads this module where mailstack is installed, so it imports nothing but pytest until a fixture is
asked for. What tests get is in `mailstack.testing`; docs/pytest.md shows how to use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mailstack.actions.accounts import Accounts
    from mailstack.actions.queue_watch import Looks
    from mailstack.engine.engine import Engine
    from mailstack.errors import MailstackError
    from mailstack.lab.running import RunningLab
    from mailstack.model import CheckResult
    from mailstack.testing import Mailbox, MailboxFactory, SmtpSettings

TTL = 3600.0  # seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command line's options."""
    group = parser.getgroup("mailstack", "mailstack: a mail server for tests")
    group.addoption("--mailstack-name", metavar="NAME", help="use this lab, which is up, instead of one of its own")
    group.addoption("--mailstack-host", metavar="HOST", help="have the lab on this Docker host, over SSH")
    group.addoption("--mailstack-keep", action="store_true", help="leave the lab of the tests as it is when they end")
    group.addoption(
        "--mailstack-artifacts",
        metavar="DIR",
        help="write what a lab knows about a failed test to files in DIR/TEST/",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A lab that was named has to be there."""
    name = config.getoption("--mailstack-name")
    if name is None or hasattr(config, "workerinput"):
        return
    from mailstack.errors import MailstackError
    from mailstack.lab.running import RunningLab

    try:
        RunningLab(name, _engine(config))
    except MailstackError as error:
        raise pytest.UsageError(_worded(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a test that waited for a mail in vain what the lab knows about it."""
    report = yield
    if report.failed and call.excinfo:
        from mailstack.testing.mailbox import failed_wait

        if unmet := failed_wait(call.excinfo.value):
            from mailstack.testing import evidence

            artifacts: str | None = item.config.getoption("--mailstack-artifacts")
            folder = Path(artifacts).absolute() / evidence.folder(item.nodeid) if artifacts is not None else None
            report.sections += evidence.told(unmet, folder)
    return report


# ── decisions, to be overridden ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def mailstack_name(request: pytest.FixtureRequest) -> str | None:
    """The name of a lab that is up, to be used and left as it is; None: a lab for the run alone."""
    name: str | None = request.config.getoption("--mailstack-name")
    return name


@pytest.fixture(scope="session")
def mailstack_overlays() -> Sequence[Path]:
    """Compose files that are laid over the lab's definition: other domains, accounts, limits, settings."""
    return ()


@pytest.fixture(scope="session")
def mailstack_ttl() -> float:
    """After how many seconds the run's own lab goes by itself, whatever has become of the run."""
    return TTL


@pytest.fixture(scope="session")
def mailstack_patience() -> float:
    """How long a mailbox waits for a mail where a test says nothing else; in seconds."""
    from mailstack.testing.mailbox import PATIENCE

    return PATIENCE


# ── the lab ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def mailstack_lab(
    request: pytest.FixtureRequest,
    mailstack_name: str | None,
    mailstack_overlays: Sequence[Path],
    mailstack_ttl: float,
) -> Iterator[RunningLab]:
    """A lab that is up, and proven with a mail: the run's own, which all workers of pytest-xdist share."""
    from mailstack.lab.running import RunningLab

    with _for_people():
        engine = _engine(request.config)
    if mailstack_name is not None:
        with _for_people():
            lab = RunningLab(mailstack_name, engine)
        yield lab
        return

    from mailstack.lab.up import Request
    from mailstack.testing.run_lab import RunLab

    wanted = Request(_own_name(request.config), tuple(map(Path, mailstack_overlays)), ttl=mailstack_ttl)
    with _for_people():
        own = RunLab(engine, wanted, keep=request.config.getoption("--mailstack-keep"))
        lab = own.join()
    try:
        yield lab
    finally:
        with _for_people():
            own.leave()


@pytest.fixture(scope="session")
def mailstack_accounts(request: pytest.FixtureRequest, mailstack_lab: RunningLab) -> Iterator[Accounts]:
    """The lab's accounts; those that were added are taken away again, unless the lab goes anyhow or is to be kept."""
    from mailstack.actions.accounts import Accounts
    from mailstack.errors import MailstackError

    own = mailstack_lab.name == _own_name(request.config)
    with Accounts(mailstack_lab) as accounts:
        yield accounts
        made = request.config.stash.get(_ADDRESSES, set())
        if request.config.getoption("--mailstack-keep"):
            mailstack_lab.account_lease.disown()
        elif made and not own:
            with contextlib.suppress(MailstackError):  # a test may have broken the lab
                accounts.remove_several(sorted(made))


@pytest.fixture(scope="session")
def _mailstack_queues(mailstack_lab: RunningLab) -> Iterator[Looks]:
    """Looks at the lab's queues."""
    from mailstack.actions.queue_watch import Looks

    with Looks(mailstack_lab) as looks:
        yield looks


# ── what tests use ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def mailbox_factory(
    request: pytest.FixtureRequest, mailstack_accounts: Accounts, mailstack_patience: float, _mailstack_queues: Looks
) -> Iterator[MailboxFactory]:
    """Makes mailboxes, each a fresh address with a password of its own: `mailbox_factory("customer")`."""
    from mailstack.testing import MailboxFactory

    stem = request.node.name.removeprefix("test_")
    factory = MailboxFactory(mailstack_accounts, stem, mailstack_patience, queues=_mailstack_queues)
    try:
        yield factory
    finally:
        factory.close()
        made = request.config.stash.setdefault(_ADDRESSES, set())
        made |= {mailbox.address for mailbox in factory.made}


@pytest.fixture
def mailbox(mailbox_factory: MailboxFactory) -> Mailbox:
    """A fresh address with a password of its own, for this test alone."""
    with _for_people():
        return mailbox_factory()


@pytest.fixture(scope="session")
def smtp_settings(mailstack_lab: RunningLab) -> SmtpSettings:
    """What an application submits mail with, as any address of the lab's domains: for smtplib, Django, Flask."""
    from mailstack.config import files
    from mailstack.network.ports import loopback_name
    from mailstack.testing import Password, SmtpSettings

    relay = files.read_relay(mailstack_lab.directory.files)
    if relay is None:
        pytest.fail(f"lab “{mailstack_lab.name}” has no user that sends for all addresses", pytrace=False)
    user, password = relay
    port = mailstack_lab.endpoints["submission"].port
    return SmtpSettings(loopback_name(), port, user, Password(password.reveal()), mailstack_lab.ca_file, starttls=True)


@pytest.fixture(scope="session")
def mailstack_checks(mailstack_lab: RunningLab) -> Callable[..., list[CheckResult]]:
    """Runs checks (or families: `mailstack_checks("auth", "tls")`) on the lab; fails when one of them does."""
    from mailstack import checks
    from mailstack.checks.bench import Bench
    from mailstack.model import Verdict

    def run(*ids: str) -> list[CheckResult]:
        with _for_people(), Bench(mailstack_lab) as bench:
            results = checks.run(bench, checks.chosen(ids), lambda result: None)
        failed = [result for result in results if result.verdict is Verdict.FAIL]
        if failed:
            told = [f"{each.id}: {each.title}\n    {each.evidence}\n    {each.source}" for each in failed]
            raise AssertionError("\n".join([f"{len(failed)} of {len(results)} checks failed", *told]))
        return results

    return run


# ── below ────────────────────────────────────────────────────────────────────────────────────────────────────────

_ADDRESSES = pytest.StashKey[set[str]]()
_TOKEN = pytest.StashKey[str]()
_ENGINE = pytest.StashKey["Engine"]()


def _own_name(config: pytest.Config) -> str:
    """The name of the run's own lab: all workers of a run say the same."""
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    token = worker["testrunuid"] if worker else config.stash.setdefault(_TOKEN, secrets.token_hex(16))
    return "pytest-" + hashlib.sha256(token.encode()).hexdigest()[:12]


def _engine(config: pytest.Config) -> Engine:
    """The engine of the run's target, which is made once. Raises MailstackError."""
    from mailstack.engine.engine import Engine
    from mailstack.target.choice import choose
    from mailstack.target.target import VARIABLE

    if _ENGINE not in config.stash:
        host = config.getoption("--mailstack-host") or os.environ.get(VARIABLE, "")
        config.stash[_ENGINE] = Engine(choose(os.environ, host=host))
    return config.stash[_ENGINE]


@contextlib.contextmanager
def _for_people() -> Iterator[None]:
    """What mailstack has to say, without a traceback."""
    from mailstack.errors import MailstackError

    try:
        yield
    except MailstackError as error:
        pytest.fail(_worded(error), pytrace=False)


def _worded(error: MailstackError) -> str:
    return f"mailstack: {error.whole()}"
