"""Whose advert is held, in which version, and what is fetched from whom. Decides; `service.py` acts.

Its counterpart is `membership.py`: what that hears of newer versions (`WantAdvert`) comes here as Announced,
and what is held here (`AdvertChanged`, `AnnounceOwn`) goes there as AdvertHeld.
"""

from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.advert import Advert, SignedAdvert


@dataclass(frozen=True, slots=True)
class Announced:
    """`by` says that it holds this version of the node's advert."""

    node: NodeId
    version: int
    by: NodeId


@dataclass(frozen=True, slots=True)
class Received:
    """An answer to Fetch; `handle` raises PeerError if it is forged or not admitted."""

    signed: SignedAdvert
    by: NodeId


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """The peer has sent all it would, or failed: what did not come is asked of others."""

    by: NodeId


@dataclass(frozen=True, slots=True)
class OwnChanged:
    """This node has something new to say of itself; node and version are filled in."""

    advert: Advert


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Membership forgot the node (`MemberForgotten`)."""

    node: NodeId


AdvertEvent = Announced | Received | FetchEnded | OwnChanged | Forgotten


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the peer for the adverts of these nodes, in one exchange; hand in each that comes as Received, then
    FetchEnded. One at a time for each peer."""

    nodes: tuple[NodeId, ...]
    from_peer: NodeId


@dataclass(frozen=True, slots=True)
class AdvertChanged:
    """A newer advert of another node is held: tell membership (AdvertHeld)."""

    advert: Advert


@dataclass(frozen=True, slots=True)
class AnnounceOwn:
    """This node's own advert has a new version: tell membership (AdvertHeld)."""

    node: NodeId
    version: int


AdvertEffect = Fetch | AdvertChanged | AnnounceOwn
