"""The guard of a lab, on an engine in memory: when it removes the lab, and when it does not."""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from mailstack.errors import EngineError, HostError
from mailstack.lab import guard, tools
from mailstack.lab.guard import EngineAccess
from mailstack.lab.leases import Leases
from mailstack.target.target import Target
from tests.unit.fake_engine import engine
from tests.unit.world import NAME, WHOLE, World

pytestmark = pytest.mark.sockets  # free ports are looked for


@pytest.fixture
def guarded(standing: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world with a running lab, whose engine and tools a guard uses."""
    monkeypatch.setattr(guard, "Engine", lambda target: engine(standing.api))
    monkeypatch.setattr(guard, "choose", lambda environment, host: standing.tools.target)
    monkeypatch.setattr(tools, "of", lambda engine, progress: standing.tools)
    monkeypatch.setattr(guard, "_PAUSE", 0.001)
    return standing


def change(world: World, *, stays: bool = True, expires: str = "never") -> None:
    found = world.directory.load()
    assert found
    world.directory.save(replace(found, stays=stays, expires=expires))


def way(world: World, *happens: Callable[[], None], far: bool = False) -> EngineAccess:
    """Return a way to the engine; `happens` are called before each connection, one after the other."""
    left = list(happens)

    def connect() -> Target:
        if left:
            left.pop(0)()
        return world.tools.target

    return EngineAccess(connect, far)


def up_ends(world: World, *happens: Callable[[], None], far: bool = False) -> None:
    guard.after_up(way(world, *happens, far=far), world.home, NAME)


def gone(world: World, is_gone: bool) -> Callable[[], None]:
    return lambda: setattr(world.api, "gone", is_gone)


def test_a_lab_that_did_not_come_up_is_removed(guarded: World) -> None:
    change(guarded, stays=False)
    up_ends(guarded)
    assert (guarded.api.all(), guarded.home.path.exists()) == (set(), False)


def test_a_directory_that_was_made_before_there_was_a_lock_is_removed(guarded: World) -> None:
    guarded.directory.remove()
    for things in (guarded.api.containers_, guarded.api.networks_, guarded.api.volumes_):
        things.clear()
    guarded.directory.make()
    leases = Leases(guarded.home, NAME)
    leases.acquire()
    leases._close()
    guard.after_leases(way(guarded), guarded.home, NAME)
    assert not guarded.home.path.exists()


def test_a_lab_without_an_expiry_stays(guarded: World) -> None:
    up_ends(guarded)
    assert guarded.api.all() == WHOLE and guarded.directory.load()


def test_a_lab_is_removed_when_it_expires_and_the_guard_wakes_up_for_it(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = int(time.time()) + 1000
    change(guarded, expires=str(moment))
    waited: list[float] = []

    def wait(signals: object, seconds: float) -> None:
        waited.append(seconds)
        monkeypatch.setattr(time, "time", lambda: float(moment))

    monkeypatch.setattr(signal, "sigtimedwait", wait)
    up_ends(guarded)
    assert (guarded.api.all(), len(waited)) == (set(), 1) and 990 < waited[0] <= 1000


def test_without_reports_of_the_kernel_the_guard_looks_itself_whether_its_lab_is_gone(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(guarded, expires=str(int(time.time()) + 1000))
    monkeypatch.setattr(fcntl, "F_NOTIFY", 12345)
    monkeypatch.setattr(signal, "sigtimedwait", lambda signals, seconds: change(guarded, expires=f"{seconds:.0f}"))
    up_ends(guarded)
    found = guarded.directory.load()
    assert found and found.expires == "2" and guarded.api.all() == WHOLE


def test_an_engine_that_does_not_answer_for_a_while_is_waited_for(guarded: World) -> None:
    change(guarded, stays=False)
    up_ends(guarded, gone(guarded, True), gone(guarded, True), gone(guarded, False))
    assert guarded.api.all() == set()


def test_an_engine_that_does_not_answer_for_too_long_is_given_up(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_RETRY_SECONDS", 0.0)
    with pytest.raises(EngineError, match="no Docker engine answers"):
        up_ends(guarded, gone(guarded, True))


def test_an_error_of_this_machine_is_no_reason_to_wait(guarded: World) -> None:
    def fails() -> None:
        raise HostError("no tmpfs")

    with pytest.raises(HostError, match="tmpfs"):
        up_ends(guarded, fails)


def test_an_engine_that_replaced_the_labs_is_left_alone(guarded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    change(guarded, stays=False)
    monkeypatch.setattr(guarded.api, "info", lambda: {"ID": "ANOTHER", "DockerRootDir": "/"})
    up_ends(guarded)
    assert guarded.api.all() == WHOLE and guarded.directory.load()


def test_the_guard_of_a_lab_on_another_machine_ends_with_the_last_lab_there(guarded: World) -> None:
    guarded.directory.remove()
    with pytest.raises(SystemExit):
        up_ends(guarded, far=True)
    assert guarded.api.all() == WHOLE


def test_a_lab_without_a_lock_is_removed_only_where_the_engine_still_has_a_part_of_it(guarded: World) -> None:
    guarded.directory.remove()
    up_ends(guarded)
    assert guarded.api.all() == set()
    guarded.runner.commands.clear()
    up_ends(guarded)
    assert guarded.verbs() == []


def test_the_lab_goes_with_its_last_lease(guarded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    leases = Leases(guarded.home, NAME)
    leases.acquire()
    leases._close()  # as the kernel does at the end of a killed process
    try:
        guard.main("users", NAME, guarded.home.endpoint, guarded.home.engine)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (guarded.api.all(), leases.path.exists()) == (set(), False)
