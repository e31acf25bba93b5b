"""Where a socket is reached, as nodes write it: `192.168.1.5:40123`, `[fd00::5]:40123`. Numbers, no names."""

import re
from ipaddress import IPv4Address, IPv6Address

_FORM = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+(?:%[0-9]{1,9})?)\]):([0-9]{1,5})")
"""A zone is a number, too: the names of interfaces mean nothing on another machine."""


def host_and_port(address: str) -> tuple[str, int] | None:
    """None where it is no such address."""
    found = _FORM.fullmatch(address)
    if found is None:
        return None
    port = int(found[3])
    try:
        host = IPv4Address(found[1]) if found[1] else IPv6Address(found[2])
    except ValueError:
        return None
    return (str(host), port) if 0 < port < 2**16 else None
