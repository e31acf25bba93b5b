import pytest

from mesh_llm.mesh.network.socket_addresses import host_and_port


@pytest.mark.parametrize(
    ("address", "read"),
    [
        ("192.168.1.5:40123", ("192.168.1.5", 40123)),
        ("[fd00::5]:1", ("fd00::5", 1)),
        ("[FE80::1%2]:65535", ("fe80::1%2", 65535)),
    ],
)
def test_an_address_is_a_number_and_a_port(address: str, read: tuple[str, int]):
    assert host_and_port(address) == read


@pytest.mark.parametrize(
    "address",
    [
        "",
        "192.168.1.5",
        "192.168.1.5:",
        "192.168.1.5:0",
        "192.168.1.5:65536",
        "192.168.1.5:+80",
        "192.168.1.5: 80",
        "192.168.1.5:8_0",
        "192.168.1.5:\u0663",
        "192.168.1.05:80",
        "192.168.1:80",
        "fd00::5:80",
        "[fd00::5:80",
        "[192.168.1.5]:80",
        "[fe80::1%eth0]:80",
        "[fd00::5]:80\n",
        "example.org:80",
        "memory:1",
    ],
)
def test_everything_else_is_none(address: str):
    assert host_and_port(address) is None
