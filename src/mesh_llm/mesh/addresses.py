"""Where nodes say that they may be reached: how much of it, the same in greetings, adverts and invites.

Whom an address reaches is the transport's question; here it is text, which others may be shown.
"""

from mesh_llm.mesh.transport import Addresses, FastPath, PeerError

ADDRESSES_MAX = 32
"""Direct ones of a node: a machine has a handful of networks, each in two families, and container bridges."""

ADDRESS_CHARACTERS_MAX = 64
"""`[IPv6%zone]:port` has 60."""

RELAY_CHARACTERS_MAX = 256
"""Of a relay's URL. `--relay` takes somewhat less, because iroh may write it out longer."""

FAST_PATH_ADDRESSES_MAX = 16


def tellable(addresses: Addresses, direct_max: int = ADDRESSES_MAX) -> Addresses:
    """Of this node's own what others take: an odd one is left out, it is not worth a mesh."""
    direct = tuple(filter(_is_address, addresses.direct))[:direct_max]
    return Addresses(direct, addresses.relay if _is_url(addresses.relay) else None)


def are_tellable(addresses: Addresses) -> bool:
    return tellable(addresses) == addresses


def check(addresses: Addresses) -> None:
    """Of a peer's. Raises PeerError."""
    if not are_tellable(addresses):
        raise PeerError(
            f"Addresses that are none: {ADDRESSES_MAX} of {ADDRESS_CHARACTERS_MAX} characters are allowed, "
            f"and a relay's URL of {RELAY_CHARACTERS_MAX}."
        )


def check_fast_path(offer: FastPath) -> None:
    """Of a peer's. Raises PeerError."""
    if len(offer.addresses) > FAST_PATH_ADDRESSES_MAX or not all(map(_is_address, offer.addresses)):
        raise PeerError(
            f"A fast path with addresses that are none: {FAST_PATH_ADDRESSES_MAX} of "
            f"{ADDRESS_CHARACTERS_MAX} characters are allowed."
        )


def _is_address(text: str) -> bool:
    return _is_plain(text, ADDRESS_CHARACTERS_MAX)


def _is_url(text: str | None) -> bool:
    return text is not None and _is_plain(text, RELAY_CHARACTERS_MAX)


def _is_plain(text: str, characters_max: int) -> bool:
    return 0 < len(text) <= characters_max and text.isascii() and text.isprintable()
