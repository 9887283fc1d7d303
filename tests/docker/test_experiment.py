"""The experiment, performed: every row of it is a step, and nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docker.bad import Traces, alone, run

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """An owner and a runtime directory of this module's own."""
    with alone("experiment") as found:
        yield found


@pytest.fixture(scope="module")
def document(traces: Traces) -> Any:
    """What the experiment found, on the lab as it is."""
    outcome = run(["experiment", "--json"])
    assert outcome.code == 0, outcome
    assert traces.all() == set()
    return json.loads(outcome.out)


def test_every_step_passes_and_says_by_what(document: Any) -> None:
    assert (document["verdict"], document["failed"], document["passed"]) == ("pass", 0, len(document["steps"]))
    assert [step["id"] for step in document["steps"] if not step["evidence"]] == []
