"""Valid addresses, domains and hosts, and valid addresses of a lab."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.text.addresses import address_flaw, domain_flaw, is_address, is_domain, is_host

LETTERS = string.ascii_lowercase + string.digits
labels = some.text(LETTERS, min_size=1, max_size=63)
domains = (
    some.lists(labels, min_size=2, max_size=4)
    .map(".".join)
    .filter(lambda name: len(name) <= 253 and not name.rpartition(".")[2].isdecimal())
)
atoms = some.text(LETTERS + "!#$%&'*/=?^_`{|}~-", min_size=1, max_size=20)
locals_ = some.lists(atoms, min_size=1, max_size=3).map(".".join)


@given(local=locals_, domain=domains)
def test_an_address_is_what_rfc_5321_has_as_a_dot_string(local: str, domain: str) -> None:
    assert is_address(f"{local}@{domain}")
    assert is_address(f"{local[:50].rstrip('.')}+more@{domain}".upper())  # 64 characters at most


@given(
    local=locals_,
    domain=domains,
    wrong=some.sampled_from(
        [" ", "\n", "\t", "\0", ",", ";", ":", "<", ">", "(", ")", "[", "]", '"', "\\", "@", "..", "ä"]
    ),
    place=some.floats(0, 1),
)
def test_what_has_a_wrong_character_is_no_address(local: str, domain: str, wrong: str, place: float) -> None:
    whole = f"{local}@{domain}"
    at = round(place * len(whole))
    assert not is_address(whole[:at] + wrong + whole[at:])


@given(some.text())
def test_a_domain_is_asked_for_without_surprises(text: str) -> None:
    assert not is_domain(text) or set(text) <= set(LETTERS + ".-")
    assert is_address(f"x@{text}") == (text.isascii() and is_domain(text.lower()))


@pytest.mark.parametrize("name", ["a", "a.b", "1a", "A.B-C", "192.0.2.1", "0.0.0.0", "xn--grn-joa.test"])
def test_a_host_is_a_name_or_an_address(name: str) -> None:
    assert is_host(name)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "ä", "a b", "300.1.1.1", "1", "1.2.3", "::1", "a" * 64]
)
def test_a_host_is_nothing_else(name: str) -> None:
    assert not is_host(name)


SPECIAL = "!#$%&'*+-/=?^_`{|}~"  # RFC 5322, section 3.2.3


def test_each_special_character_is_allowed_or_refused_by_its_place() -> None:
    """Decided by trying: tests/docker/test_addresses.py."""
    places = {"first": "{}x", "within": "x{}x", "last": "x{}"}
    refused = {
        place: {c for c in SPECIAL if address_flaw(f"{form.replace('{}', c)}@a.test")} for place, form in places.items()
    }
    assert refused == {"first": set("!%+/{#-|"), "within": set("!%+/{"), "last": set("!%+/{")}


@given(local=locals_, domain=domains)
def test_what_can_be_an_address_of_a_lab_is_an_address_and_the_name_of_a_file(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    if not address_flaw(address):
        assert is_address(address)
        assert not set(address) & set('/:\\\0\n"+%!{')
        assert len(address) <= 254 and address[0] not in ".-#|"


@given(some.text())
def test_whatever_an_address_is_it_is_judged(text: str) -> None:
    assert not address_flaw(f"{text}@a.test") or isinstance(address_flaw(text), str)
    assert not domain_flaw(f"{text}.test") or f"{text}.test" != "a.test"


@pytest.mark.parametrize("address", ["", "@", "a", "a@", "@a.test", "a@b", "a@a.test ", "a@a.test\n", "a@[192.0.2.1]"])
def test_what_is_no_address_at_all_is_none_of_a_lab_s(address: str) -> None:
    assert address_flaw(address)


@pytest.mark.parametrize("local", ["o'brien", "l" * 64, "a.b-c_d", "$x", "`x`", "*", "a=b", "x#", "~x", "^", "X"])
def test_names_that_people_have_are_allowed(local: str) -> None:
    assert not address_flaw(f"{local}@example.com")
