"""Positions in compose files, and the meaning of Compose's messages about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mailstack.definition.locate import broken_yaml, explain_compose, explain_invalid, locate
from mailstack.definition.schema import InvalidDefinition

BASE = """\
x-mailstack:
  accounts:
    alice@example.com: {}
  aliases:
    team@example.com: [alice@example.com]
services:
  postfix: &common
    ports:
      - 25:25
  dovecot:
    <<: *common
    secrets: [one]
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return the file under the overlay."""
    path = tmp_path / "lab.yaml"
    path.write_text(BASE)
    return path


def overlay(base: Path, text: str | bytes) -> Path:
    """Create an overlay next to it."""
    path = base.with_name("overlay.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def place(text: str) -> str:
    """Return `FILE:line:col` without the directory."""
    return text.rpartition("/")[2]


def test_a_key_is_found_where_it_stands(base: Path) -> None:
    assert place(locate(("x-mailstack", "accounts", "alice@example.com"), [base])) == "lab.yaml:3:5"


def test_of_keys_that_are_not_all_there_the_deepest_is_found(base: Path) -> None:
    assert place(locate(("x-mailstack", "accounts", "bob@example.com", "quota"), [base])) == "lab.yaml:2:3"
    assert place(locate(("nowhere",), [base])) == "lab.yaml:1:1"


def test_the_last_file_that_has_most_of_the_keys_is_named(base: Path) -> None:
    first = overlay(base, "x-mailstack:\n  accounts: {}\n")
    assert place(locate(("x-mailstack", "accounts"), [base, first])) == "overlay.yaml:2:3"
    assert place(locate(("x-mailstack", "accounts", "alice@example.com"), [base, first])) == "lab.yaml:3:5"


def test_an_item_of_a_list_is_counted_over_the_files_that_add_to_it(base: Path) -> None:
    more = overlay(base, "x-mailstack:\n  aliases:\n    team@example.com: [x@example.com, y@example.com]\n")
    keys = ("x-mailstack", "aliases", "team@example.com")
    assert place(locate((*keys, 0), [base, more])) == "lab.yaml:5:24"
    assert place(locate((*keys, 2), [base, more])) == "overlay.yaml:3:39"


def test_a_key_that_was_merged_in_is_found_where_it_was_written(base: Path) -> None:
    assert place(locate(("services", "dovecot", "ports"), [base])) == "lab.yaml:8:5"


def test_a_misfit_is_told_with_its_place_and_its_keys(base: Path) -> None:
    error = explain_invalid(InvalidDefinition(("x-mailstack", "accounts", "alice@example.com"), "is wrong"), [base])
    assert place(error.message) == "lab.yaml:3:5: x-mailstack.accounts.alice@example.com: is wrong"


@pytest.mark.parametrize(
    ("text", "said", "told"),
    [
        (
            "services:\n  postfix:\n    imagee: x\n",
            "validating /x/overlay.yaml: services.postfix additional properties 'imagee' not allowed",
            "3:5: services.postfix additional properties 'imagee' not allowed",
        ),
        (
            "services:\n  postfix:\n    networks: [nowhere]\n",
            'service "postfix" refers to undefined network nowhere: invalid compose project',
            '3:16: service "postfix" refers to undefined network nowhere',
        ),
        (
            "services:\n  postfix:\n    ports:\n      - target: smtp\n",
            (
                "error while interpolating services.postfix.ports.[].target: failed to cast to expected type: "
                'strconv.Atoi: parsing "smtp": invalid syntax'
            ),
            '4:9: services.postfix.ports.[].target: "smtp" is not a number',
        ),
        (
            "x-mailstack:\n  accounts:\n    dora@example.com: 5\n",
            "cannot override x-mailstack.accounts.dora@example.com",
            "3:5: x-mailstack.accounts.dora@example.com should be of the kind that the lab's own file has there",
        ),
        (
            "services:\n  postfix:\n    mem_limit: lots\n",
            "decoding failed due to the following error(s):\n\n'services[postfix].mem_limit' invalid size: 'lots'",
            "3:5: 'services.postfix.mem_limit' invalid size: 'lots'",
        ),
        (
            "services:\n  postfix:\n    env_file: no.env\n",
            "env file /x/no.env not found: stat /x/no.env: no such file or directory",
            "3:15: env file /x/no.env not found: stat /x/no.env: no such file or directory",
        ),
        (
            "services:\n  postfix:\n    depends_on: [postfix]\n",
            (
                'time="2026-01-01T00:00:00Z" level=warning msg="the \\"version\\" is obsolete"\n'
                "dependency cycle detected: postfix -> postfix"
            ),
            "3:5: dependency cycle detected: postfix -> postfix",
        ),
        ("services: {}\n", "", "1:1: Compose does not accept it"),
        ("services: {}\n", "something that no one has heard of", "1:1: something that no one has heard of"),
    ],
)
def test_what_compose_says_is_told_with_its_place(base: Path, text: str, said: str, told: str) -> None:
    assert place(explain_compose(said, [base, overlay(base, text)]).message.replace("/x/", "…")) == (
        f"overlay.yaml:{told.replace('/x/', '…')}"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2\n", "2:1: a is here twice; it is in line 1 already"),
        ("a: [1\n", "1:4: not valid YAML: what starts here is never closed"),
        ("a:\n\tb: 1\n", "2:1: not valid YAML: tabs are not allowed here: indent with spaces"),
        ("- a\n", "1:1: should be a mapping, as in compose files"),
        ("a: &x {b: *x}\n", "1:4: an alias here contains itself"),
        ("a: {<<: 5}\n", "1:9: the value of << must be a mapping"),
        (b"a: b\0\n", "1:5: not valid YAML: the character U+0000 is not allowed in it"),
        (b"a: 1\nb: \xff\n", "2:4: not valid YAML: not text in UTF-8"),
        (b"\xef\xbb\xbfa: 1\na: 2\n", "2:1: a is here twice; it is in line 1 already"),
        ("a: [1\n".encode("utf-16"), "1:4: not valid YAML: what starts here is never closed"),
        ("a: " + "[" * 2000, "1:1: not valid YAML: it is nested too deeply"),
    ],
)
def test_a_file_that_no_compose_file_can_be_is_told_with_its_place(base: Path, text: str | bytes, told: str) -> None:
    error = broken_yaml([base, overlay(base, text)])
    assert error is not None
    assert place(error.message) == f"overlay.yaml:{told}"


def test_a_compose_file_with_every_form_of_yaml_is_none_of_those(base: Path) -> None:
    text = "%YAML 1.2\n---\na: &x {b: !reset null}\nc: {<<: *x}\nd: [*x, *x]\n---\ne: |\n  text\n"
    assert broken_yaml([base, overlay(base, text)]) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.one_of(some.binary(), some.text("ab:-[]{}&*!|>'\"#%@ \n\t,?<", max_size=40).map(str.encode)))
def test_whatever_is_in_a_file_something_is_told_of_it(base: Path, data: bytes) -> None:
    error = explain_compose("no", [base, overlay(base, data)])
    assert place(error.message).startswith("overlay.yaml:")
