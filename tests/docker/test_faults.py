"""Every known failure is caused in a lab, found in its log, and explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import pytest

from mailstack import failures
from mailstack.cli.main import cli
from tests.docker.conftest import Labs
from tests.docker.faults import Case, Stage
from tests.docker.faults.cases import CASES
from tests.docker.faults.worlds import WORLDS
from tests.journeys.__main__ import capture
from tests.journeys.scenes import SCENES


@pytest.fixture(scope="module")
def stage(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stage]]:
    """Yield a function that returns the stage of a world, created when it is first requested."""
    made: dict[str, Stage] = {}

    def of(world: str) -> Stage:
        if world not in made:
            overlay = WORLDS[world](tmp_path_factory.mktemp(world))
            bring_up = labs.up if world == "world" else labs.up_unproven  # the other one's sender cannot relay
            made[world] = Stage(bring_up(labs.new_name(f"faults-{world}"), [overlay]))
        return made[world]

    yield of
    for each in made.values():
        labs.down(each.lab.name)


def explained(*words: str) -> dict[str, dict[str, object]]:
    """Run `mailstack explain`; return its entries by id."""
    result = click.testing.CliRunner().invoke(cli, ["explain", "--json", *words])
    assert result.exit_code == 0, result.output
    return {each["id"]: each for each in json.loads(result.stdout)["failures"]}


@pytest.mark.docker
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_a_failure_that_is_caused_in_a_lab_is_logged_and_explained(
    case: Case, stage: Callable[[str], Stage], tmp_path: Path
) -> None:
    on = stage(case.lab)
    with on.scene(case.undo):
        case.act(on)
        line = on.heard(*case.says)
    found = failures.recognise(line)
    assert found is not None and found.id == case.fault, line
    assert list(explained(line)) == [case.fault]
    log = tmp_path / "mail.log"
    log.write_text(line.partition("Z ")[2] + "\n")  # as a log file has it, without the engine's time
    assert explained("--logs", str(log))[case.fault]["count"] == 1


@pytest.mark.docker
@pytest.mark.parametrize("world", WORLDS)
def test_the_failures_of_a_running_lab_are_explained(world: str, stage: Callable[[str], Stage]) -> None:
    on = stage(world)
    with on.scene():
        recipient, expected = {
            "world": ("x@refused.test", "connection-refused"),
            "neglected": ("x@full.test", "no-space"),
        }[world]
        on.send({recipient: "waiting"}, sender="out@elsewhere.test")
        on.heard("status=deferred", recipient)
    found = explained("-n", on.lab.name)
    assert expected in found
    assert found[expected]["first"] and re.match(r"(sender|postfix) \| 20", str(found[expected]["example"]))


@pytest.mark.docker
def test_a_journey_is_captured_with_what_really_became_of_the_mail(
    stage: Callable[[str], Stage], tmp_path: Path
) -> None:
    (scene,) = (each for each in SCENES if each.name == "partly")
    capture(scene, stage("world"), tmp_path)
    document = json.loads((tmp_path / "partly.json").read_text())
    (message,) = document["messages"]
    assert message["recipients"] == {"bob@example.com": "delivered", "nobody@example.com": "bounced"}
    assert message["mailboxes"] == {"bob@example.com": 1} and len(message["notices"]) == 1
    assert message["message_id"] in (tmp_path / "partly.log").read_text()
