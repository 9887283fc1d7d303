"""Mails per second, end to end: this lab, Debian's stock settings of the same packages, and the limit.

The limit is what the same Postfix takes from its own load generator, smtp-source(1), without TLS and AUTH, from the
sender's container, and then throws away (discard(8)).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mailstack.actions import queues
from mailstack.lab.running import RunningLab
from mailstack.load.performance import perform
from mailstack.load.plan import Plan
from mailstack.model import Deadline
from tests import engines
from tests.bench.journal import engines_has_one, volumes
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, run

TITLE = "mails per second, end to end"
OURS, STOCK = "bench-ours", "bench-stock"
OVERLAY = Path(__file__).parent / "stock" / "stock.yaml"

KIB = 1024
# The bars are about this one.
BARS = (8, 2 * KIB)
OTHERS = ((1, 2 * KIB), (32, 2 * KIB), (8, 100 * KIB), (1, 100 * KIB), (32, 100 * KIB))
# Mails of one run: some seconds' worth.
MESSAGES = {2 * KIB: 1500, 100 * KIB: 400}
FEW = {2 * KIB: 500, 100 * KIB: 200}
# What goes to this domain is thrown away.
DISCARDED = "discarded.test"

NOTES = (
    (
        "Ours and stock: from the first command to the last mail in its mailbox, one of 50, over connections with TLS "
        "and AUTH on 587 that are each used again and again; every mail is looked for by its Message-ID."
    ),
    (
        "Stock: main.cf, master.cf and Dovecot's settings as Debian's packages have them (mailboxes are mbox files), "
        "with no more than it takes to have these mailboxes, SASL, TLS and a log (tests/bench/stock)."
    ),
    (
        "The limit: smtp-source in a container of the lab, without TLS and AUTH, until its last mail was taken; "
        "Postfix with the lab's settings, and the transport discard."
    ),
    "All of it, the senders too, shares this machine's processors.",
)
JOURNAL = (
    "The file system of this machine's engine is an ext4 without a journal, which makes new files slower the more have "
    "just been deleted. So the volumes of both labs were on an ext4 with one, in a file, as Debian and Ubuntu are "
    "installed; what says “no journal” is measured without that."
)


def measure(runs: int) -> Figures:
    """The three sides in alternation, for each number of connections and each size."""
    if engines_has_one():
        rows, ratios = _measure(runs, (BARS, *OTHERS), {})
        return Figures(rows, ratios, NOTES)
    with volumes((OURS, STOCK)) as overlays:
        rows, ratios = _measure(runs, (BARS, *OTHERS), overlays)
    more_rows, more_ratios = _measure(runs, (BARS,), {}, " (no journal)")
    return Figures(rows + more_rows, ratios + more_ratios, (*NOTES, JOURNAL))


def _measure(
    runs: int, combinations: Sequence[tuple[int, int]], overlays: Mapping[str, Path], where: str = ""
) -> tuple[tuple[Row, ...], tuple[Ratio, ...]]:
    rows: list[Row] = []
    ratios: list[Ratio] = []
    try:
        _up(OURS, overlays.get(OURS))
        _up(STOCK, OVERLAY, overlays.get(STOCK))
        ours, stock = RunningLab(OURS, engines.here()), RunningLab(STOCK, engines.here())
        _discard(ours)
        for connections, size in combinations:
            counts = MESSAGES if connections == BARS[0] else FEW
            sides: dict[str, Callable[[], float]] = {
                "ours": functools.partial(delivered, ours, connections, counts[size], size),
                "stock": functools.partial(delivered, stock, connections, counts[size], size),
                "limit": functools.partial(discarded, ours, connections, counts[size], size),
            }
            found = alternate(sides, runs)
            what = f"{connections} × {size // KIB} KB{where}"
            rows += [Row(f"{what}, {side}", values, "mails/s") for side, values in found.items()]
            held = (connections, size) == BARS and not where
            for side, bar in (("stock", 1.5), ("limit", 0.43)):
                value = paired(found["ours"], found[side])
                ratios.append(Ratio(f"{what}, ours ÷ {side}", value, bar if held else None, at_most=False))
    finally:
        run([MAILSTACK, "down", "-n", OURS])
        run([MAILSTACK, "down", "-n", STOCK])
    return tuple(rows), tuple(ratios)


def _up(lab: str, *overlays: Path | None) -> None:
    run([MAILSTACK, "up", "-n", lab, *(word for each in overlays if each for word in ("-f", each))])


def delivered(lab: RunningLab, connections: int, messages: int, size: int) -> float:
    """Mails per second from the first command to the last mail in its mailbox."""
    outcome = perform(lab, Plan(connections, messages, None, size))
    if outcome.delivered != messages or outcome.lost or outcome.doubled:
        raise AssertionError(f"{outcome.delivered} of {messages} were delivered: {outcome.json()}")
    return messages / outcome.seconds


def discarded(lab: RunningLab, connections: int, messages: int, size: int) -> float:
    """Mails per second that Postfix takes, from the first connection to the last reply."""
    argv = ["docker", "exec", lab.service("sender").container, "smtp-source", "-d", "-s", str(connections)]
    argv += ["-m", str(messages), "-l", str(size), "-f", "load@outside.test", "-t", f"any@{DISCARDED}", "postfix:25"]
    begun = time.perf_counter()
    run(argv)
    taken = time.perf_counter() - begun
    where = {"postfix": lab.service("postfix").container}
    queues.wait(lab.engine, where, queues.CONDITIONS["empty"], Deadline.after(30))
    return messages / taken


def _discard(lab: RunningLab) -> None:
    """Let the lab's Postfix throw away what comes for a domain of the benchmark's own."""
    container = lab.service("postfix").container
    settings = (f"relay_domains={DISCARDED}", f"transport_maps=inline:{{{DISCARDED}=discard:}}")
    run(["docker", "exec", container, "postconf", "-e", *settings])
    run(["docker", "exec", container, "postfix", "reload"])
    deadline = time.monotonic() + 30
    while True:  # until the services that know the old settings have ended
        try:
            discarded(lab, 1, 1, KIB)
            return
        except SystemExit:
            if time.monotonic() > deadline:
                raise
