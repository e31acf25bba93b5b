"""Which names in a request's headers are this machine's own.

A page of any web site can send requests to loopback ports through its visitor's browser. Two headers that a
page cannot forge tell such requests from honest ones: `Origin` names the page's site, and `Host` the name
that was looked up (a site may point its own name at 127.0.0.1).
"""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback_origin(origin: str) -> bool:
    """Of an `Origin` header, `http://localhost:3000`."""
    return is_loopback(_host_of(origin))


def host_name(host: str) -> str | None:
    """Of a `Host` header, without the port; None where it is none."""
    return _host_of(f"//{host}")


def is_loopback(name: str | None) -> bool:
    """Of a name or an address without port."""
    if not name:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
