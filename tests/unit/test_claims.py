"""Ports and subnets of a lab, where another process or the engine is in the way."""

from __future__ import annotations

import pytest

from mailstack.errors import EngineError
from mailstack.lab import claims
from mailstack.model import Network
from mailstack.state import State
from tests.unit.fake_engine import Thing
from tests.unit.fakes import FakeEngine, FakeTarget
from tests.unit.world import PROJECT, World


class Refusing(FakeEngine):
    """An engine that refuses the first subnets; like one on another machine, whose routes are unknown here."""

    def __init__(self, refusals: int) -> None:
        super().__init__(FakeTarget("box"))
        self.refusals = refusals
        self.asked: list[str] = []

    def make_network(self, name: str, labels: dict[str, str], subnet: str) -> bool:
        self.asked.append(subnet)
        if len(self.asked) <= self.refusals:
            raise EngineError("the pool overlaps")
        return True


def test_a_network_whose_subnet_is_refused_gets_another_one() -> None:
    engine = Refusing(1)
    assert claims.make_network(engine, "outside", {})
    assert len(set(engine.asked)) == 2


def test_a_network_that_is_refused_again_is_given_up() -> None:
    engine = Refusing(claims.CLAIMS)
    with pytest.raises(EngineError, match="overlaps"):
        claims.make_network(engine, "outside", {})
    assert len(engine.asked) == claims.CLAIMS


def test_a_lab_whose_definition_sets_all_subnets_claims_none(world: World) -> None:
    document = {"networks": {"mail": {"name": "x_mail", "ipam": {"config": [{"subnet": "10.1.2.0/27"}]}}}}
    networks = [Network("other", {}, ("10.1.2.0/27",))]
    lab = State("mine", "me", "never", "tag", (), {})
    assert claims.allocate_subnets(world.tools.target, world.home, lab, document, networks) == {}


@pytest.mark.parametrize(
    "volume", [{"name": "a"}, {"name": "a", "labels": {"mailstack.owner": "me"}, "driver_opts": {"type": "nfs"}}]
)
def test_a_lab_without_a_labelled_local_volume_claims_no_name(volume: dict[str, object]) -> None:
    assert claims.name_volume("x", {"volumes": {"a": volume}}) is None
    assert claims.name_volume("x", {}) is None


@pytest.mark.sockets
def test_a_network_that_the_engine_makes_a_moment_later_is_not_lost(standing: World) -> None:
    lab = standing.directory.load()
    assert lab
    document = standing.compose.document(
        PROJECT, {"MAILSTACK_LAB": "mine", "MAILSTACK_OWNER": "", "MAILSTACK_EXPIRES": "", "MAILSTACK_TAG": ""}
    )
    networks, standing.api.networks_ = standing.api.networks_, {}
    late = {f"{PROJECT}_edge": Thing(networks[f"{PROJECT}_edge"].labels)}
    standing.api.before["networks"] = lambda: standing.api.before.update(
        networks=lambda: standing.api.networks_.update(late)
    )
    assert claims.lost_subnets(standing.tools.engine, lab, document) == [lab.subnets["mail"]]
