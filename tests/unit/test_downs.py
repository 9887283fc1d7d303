"""Complete `down` runs on an engine in memory: what they remove, and what they leave to other owners."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailstack.errors import EngineError, InputError, Interrupted
from mailstack.lab import down, up
from mailstack.lab.up import Request
from tests.unit.fake_engine import Thing
from tests.unit.world import NAME, PROJECT, WHOLE, World

pytestmark = pytest.mark.sockets  # free ports are looked for


def remove(world: World) -> bool:
    return down.down(world.tools.engine, NAME, world.said.append, using=world.tools)


def plan(world: World) -> list[tuple[str, set[str]]]:
    rows = down.dry_run(world.tools.engine, NAME, world.said.append, world.tools).rows()
    return [(row.step, set(row.concerns)) for row in rows]


def test_down_removes_everything_and_asks_compose_once(standing: World) -> None:
    assert remove(standing)
    assert (standing.api.all(), standing.home.path.exists(), standing.verbs()) == (set(), False, ["down"])
    assert standing.said == [f"removing lab “{NAME}”"]
    assert not remove(standing)


def test_the_plan_of_a_down_names_all_that_goes_and_removes_nothing(standing: World) -> None:
    ((first, things), (last, places)) = plan(standing)
    assert (first, last, places) == ("compose down", "remove directory", {str(standing.directory.path)})
    assert {thing.split(" ")[1] for thing in things} == WHOLE
    assert (standing.api.all(), standing.verbs()) == (WHOLE, [])
    assert standing.directory.load()


def test_the_plan_for_a_lab_that_is_not_there_is_empty(world: World) -> None:
    assert plan(world) == []
    assert not remove(world)


def test_what_is_not_composes_is_removed_by_its_labels(standing: World) -> None:
    labels = {"mailstack.lab": NAME, "mailstack.owner": "me"}
    standing.api.containers_[f"{PROJECT}-outside"] = Thing(labels)
    assert ("remove", {f"container {PROJECT}-outside"}) in plan(standing)
    assert remove(standing) and standing.api.all() == set()


def test_a_lab_without_a_directory_is_found_by_its_labels(standing: World) -> None:
    standing.directory.remove()
    assert [step for step, _ in plan(standing)] == ["compose down"]
    assert down.remove_all(standing.tools.engine, standing.said.append, standing.tools) == [NAME]
    assert standing.api.all() == set()


def test_another_owners_lab_stays_but_an_own_directory_of_its_name_goes(standing: World) -> None:
    for things in (standing.api.containers_, standing.api.networks_, standing.api.volumes_):
        for each in things.values():
            each.labels["mailstack.owner"] = "somebody"
    for attempt in (plan, remove):
        with pytest.raises(InputError, match=f"the lab “{NAME}” on this engine belongs to somebody"):
            attempt(standing)
    assert standing.api.all() == WHOLE and not standing.directory.path.exists()
    assert down.remove_all(standing.tools.engine, standing.said.append, standing.tools) == []


def test_of_a_lab_that_two_owners_have_parts_of_compose_is_not_asked_and_only_ones_own_goes(standing: World) -> None:
    standing.api.volumes_[f"{PROJECT}_other"] = Thing({"mailstack.lab": NAME, "mailstack.owner": "somebody"})
    assert [step for step, _ in plan(standing)] == ["remove", "remove directory"]
    assert remove(standing)
    assert (standing.api.all(), standing.verbs()) == ({f"{PROJECT}_other"}, [])


def test_an_engine_that_goes_while_a_lab_is_removed_leaves_no_secret(standing: World) -> None:
    def gone() -> None:
        standing.api.gone = True

    standing.on["down"] = gone
    with pytest.raises(EngineError):
        remove(standing)
    assert not standing.directory.files.exists()
    record = standing.directory.load()
    assert record and not record.stays  # so that the guard, `--stale` and the next `down` go on
    standing.api.gone = False
    assert down.remove_stale(standing.tools.engine, standing.said.append, standing.tools) == [NAME]
    assert (standing.api.all(), standing.home.path.exists()) == (set(), False)


def test_a_down_that_is_interrupted_is_finished_and_says_so(standing: World) -> None:
    def interrupted() -> None:
        standing.on.clear()
        raise Interrupted("interrupted")

    standing.on["down"] = interrupted
    with pytest.raises(Interrupted):
        remove(standing)
    assert (standing.api.all(), standing.home.path.exists()) == (set(), False)
    assert standing.said[-1] == "finishing the removal"


def test_a_lab_whose_files_are_gone_is_stale(standing: World) -> None:
    standing.directory.remove()
    assert down.remove_stale(standing.tools.engine, standing.said.append, standing.tools) == [NAME]
    assert standing.api.all() == set()


def test_without_an_engine_nothing_is_removed(standing: World) -> None:
    standing.api.gone = True
    with pytest.raises(EngineError):
        remove(standing)
    assert standing.directory.load()


def test_stale_labs_are_those_that_were_left(standing: World) -> None:
    assert down.remove_stale(standing.tools.engine, standing.said.append, standing.tools) == []
    found = standing.directory.load()
    assert found
    standing.directory.save(replace(found, stays=False))
    (left,) = down.dry_run_several(standing.tools.engine, standing.said.append, stale=True, using=standing.tools)
    assert (left.lab, left.why, standing.api.all()) == (NAME, "its `up` or `down` was killed", WHOLE)
    assert down.remove_stale(standing.tools.engine, standing.said.append, standing.tools) == [NAME]
    assert standing.api.all() == set()


def test_a_lab_whose_time_has_passed_is_stale(world: World) -> None:
    up.up(world.tools.engine, Request(NAME, ttl=-1), world.said.append, world.tools)
    assert down.remove_stale(world.tools.engine, world.said.append, world.tools) == [NAME]
