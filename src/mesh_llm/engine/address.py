"""The address of an external server, as a person writes it. Decides only; `external.py` goes there."""

import re
from urllib.parse import unquote, urlsplit

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import Endpoint

EXAMPLE = "write for example --endpoint http://localhost:8000/v1"


def parse_endpoint(url: str, default_key: str | None) -> Endpoint:
    """From `--endpoint`: with or without `/v1`, with or without a key before the host (`https://KEY@host`).

    Raises RequestRefused with the cure; never repeats a key.
    """
    shown = url.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise RequestRefused(f"`{shown}` is no address of a server: {EXAMPLE}") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise RequestRefused(f"`{shown}` is no address of a server: {EXAMPLE}")
    if parts.query or parts.fragment:
        raise RequestRefused(f"`{shown}` has more than an address, from `?` or `#` on: {EXAMPLE}")
    if parts.password is not None:
        raise RequestRefused(f"A server is given one key, no name and password: write https://KEY@{shown}")
    key = unquote(parts.username) if parts.username else default_key or ""
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise RequestRefused(f"The key for {shown} is not made of printable ASCII characters without spaces.")
    base = parts.path.rstrip("/").removesuffix("/models").removesuffix("/v1").rstrip("/")
    name = f"[{host}]" if ":" in host else host
    address = name if port is None else f"{name}:{port}"
    return Endpoint(f"{parts.scheme}://{address}{base}", key, dialect="openai")
