import socket

import pytest

from mesh_llm.core.errors import AddressInUse
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve


def test_a_taken_port_is_told_with_the_flag_that_changes_it():
    with reserve(LOOPBACK, 0, "--port") as first:
        first.listen()
        with pytest.raises(AddressInUse, match=r"port \d+ .*--console"):
            reserve(LOOPBACK, port_of(first), "--console")


def test_a_reserved_port_refuses_connections_until_it_is_served():
    with reserve(LOOPBACK, 0, "--port") as waiting, pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port_of(waiting)), timeout=5)


def test_port_zero_takes_a_free_one():
    with reserve(LOOPBACK, 0, "--port") as one, reserve(LOOPBACK, 0, "--port") as other:
        assert port_of(one) != port_of(other) and port_of(one) > 0
