"""Ports reserved early: one that is taken is told before anything is downloaded or loaded.

Until its server runs, a reserved port refuses connections, so a client sees that nobody answers yet.
"""

import errno
import socket

from mesh_llm.core.errors import AddressInUse, RequestRefused

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


def reserve(host: str, port: int, flag: str) -> socket.socket:
    """Port 0 takes any free one. `flag` is named in the cure.

    Raises AddressInUse where another program holds the port, RequestRefused where it may not be opened.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _explained(error, port, flag) from error
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def _explained(error: OSError, port: int, flag: str) -> AddressInUse | RequestRefused:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f"port {port} is in use by another program (a second node, perhaps): "
            f"stop that one, or choose another port with {flag}"
        )
    return RequestRefused(f"port {port} cannot be opened ({error.strerror}): choose another with {flag}")
