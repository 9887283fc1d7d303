"""The second lab of the experiment, and the network between the two labs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailstack.checks.judging import Unmet
from mailstack.errors import CheckFailed
from mailstack.experiment.second import SecondLab
from mailstack.lab.request import Request
from mailstack.lab.running import RunningLab
from tests.unit.fake_engine import Thing
from tests.unit.world import NAME, World

pytestmark = pytest.mark.sockets


def test_a_network_that_is_made_while_the_experiment_is_interrupted_is_removed(standing: World) -> None:
    second = SecondLab(RunningLab(NAME, standing.tools.engine))
    begun, interrupted = threading.Event(), threading.Event()

    def connect() -> None:
        begun.set()
        assert interrupted.wait(5)
        standing.api.networks_[second.network] = Thing({})
        raise CheckFailed("the provider of the first lab is not there any more")

    with ThreadPoolExecutor(2) as pool:
        coming = pool.submit(second.bring_up, Request(second.name), connect)
        assert begun.wait(5)
        going = pool.submit(second.remove)
        interrupted.set()
        going.result()
    assert isinstance(coming.exception(), CheckFailed)
    assert second.network not in standing.api.networks_
    with pytest.raises(Unmet, match="interrupted"):
        second.bring_up(Request(second.name), connect)
