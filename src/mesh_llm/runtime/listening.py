"""Ports reserved early: one that is taken is told before anything is downloaded or loaded.

Until `listen`, a reserved port refuses connections, so a client sees that nobody answers yet.
"""

import errno
import socket

from mesh_llm.core.errors import AddressInUse, RequestRefused

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"

BACKLOG = 128
"""Connections that the operating system may hold until they are accepted: a burst of clients."""


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


def listen(listener: socket.socket) -> None:
    """From now on clients wait for the server to run instead of being refused. May be called again.

    Raises AddressInUse: two programs may reserve a port, one can listen.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        port = port_of(listener)
        raise AddressInUse(
            f"port {port} is in use by another program: stop that one, or choose another"
        ) from error


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def _explained(error: OSError, port: int, flag: str) -> AddressInUse | RequestRefused:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f"port {port} is in use by another program (a second node, perhaps): "
            f"stop that one, or choose another port with {flag}"
        )
    return RequestRefused(f"port {port} cannot be opened ({error.strerror}): choose another with {flag}")
