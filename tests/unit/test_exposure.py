"""Listeners are read from the kernel's own tables."""

from __future__ import annotations

import socket

import pytest

from mailstack.checks.exposure import listeners, reachable

TABLES = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:024B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0
   1: 0B00007F:8A1D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0
   2: 020AA8C0:0018 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1 0
   3: 020AA8C0:01D1 010AA8C0:C350 01 00000000:00000000 00:00000000 00000000     0        0 103 1 0
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0019 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 104
   1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 105
   2: 0000000000000000FFFF00000100007F:0036 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 106
  sl  local_address rem_address   st tx_queue rx_queue
 5: 00000000:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 107 2
"""


def test_listeners_are_those_that_others_can_reach() -> None:
    assert listeners(TABLES) == {("0.0.0.0", 587), ("192.168.10.2", 24), ("::", 25), ("0.0.0.0", 514)}
    assert listeners("") == listeners("cat: /proc/net/tcp: No such file or directory\n0: zz:00 1 0A") == set()


@pytest.mark.sockets
def test_what_accepts_a_connection_answers_and_what_refuses_it_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        there, gone = server.getsockname(), closed.getsockname()
        assert reachable({there, gone}) == {there}
