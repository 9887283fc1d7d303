"""Steps 2 to 4 on a student's own lab: the rows of the course's main.cf, judged by what the student configured."""

from __future__ import annotations

from collections.abc import Callable

from mailstack.checks.client import rows
from mailstack.checks.client.facts import Facts
from mailstack.checks.client.rows import Row
from mailstack.checks.judging import expect
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Step

# Other steps need this one: without credentials nothing is sent.
_IDS = {"sasl_passwd": "credentials"}


def step_id(row: Row) -> str:
    """Return the id of a row's step."""
    return _IDS.get(row.setting, row.setting)


def steps(facts: Facts) -> list[Step]:
    """Return a step for each row. A row that cannot be judged needs the step that fails."""
    return [_step(facts, row) for row in rows.ROWS]


def _step(facts: Facts, row: Row) -> Step:
    on_machine = row in rows.MACHINE
    readable = on_machine or not facts.error
    value = row.judge(facts).value if readable else ""
    looked = f"Looked at {row.setting}" if on_machine else f"Read what is in effect for {row.setting}"
    return Step(
        step_id(row),
        f"{row.setting}: {value or ('not set' if readable else 'unknown')}",
        row.sentence,
        f"{looked} on {facts.machine}, and at what it leads to.",
        "It does what the course's setting does; its spelling may differ.",
        _judge(facts, row),
        () if on_machine else ("main.cf",),
    )


def _judge(facts: Facts, row: Row) -> Callable[[Scene, Evidence], None]:
    """Return the function of a row's step."""

    def check(scene: Scene, show: Evidence) -> None:
        found = row.judge(facts)
        original = row.original or "–"
        show.table(
            "side by side", ("", "value"), [("in the course", original), ("in effect", found.value or "not set")]
        )
        if found.note:
            show.text("to know", found.note)
        if found.remedy:
            show.text(f"the remedy, on {facts.machine}", found.remedy)
        expect(not found.problem, f"{found.problem}\n→ {found.remedy}")

    return check
