"""What the mesh tells its own node of another member: for the gateway's choice, and for people."""

from dataclasses import dataclass

from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.gossip.membership_events import Member


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another member, as this node sees it now."""

    member: Member
    advert: Advert
    busy: int
    """Requests it is answering or has waiting, as it said last."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How a node is reached now."""

    round_trip_s: float | None
    """None before the first measurement."""
    is_relayed: bool
