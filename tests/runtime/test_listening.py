import pytest

from mesh_llm.core.errors import AddressInUse
from mesh_llm.runtime.listening import LOOPBACK, listen, port_of


def test_a_taken_port_is_told_with_the_flag_that_changes_it():
    with listen(LOOPBACK, 0, "--port") as first, pytest.raises(AddressInUse, match=r"port \d+ .*--console"):
        listen(LOOPBACK, port_of(first), "--console")


def test_port_zero_takes_a_free_one():
    with listen(LOOPBACK, 0, "--port") as one, listen(LOOPBACK, 0, "--port") as other:
        assert port_of(one) != port_of(other) and port_of(one) > 0
