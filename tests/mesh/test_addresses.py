import pytest

from mesh_llm.mesh.addresses import (
    ADDRESS_CHARACTERS_MAX,
    ADDRESSES_MAX,
    FAST_PATH_ADDRESSES_MAX,
    RELAY_CHARACTERS_MAX,
    are_tellable,
    check,
    check_fast_path,
    tellable,
)
from mesh_llm.mesh.transport import Addresses, FastPath, PeerError

DIRECT = tuple(f"10.0.0.{number}:1" for number in range(ADDRESSES_MAX))
FULL = Addresses(("[fe80::1%eth0]:5", *DIRECT[1:]), "r" * RELAY_CHARACTERS_MAX)


@pytest.mark.parametrize("addresses", [Addresses(), FULL, Addresses(("a" * ADDRESS_CHARACTERS_MAX,))])
def test_what_a_node_usually_has_is_told_and_taken_as_it_is(addresses: Addresses):
    check(addresses)
    assert tellable(addresses) == addresses


@pytest.mark.parametrize(
    "addresses",
    [
        Addresses((*DIRECT, "10.0.0.99:1")),
        Addresses(("a" * (ADDRESS_CHARACTERS_MAX + 1),)),
        Addresses(("",)),
        Addresses(("ä:1",)),
        Addresses(("\x1b[2J",)),
        Addresses(relay="r" * (RELAY_CHARACTERS_MAX + 1)),
        Addresses(relay=""),
        Addresses(relay="https://\n"),
    ],
)
def test_what_others_refuse_is_not_told(addresses: Addresses):
    assert not are_tellable(addresses)
    with pytest.raises(PeerError, match="32 of 64 characters"):
        check(addresses)
    check(tellable(addresses))


def test_one_odd_address_takes_no_other_with_it():
    assert tellable(Addresses(("\n", *DIRECT), "ä")) == Addresses(DIRECT)
    assert tellable(Addresses(("\n", *DIRECT), "https://a"), 2) == Addresses(DIRECT[:2], "https://a")


@pytest.mark.parametrize("addresses", [DIRECT[: FAST_PATH_ADDRESSES_MAX + 1], ("",), ("a" * 65,), ("ä:1",)])
def test_a_fast_path_has_limits_too(addresses: tuple[str, ...]):
    check_fast_path(FastPath(DIRECT[:FAST_PATH_ADDRESSES_MAX], b""))
    with pytest.raises(PeerError, match="16 of 64 characters"):
        check_fast_path(FastPath(addresses, b""))
