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
    from mailstack.testing.mailbox import MailboxUnmet

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
    unmet = _unmet(call.excinfo.value) if report.failed and call.excinfo else None
    if unmet is not None:
        _explain(report, unmet, item)
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

    from mailstack.errors import MailstackError
    from mailstack.lab import down, homes
    from mailstack.lab.leases import Users, guard
    from mailstack.lab.up import Request, ensure
    from mailstack.runner.local import Local
    from mailstack.state import LabDirectory

    name = _own_name(request.config)
    keep = request.config.getoption("--mailstack-keep")
    wanted = Request(name, tuple(Path(path) for path in mailstack_overlays), ttl=mailstack_ttl)
    end = _nothing if keep else lambda: down.down(engine, name, _silent)
    with _for_people():
        there = homes.current(engine)  # before anything is made: where no engine answers, nothing could be removed
        users = Users(there, name)
        users.join()
        try:
            if not keep:
                guard(
                    engine.target, there, name, Local()
                )  # takes the lab down if this process and those that share it are killed
            ensure(engine, wanted, _silent, _warm_up)
            found = RunningLab(name, engine)
        except BaseException:
            # Interrupted when the lab was just up: who leaves without taking it down sends the guard away, too. Where
            # nothing was made, or what was made is removed, no engine is asked: it may never have been there.
            made = LabDirectory(there, name).is_made()
            with contextlib.suppress(MailstackError):  # what went wrong first is what is told
                users.leave(end if made else _nothing)
            raise
    try:
        yield found
    finally:
        with _for_people():
            users.leave(end)


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
            mailstack_lab.guest.disown()
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


def _warm_up() -> None:
    """Read in what tests use, as long as another worker brings the lab up: here is nothing else to do."""
    import email.headerregistry
    import email.policy

    import imap_tools

    import mailstack.actions.accounts
    import mailstack.actions.queue_watch
    import mailstack.testing

    del email, imap_tools, mailstack


def _silent(_: str) -> None:
    """What a lab says of its progress is not told."""


def _nothing() -> None:
    """What is done about a lab that is to be kept."""


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


def _unmet(error: BaseException) -> MailboxUnmet | None:
    """The wait in vain behind an error: itself, or what it was raised from."""
    from mailstack.testing.mailbox import MailboxUnmet

    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        if isinstance(each, MailboxUnmet):
            return each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
    return None


def _explain(report: pytest.TestReport, unmet: MailboxUnmet, item: pytest.Item) -> None:
    from mailstack.errors import MailstackError
    from mailstack.testing import evidence

    try:
        told = evidence.sections(unmet.mailbox)
        report.sections += told
        directory: str | None = item.config.getoption("--mailstack-artifacts")
        if directory is not None:
            evidence.keep(unmet.mailbox, Path(directory).absolute() / evidence.folder(item.nodeid), told)
    except Exception as error:  # whatever it is: the test's own failure is what is told
        said = error.whole() if isinstance(error, MailstackError) else error
        report.sections.append(("mailstack", f"what the lab knows could not be told: {type(error).__name__}: {said}"))
