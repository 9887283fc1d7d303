"""End-to-end checks: each promise of a lab is proven on the lab itself.

Each family of checks has one or two modules. A check is a function: it returns its evidence, raises Unmet when the
promise is broken, or raises NotApplicable when the lab has nothing to check the promise on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from mailstack.checks import judging
from mailstack.errors import InputError
from mailstack.model import CheckResult, Verdict
from mailstack.text import hint

if TYPE_CHECKING:
    from mailstack.checks.bench import Bench

Function = Callable[..., str]

# Checks run in parallel, since each waits for servers much more than it computes.
WORKERS = 8


class Concurrency(Enum):
    """When a check may run: in parallel, one at a time because it changes the sender, or alone."""

    PARALLEL = "parallel"
    SENDER = "sender"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, its source, and the function that proves it."""

    id: str
    title: str
    source: str
    function: Callable[[Bench], str]
    concurrency: Concurrency = Concurrency.PARALLEL


class Family:
    """The checks of a family, registered by a decorator: `@family("name", "title", "source")`."""

    def __init__(self, name: str, concurrency: Concurrency = Concurrency.PARALLEL) -> None:
        self.name = name
        self.checks: list[Check] = []
        self._concurrency = concurrency

    def __call__(
        self, name: str, title: str, source: str, *, concurrency: Concurrency | None = None, **each: Sequence[object]
    ) -> Callable[[Function], Function]:
        """Add a check `FAMILY.NAME`, or one for each combination of the values of `each`.

        The function gets the values as keyword arguments. Name and title may refer to them: `{port.number}`.
        `concurrency` replaces the family's.
        """

        def add(function: Function) -> Function:
            for values in itertools.product(*each.values()):
                parameters = dict(zip(each, values, strict=True))
                id = f"{self.name}.{name.format(**parameters)}".lower()
                proof = partial(function, **parameters)
                self.checks.append(
                    Check(id, title.format(**parameters), source, proof, concurrency or self._concurrency)
                )
            return function

        return add


def all_checks() -> list[Check]:
    """Return every check, family by family."""
    from mailstack.checks import auth, closed, content, delivery, exposure, queue, relay, smuggling, tls

    families = (auth, tls, delivery, content, smuggling, relay, closed, exposure, queue)
    return [check for module in families for check in module.family.checks]


def select(ids: Sequence[str]) -> list[Check]:
    """Return the checks with these ids or of these families; all without ids. Raises InputError for an unknown one."""
    known = all_checks()
    for id in ids:
        if not any(_matches(check, id) for check in known):
            raise InputError(f"unknown check {id!r}", remedy=f"{hint.line('check', '--list')} lists all checks")
    return [check for check in known if not ids or any(_matches(check, id) for id in ids)]


def _matches(check: Check, id: str) -> bool:
    return id in (check.id, check.id.partition(".")[0])


def run(bench: Bench, checks: Iterable[Check], on_result: Callable[[CheckResult], None]) -> list[CheckResult]:
    """Run checks, in parallel where possible; return the results in the order of the checks."""
    checks = list(checks)
    results: dict[str, CheckResult] = {}

    def run_in_order(group: Iterable[Check]) -> None:
        for check in group:
            results[check.id] = judge(check, bench)
            on_result(results[check.id])

    parallel, sender, exclusive = (
        [check for check in checks if check.concurrency is concurrency] for concurrency in Concurrency
    )
    with ThreadPoolExecutor(WORKERS + 1) as pool:
        # The last families have the longest checks. They start first, so that nothing waits for them at the end.
        running = [pool.submit(run_in_order, group) for group in (sender, *([check] for check in reversed(parallel)))]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    run_in_order(exclusive)
    return [results[check.id] for check in checks]


def judge(check: Check, bench: Bench) -> CheckResult:
    """Run one check. Raises HostError when the connection to the host is lost, and the errors of `judging.judge`."""
    started = time.monotonic()
    verdict, evidence = judging.judge(lambda: check.function(bench))
    milliseconds = (time.monotonic() - started) * 1000
    if verdict is Verdict.FAIL:
        bench.lab.target.look()
    return CheckResult(check.id, check.title, check.source, verdict, bench.blot(evidence), round(milliseconds, 1))
