"""Who may ask: whoever has the key, and without one this machine alone, but no web page from elsewhere.

Decides from header values alone.
"""

import hmac
from collections.abc import Mapping

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.loopback import host_name, is_loopback, is_loopback_origin


def check(
    headers: Mapping[str, str], *, api_key: str | None, needs_key: bool, local_address: str | None
) -> None:
    """Raises RequestRefused (401 or 403) unless the request may be answered."""
    origin = headers.get("Origin")
    if origin is not None and not is_loopback_origin(origin):
        raise RequestRefused(
            f"Pages from {origin} may not use this node. Only pages served from localhost may.",
            http_status=403,
            code="origin_refused",
        )
    if api_key is not None:
        if needs_key and not _has_key(headers, api_key):
            raise RequestRefused(
                "The API key is missing or wrong. "
                "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
                http_status=401,
                code="invalid_api_key",
            )
    elif not _is_own_host(headers.get("Host"), local_address):
        raise RequestRefused(
            f"This node does not answer to the name {headers.get('Host')}. "
            "Use localhost, or start the node with an API key.",
            http_status=403,
            code="host_refused",
        )


def _is_own_host(host: str | None, local_address: str | None) -> bool:
    if host is None:  # HTTP/1.0: browsers always send it
        return True
    name = host_name(host)
    return is_loopback(name) or name == local_address


def _has_key(headers: Mapping[str, str], api_key: str) -> bool:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    offered = (token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
    expected = api_key.encode()
    matches = [hmac.compare_digest(key.encode(errors="surrogateescape"), expected) for key in offered]
    return any(matches)  # of a list, so that both are always compared
