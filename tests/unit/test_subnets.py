"""The subnets of a lab's networks."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

import pytest

from mailstack.errors import HostError, InputError
from mailstack.lab import claims
from mailstack.model import Network
from mailstack.network import subnets
from mailstack.network.subnets import SubnetInUse
from mailstack.state import Home, LabDirectory, State
from mailstack.target.target import LocalTarget
from tests.unit.homes import home

# /proc/net/route of a machine with a VPN that takes all of 10.0.0.0/8, and one that takes everything.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
tun1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


@pytest.fixture
def here(tmp_path: Path) -> Home:
    return home(tmp_path)


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(subnets.SETTING, raising=False)


def taken(*given: str) -> list[SubnetInUse]:
    return subnets.in_use(given, "somebody")


def test_every_subnet_of_every_range_is_a_candidate_once() -> None:
    found = list(subnets.candidates("me lab"))
    assert len(found) == len(set(found)) == 2048 + 128
    within = subnets.ranges()
    assert [next(n for n, each in enumerate(within) if net.subnet_of(each)) for net in found] == [0] * 2048 + [1] * 128


def test_labs_of_the_same_name_begin_at_other_places_for_other_owners() -> None:
    places = {next(subnets.candidates(f"owner-{number} lab")) for number in range(20)}
    assert len(places) > 15


def test_what_overlaps_with_anything_is_not_chosen() -> None:
    first, second, third = islice(subnets.candidates("key"), 3)
    smaller, larger = next(first.subnets(new_prefix=29)), second.supernet(new_prefix=26)
    chosen = subnets.choose("key", ["mail", "edge"], taken(str(smaller), str(larger), "2001:db8::/64"))
    assert len(set(chosen.values())) == 2
    for subnet in map(IPv4Network, chosen.values()):
        assert not subnet.overlaps(first) and not subnet.overlaps(larger) and subnet.prefixlen == third.prefixlen


def test_what_a_network_has_it_keeps_unless_somebody_else_has_it_now() -> None:
    had = {"mail": "10.213.7.0/27", "edge": "10.213.7.32/27", "gone": "10.213.7.64/27"}
    assert subnets.choose("key", ["mail", "edge"], [], had) == {"mail": had["mail"], "edge": had["edge"]}
    again = subnets.choose("key", ["mail", "edge"], taken("10.213.7.0/24"), had)
    assert not any(IPv4Network(each).overlaps(IPv4Network("10.213.7.0/24")) for each in again.values())


def test_the_last_free_ones_are_found_and_then_it_is_said_who_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(subnets.SETTING, "198.18.0.0/25")
    others = [
        SubnetInUse(IPv4Network("198.18.0.0/26"), "the route through eth7"),
        SubnetInUse(IPv4Network("198.18.0.0/26"), "the network others_default"),
    ]
    assert set(subnets.choose("key", ["mail", "edge"], others).values()) == {"198.18.0.64/27", "198.18.0.96/27"}
    with pytest.raises(HostError, match=r"no free subnet for a network of the lab in 198\.18\.0\.0/25") as caught:
        subnets.choose("key", ["mail", "edge", "outside"], others)
    assert caught.value.details == "198.18.0.0/26 is used by the network others_default"
    assert "mailstack down --stale" in caught.value.remedy and subnets.SETTING in caught.value.remedy


def test_no_more_is_listed_than_a_person_reads() -> None:
    others = taken("10.213.0.0/16", *(f"192.168.{third}.0/24" for third in range(240, 256)))
    with pytest.raises(HostError) as caught:
        subnets.choose("key", ["mail"], others)
    assert len(caught.value.details.splitlines()) == 9
    assert caught.value.details.endswith("\nand 9 more")


@pytest.mark.parametrize("given", ["10.0.0.0", "10.0.0.0/30", "10.0.0.1/16", "here", "10.0.0.0/16,,", "2001:db8::/32"])
def test_a_range_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(subnets.SETTING, given)
    with pytest.raises(InputError, match=subnets.SETTING):
        subnets.ranges()


def test_routes_are_networks_but_for_those_to_everywhere() -> None:
    assert [(str(each.subnet), each.by) for each in subnets.routes(ROUTES)] == [
        ("10.0.0.0/8", "the route through tun1"),
        ("192.0.2.0/24", "the route through eth0"),
    ]


def test_where_the_first_range_leads_elsewhere_the_second_serves() -> None:
    chosen = subnets.choose("key", ["mail"], subnets.routes(ROUTES))
    assert IPv4Network(chosen["mail"]).subnet_of(IPv4Network("192.168.240.0/20"))


DOCUMENT = {
    "services": {
        "postfix": {"networks": {"mail": None, "edge": {}}},
        "sender": {"networks": {"mail": {}, "away": {}, "theirs": {}, "host-like": {}}},
        "helper": {"network_mode": "none"},
    },
    "networks": {
        "mail": {"name": "mailstack-a_mail", "ipam": {}, "internal": True},
        "edge": {"name": "mailstack-a_edge", "ipam": {}},
        "away": {"name": "mailstack-a_away", "ipam": {"config": [{"subnet": "198.18.0.0/29"}]}},
        "theirs": {"name": "theirs", "ipam": {}, "external": True},
        "host-like": {"name": "mailstack-a_host-like", "ipam": {}, "driver": "macvlan"},
        "unused": {"name": "mailstack-a_unused", "ipam": {}},
    },
}
HERE = LocalTarget()
WANTED = State("a", "me@here", "never", "tag", ("lab.yaml",), {})


def test_only_networks_that_are_made_and_ask_for_nothing_get_a_subnet() -> None:
    assert subnets.networks_without_subnet(DOCUMENT) == ["mail", "edge"]


def test_a_lab_s_own_networks_are_not_in_its_way_and_everybody_else_s_are(here: Home) -> None:
    first = claims.allocate_subnets(HERE, here, WANTED, DOCUMENT, [])
    own = [Network(f"mailstack-a_{name}", {}, (subnet,)) for name, subnet in first.items()]
    assert claims.allocate_subnets(HERE, here, WANTED, DOCUMENT, own, first) == first
    others = [Network(f"other_{name}", {}, (subnet,)) for name, subnet in first.items()]
    second = claims.allocate_subnets(HERE, here, WANTED, DOCUMENT, others, first)
    assert not set(second.values()) & set(first.values())
    assert not set(
        claims.allocate_subnets(HERE, here, WANTED, DOCUMENT, [], refused=list(first.values())).values()
    ) & set(first.values())


@pytest.mark.sockets
def test_a_lab_that_is_just_coming_up_has_promised_its_subnets_and_ports_to_itself(here: Home) -> None:
    first, numbers = (
        claims.allocate_subnets(HERE, here, WANTED, DOCUMENT, []),
        claims.allocate_ports(HERE, here, "a"),
    )
    other = LabDirectory(here, "b")
    other.make()
    other.save(State("b", "me@here", "never", "tag", (), numbers, first))
    assert not set(claims.allocate_subnets(HERE, here, WANTED, DOCUMENT, []).values()) & set(first.values())
    assert not set(claims.allocate_ports(HERE, here, "a").values()) & set(numbers.values())
