"""Ports: a free one, and why one cannot be opened, with the flag that helps; whether there is IPv6."""

import errno
import socket

from mesh_llm.core.errors import AddressInUse, RequestRefused


def not_opened(protocol: str, port: int, number: int, reason: str) -> AddressInUse | RequestRefused:
    """`protocol`: UDP or TCP; `number`: the system's error number."""
    if number == errno.EADDRINUSE:
        return AddressInUse(
            f"{protocol} port {port} is in use by another program (a second node, perhaps): "
            "stop that one, or choose another port with --bind-port"
        )
    return RequestRefused(
        f"{protocol} port {port} cannot be opened ({reason}): choose another with --bind-port"
    )


def has_ipv6() -> bool:
    """Built in and switched on."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def free_udp_port() -> int:
    """Of this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]
