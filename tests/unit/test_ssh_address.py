"""How a host is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.errors import InputError
from mailstack.ssh import address
from mailstack.ssh.address import Host
from mailstack.state import is_name


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ssh://tester@machine:2222", Host("machine", "tester", 2222)),
        ("ssh://tester@machine", Host("machine", "tester")),
        ("ssh://machine/", Host("machine")),
        ("ssh://[::1]:2222", Host("::1", None, 2222)),
        ("tester@127.0.0.1", Host("127.0.0.1", "tester")),
        ("my-alias", Host("my-alias")),
    ],
)
def test_a_host_is_named_as_for_ssh_and_docker(text: str, host: Host) -> None:
    assert address.parse(text) == host


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=x", "ssh://", "tcp://machine:2375", "ssh://a b", "machine:0", "machine:x", "ssh://@m", "m;x"],
)
def test_what_is_no_host_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InputError) as caught:
        address.parse(text)
    assert "ssh://user@machine" in caught.value.remedy


MACHINES = some.one_of(
    some.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,20}\Z"),
    some.ip_addresses(v=4).map(str),
    some.ip_addresses(v=6).map(str),
)


@given(
    some.builds(
        Host,
        MACHINES,
        some.none() | some.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._@+-]{0,20}\Z"),
        some.none() | some.integers(1, 65535),
    )
)
def test_a_host_can_be_given_as_it_is_told(host: Host) -> None:
    assert address.parse(str(host)) == host


def test_a_hosts_files_have_a_name_that_no_lab_can_have() -> None:
    key = address.parse("ssh://tester@machine:2222").key
    assert not is_name(key)
    assert key != address.parse("ssh://tester@machine:2223").key
    assert not is_name(Path(address.LOCK).stem)  # else `down --all` would take it for a lab's, and away
