"""The `x-mailstack` block: its keys, their meaning, and the position of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.definition.schema import BLOCK, InvalidDefinition, parse, port_number
from mailstack.model import Account, Alias, Domain, Lab, Relay

LEAST: dict[str, Any] = {"domains": {"a.test": None}, "accounts": {"x@a.test": None}}


def lab(**more: Any) -> Lab:
    """Return the Lab of the smallest possible block plus the given keys."""
    return parse({BLOCK: {**LEAST, **more}})


def misfit(**more: Any) -> tuple[str, str]:
    """Return the keys at which the block is invalid, and why."""
    with pytest.raises(InvalidDefinition) as caught:
        lab(**more)
    assert caught.value.keys[0] == BLOCK
    return ".".join(map(str, caught.value.keys[1:])), caught.value.message


# ── what it means ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_least_block_is_a_domain_and_an_account() -> None:
    found = lab()
    assert (found.mailname, found.domains, found.accounts) == ("a.test", (Domain("a.test"),), (Account("x@a.test"),))
    assert (found.aliases, found.relay) == ((), None)


def test_a_whole_block_says_what_stands_in_it() -> None:
    found = lab(
        mailname="B.test",
        domains={"a.test": {"catch_all": "All@a.test"}, "b.test": {}},
        accounts={"X@a.test": {"quota": "5M"}, "y@b.test": {}},
        aliases={"all@a.test": ["X@A.test", "more@b.test"], "more@b.test": "y@b.test"},
        limits={"message_size": "1M", "mailbox_quota": "2G"},
        relay={"host": "smtp.example.net", "port": "465"},
        settings={"postfix": {"soft_bounce": True, "smtp/inet/smtpd_tls_wrappermode": False}, "dovecot": "a = b\n"},
    )
    assert found.mailname == "b.test"
    assert found.domains == (Domain("a.test", "all@a.test"), Domain("b.test"))
    assert found.accounts == (Account("x@a.test", 5 * 1024**2), Account("y@b.test"))
    assert found.aliases == (Alias("all@a.test", ("x@a.test", "more@b.test")), Alias("more@b.test", ("y@b.test",)))
    assert (found.limits.message_size, found.limits.mailbox_quota) == (1024**2, 2 * 1024**3)
    assert found.relay == Relay("smtp.example.net", 465)
    assert dict(found.settings.postfix) == {"soft_bounce": "yes", "smtp/inet/smtpd_tls_wrappermode": "no"}
    assert found.settings.dovecot == "a = b\n"


def test_the_mail_name_is_the_first_domain_unless_it_is_given() -> None:
    assert lab(domains={"a.test": {}, "b.test": {}}).mailname == "a.test"


def test_the_relay_s_port_is_that_of_submission_unless_it_is_given() -> None:
    assert lab(relay={"host": "smtp.example.net"}).relay == Relay("smtp.example.net", 587)


# ── where it is wrong ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_document_without_the_block_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="has no `x-mailstack` block") as caught:
        parse({"services": {}})
    assert caught.value.keys == ()


@pytest.mark.parametrize(
    ("more", "place", "says"),
    [
        ({"colour": "red"}, "colour", "is not allowed here; allowed are mailname, domains"),
        ({"domains": None}, "domains", "needs at least one domain"),
        ({"accounts": {}}, "accounts", "needs at least one account"),
        ({"domains": ["a.test"]}, "domains", "should be a mapping, not a list"),
        ({"accounts": {"x@a.test": {"quota": None}}}, "accounts.x@a.test.quota", "should be a size"),
        ({"accounts": {"x@a.test": {"quota": 2.5}}}, "accounts.x@a.test.quota", "not 2.5"),
        ({"accounts": {"x@b.test": {}}}, "accounts.x@b.test", "b.test is not one of the lab's domains (a.test)"),
        ({"domains": {"a.test": {"catch_all": "y@a.test"}}}, "domains.a.test.catch_all", "neither an account nor"),
        ({"domains": {"a.test": {"catch_all": 0}}}, "domains.a.test.catch_all", "should be an address"),
        ({"aliases": {"all@a.test": None}}, "aliases.all@a.test", "should be a list of addresses, not nothing"),
        ({"aliases": {"all@a.test": ["x@a.test", 5]}}, "aliases.all@a.test.1", "should be an address"),
        ({"aliases": {"all@a.test": ["x@a.test", "y@a.test"]}}, "aliases.all@a.test.1", "y@a.test is neither"),
        ({"limits": {"message_size": "2M", "mailbox_quota": "1M"}}, "limits", "larger than mailbox_quota"),
        ({"relay": {}}, "relay.host", "should be the name or the IPv4 address"),
        ({"relay": {"host": "a.test", "port": True}}, "relay.port", "not True"),
        ({"settings": {"postfix": {"Soft Bounce": "yes"}}}, "settings.postfix.Soft Bounce", "a Postfix setting"),
        ({"settings": {"sender": {"a": "b\nc = d"}}}, "settings.sender.a", "one line of text, not several"),
        ({"settings": {"sender": {"a": "b\rc = d"}}}, "settings.sender.a", "one line of text, not several"),
        ({"settings": {"dovecot": ["a = b"]}}, "settings.dovecot", "Dovecot's configuration language, not a list"),
    ],
)
def test_what_does_not_fit_is_told_with_its_keys(more: dict[str, Any], place: str, says: str) -> None:
    found, message = misfit(**more)
    assert found == place
    assert says in message


@pytest.mark.parametrize("section", ["domains", "accounts", "aliases", "limits", "relay", "settings"])
@pytest.mark.parametrize("value", ["text", 5, True, ["list"]], ids=str)
def test_a_section_that_is_no_mapping_is_told(section: str, value: Any) -> None:
    place, message = misfit(**{section: value})
    assert place == section
    assert message.startswith("should be a mapping, not ")


def test_a_name_that_is_there_twice_but_for_its_case_is_told_at_the_second() -> None:
    assert misfit(domains={"a.test": {}, "A.test": {}})[0] == "domains.A.test"
    assert misfit(accounts={"x@a.test": {}, "X@a.test": {}})[0] == "accounts.X@a.test"
    assert misfit(aliases={"y@a.test": "x@a.test", "Y@a.test": "x@a.test"})[0] == "aliases.Y@a.test"


def test_an_alias_with_the_name_of_an_account_is_told() -> None:
    assert misfit(aliases={"X@a.test": ["x@a.test"]}) == ("aliases.X@a.test", "x@a.test is an account already")


def test_aliases_that_lead_back_are_told_with_the_way() -> None:
    circle = {"1@a.test": ["x@a.test", "2@a.test"], "2@a.test": ["3@a.test"], "3@a.test": ["1@a.test"]}
    place, message = misfit(aliases={"0@a.test": ["1@a.test"], **circle})
    assert place == "aliases.1@a.test"
    assert message == "leads back to itself: 1@a.test → 2@a.test → 3@a.test → 1@a.test"


def test_aliases_that_meet_again_without_leading_back_are_fine() -> None:
    both = {
        "1@a.test": ["2@a.test", "3@a.test"],
        "2@a.test": "4@a.test",
        "3@a.test": "4@a.test",
        "4@a.test": "x@a.test",
    }
    assert len(lab(aliases=both).aliases) == 4


def test_a_value_is_shown_up_to_60_characters() -> None:
    assert len(misfit(mailname="x" * 5000)[1]) < 120


# ── addresses, sizes and ports ─────────────────────────────────────────────────────────────────────────────────────

# Where an address stands in the block, and the keys of that place.
PLACES: dict[str, tuple[Callable[[str], dict[str, Any]], Callable[[str], str]]] = {
    "account": (lambda address: {"accounts": {address: {}}}, lambda address: f"accounts.{address}"),
    "alias": (lambda address: {"aliases": {address: ["x@a.test"]}}, lambda address: f"aliases.{address}"),
    "target": (lambda address: {"aliases": {"y@a.test": ["x@a.test", address]}}, lambda _: "aliases.y@a.test.1"),
    "catch-all": (
        lambda address: {"domains": {"a.test": {"catch_all": address}}},
        lambda _: "domains.a.test.catch_all",
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("local", "says"),
    [
        *[(f"x{c}y", f"cannot have {c} in it") for c in "!%+/{"],
        *[(f"{c}x", f"cannot begin with {c}") for c in "#-|"],
        *[(local, "should be an address like alice@example.com") for local in ("a:b", "..", ".a", "a.", "a b", "a\nb")],
        ("l" * 65, "has 65 characters before the @; 64 are allowed"),
        ("gr\xfcn", "has non-ASCII characters before the @"),
        ("\u212a", "has non-ASCII characters before the @"),
        ('"a b"', "has a quoted local part"),
    ],
)
def test_an_address_that_a_server_would_not_take_is_told_wherever_it_stands(place: str, local: str, says: str) -> None:
    more, keys = PLACES[place]
    found, message = misfit(**more(f"{local}@a.test"))
    assert found == keys(f"{local}@a.test")
    assert says in message


@pytest.mark.parametrize("key", ["domains", "mailname"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        *[
            (name, "should be a domain like")
            for name in ("a", "a.", ".a.test", "a..test", "-a.test", "a-.test", "a_.test")
        ],
        *[
            (name, "should be a domain like")
            for name in ("192.0.2.1", "a.1", "a b.test", "a/b.test", "a.test\n", "[a.test]")
        ],
        *[(name, "should be a domain like") for name in (f"{'a' * 64}.test", "*.test", "a.test:25", "a@b.test")],
        ("b\xfccher.test", "write it as xn--bcher-kva.test"),
        (".".join(["a" * 63] * 3), "has 191 characters; 189 are allowed"),
    ],
)
def test_a_domain_that_a_server_would_not_take_is_told(key: str, name: str, says: str) -> None:
    more = {"domains": {**LEAST["domains"], name: {}}} if key == "domains" else {"mailname": name}
    place, message = misfit(**more)
    assert place == (f"domains.{name}" if key == "domains" else "mailname")
    assert says in message


UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@given(number=some.integers(1, 1024), unit=some.sampled_from("KMG"), rest=some.sampled_from(["", "B", "iB"]))
def test_a_size_is_a_number_of_its_units_in_either_case(number: int, unit: str, rest: str) -> None:
    for text in (f"{number}{unit}{rest}", f" {number} {unit}{rest} ".lower()):
        found = lab(accounts={"x@a.test": {"quota": text}}).accounts[0].quota
        assert found == number * UNITS[unit]


@given(some.integers())
def test_a_size_in_bytes_is_from_1k_to_1024g(size: int) -> None:
    accounts = {"x@a.test": {"quota": size}}
    if 1024 <= size <= 1024**4:
        assert lab(accounts=accounts).accounts[0].quota == size
    else:
        assert misfit(accounts=accounts)[0] == "accounts.x@a.test.quota"


@given(some.one_of(some.text(), some.integers(), some.floats(), some.booleans(), some.lists(some.text())))
def test_whatever_a_size_is_it_is_taken_or_told(value: Any) -> None:
    try:
        assert lab(limits={"mailbox_quota": value, "message_size": "1K"}).limits.mailbox_quota >= 1024
    except InvalidDefinition as error:
        assert error.keys == (BLOCK, "limits", "mailbox_quota")


@given(some.integers())
def test_a_port_is_from_1_to_65535(number: int) -> None:
    assert port_number(str(number)) == (number if 0 < number < 65536 else None)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+1", "1.0", " 1", "1 ", "٣", "²", "0x19", "9" * 5000])
def test_a_port_is_written_in_digits_alone(text: str) -> None:
    assert port_number(text) is None
