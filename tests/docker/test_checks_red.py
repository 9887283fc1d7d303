"""Every check fails on a lab that is broken in the way that it tests, by its own judgement.

A breakage removes a protection or adds a fault. It names the checks that it must fail, and the expected evidence of
each. Breakages that do not hide each other share a lab, and on each lab other checks still pass: the lab is not just
down. A check that no breakage fails makes the last test but one fail.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from mailstack import checks
from mailstack.checks.bench import Bench
from mailstack.engine import projects
from mailstack.model import Verdict
from tests.docker.conftest import Labs
from tests.docker.red import Case, overlay
from tests.docker.red.cases import CASES

# The sender's mail does not pass its relay host in these labs.
UNPROVEN = {"any-password", "tls"}


@pytest.mark.docker
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_lab_turns_the_checks_of_what_is_broken_red(
    case: Case, labs: Labs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(name: str) -> None:
        for broken in case.breakages:
            if broken.before:
                broken.before(name)
        file.write_text(overlay(case, name))

    file = tmp_path / "broken.yaml"
    with labs.one(f"red-{case.name}", [file], prepare, proven=case.name not in UNPROVEN) as lab:
        for broken in case.breakages:
            if broken.after:
                broken.after(lab, monkeypatch)
        red = {
            id: (broken.what, says.replace("PROJECT", projects.project_name(lab.name)).replace("LAB", lab.name))
            for broken in case.breakages
            for id, says in broken.red.items()
        }
        with Bench(lab) as bench:
            results = checks.run(bench, checks.select([*red, *case.green]), lambda result: None)
    wrong = []
    for result in results:
        if result.id not in red:
            if result.verdict is not Verdict.PASS:
                wrong.append(f"{result.id} should pass: {result.verdict}, {result.evidence}")
            continue
        what, says = red[result.id]
        if result.verdict is not Verdict.FAIL or not re.search(says, result.evidence):
            wrong.append(f"{what}: {result.id} should fail with /{says}/: {result.verdict}, {result.evidence}")
    assert not wrong, "\n".join(wrong)


def test_every_check_has_a_breakage_that_turns_it_red() -> None:
    red = {id for case in CASES for broken in case.breakages for id in broken.red}
    assert red == {check.id for check in checks.all_checks()}


def test_every_broken_lab_has_checks_that_still_pass_and_none_that_two_breakages_turn_red() -> None:
    for case in CASES:
        red = Counter(id for broken in case.breakages for id in broken.red)
        assert case.green, case.name
        assert not set(red) & set(case.green), case.name
        assert set(red.values()) == {1}, (case.name, red.most_common(1))
