"""What the mesh tells its own node of another member: for the gateway's choice, and for people."""

from dataclasses import dataclass

from mesh_llm.mesh.advert import Advert
from mesh_llm.mesh.membership_events import Member


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another member, as this node sees it now."""

    member: Member
    advert: Advert
    busy: int
    """Requests it is answering, as it said last."""
    round_trip_s: float | None
    connected: bool
