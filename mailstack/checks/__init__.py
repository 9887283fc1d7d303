"""End-to-end checks: what a lab promises, proven one by one on the lab itself.

Each family is one module. A check is a function that gives its evidence, raises Unmet where the promise is broken, or
NotApplicable where the lab has nothing to check it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mailstack import hint
from mailstack.errors import InputError, Interrupted, MailstackError
from mailstack.model import CheckResult, Verdict

if TYPE_CHECKING:
    from mailstack.checks.bench import Bench

Function = Callable[["Bench"], str]

# How many checks run side by side: each waits for servers much more than it computes.
SIDE_BY_SIDE = 8


class Unmet(Exception):
    """The promise is broken; the text is the evidence."""


class NotApplicable(Exception):
    """The lab has nothing to check this on; the text says what is missing."""


class Turn(Enum):
    """When a check may run: beside others, one at a time because it changes the sender, or with nothing beside it."""

    BESIDE = "beside"
    SENDER = "sender"
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, where it comes from, and how it is proven."""

    id: str
    title: str
    source: str
    function: Function
    turn: Turn = Turn.BESIDE


class Family:
    """The checks of one module, gathered by decorator: `@family("name", "title", "source")`."""

    def __init__(self, name: str, turn: Turn = Turn.BESIDE) -> None:
        self.name = name
        self.checks: list[Check] = []
        self._turn = turn

    def __call__(
        self, name: str, title: str, source: str, *, turn: Turn | None = None
    ) -> Callable[[Function], Function]:
        """Add a check `FAMILY.name`; `turn`, where it is not the family's."""

        def add(function: Function) -> Function:
            self.checks.append(Check(f"{self.name}.{name}", title, source, function, turn or self._turn))
            return function

        return add


def expect(met: object, evidence: str) -> None:
    """Raise Unmet with `evidence` unless `met`."""
    if not met:
        raise Unmet(evidence)


def all_checks() -> list[Check]:
    """Every check there is, family by family."""
    from mailstack.checks import auth, closed, delivery, exposure, queue, relay, smuggling, tls

    families = (auth, tls, delivery, smuggling, relay, closed, exposure, queue)
    return [check for module in families for check in module.family.checks]


def chosen(ids: Sequence[str]) -> list[Check]:
    """The checks with these ids, or of these families; all when none is named. Raises InputError for an unknown one."""
    every = all_checks()
    for wanted in ids:
        if not any(_matches(check, wanted) for check in every):
            raise InputError(f"there is no check {wanted!r}", remedy=f"{hint.line('check', '--list')} names them")
    return [check for check in every if not ids or any(_matches(check, wanted) for wanted in ids)]


def _matches(check: Check, wanted: str) -> bool:
    return check.id == wanted or check.id.partition(".")[0] == wanted


def run(bench: Bench, checks: Iterable[Check], on_result: Callable[[CheckResult], None]) -> list[CheckResult]:
    """Run checks, side by side where they can; the results are in the checks' order."""
    checks = list(checks)
    results: dict[str, CheckResult] = {}

    def one(check: Check) -> None:
        results[check.id] = judge(check, bench)
        on_result(results[check.id])

    def in_turn(several: Sequence[Check]) -> None:
        for check in several:
            one(check)

    beside, sender, alone = ([check for check in checks if check.turn is turn] for turn in Turn)
    with ThreadPoolExecutor(SIDE_BY_SIDE + 1) as pool:
        # The last families have the checks that take longest: begun first, they are not what everybody waits for.
        running = [pool.submit(in_turn, sender)] + [pool.submit(one, check) for check in reversed(beside)]
        try:
            for each in running:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    in_turn(alone)
    return [results[check.id] for check in checks]


def judge(check: Check, bench: Bench) -> CheckResult:
    """Run one check: whatever happens becomes a verdict with evidence. Raises HostError when the host has gone."""
    begun = time.monotonic()
    try:
        verdict, evidence = Verdict.PASS, check.function(bench)
    except Unmet as unmet:
        verdict, evidence = Verdict.FAIL, str(unmet)
    except NotApplicable as reason:
        verdict, evidence = Verdict.SKIP, str(reason)
    except Interrupted:
        raise
    except MailstackError as error:
        verdict, evidence = Verdict.FAIL, f"{type(error).__name__}: {error.whole()}"
    except (OSError, EOFError) as error:
        # A server that refuses, hangs up or does not answer has broken the promise, too.
        verdict, evidence = Verdict.FAIL, f"{type(error).__name__}: {error}"
    except Exception as error:
        from smtplib import SMTPException

        from imap_tools.errors import ImapToolsError

        if not isinstance(error, SMTPException | ImapToolsError) and type(error).__module__ != "imaplib":
            raise
        verdict, evidence = Verdict.FAIL, f"{type(error).__name__}: {error}"
    milliseconds = (time.monotonic() - begun) * 1000
    if verdict is Verdict.FAIL:
        bench.lab.target.look()
    return CheckResult(check.id, check.title, check.source, verdict, bench.blot(evidence), round(milliseconds, 1))
