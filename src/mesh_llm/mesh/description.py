"""What a node says of itself, besides what the mesh knows anyway; with that it becomes an advert."""

from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ServedOffer
from mesh_llm.core.stages import SplitClaim
from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.transport import Addresses


@dataclass(frozen=True, slots=True)
class Description:
    name: str
    role: str
    """As in `Advert`."""
    program_version: str
    memory_bytes: int = 0
    models: tuple[ServedOffer, ...] = ()
    on_disk: tuple[str, ...] = ()
    claims: tuple[SplitClaim, ...] = ()

    def advert(self, node: NodeId, addresses: Addresses, certificate: bytes, started: int) -> Advert:
        """`adverts.py` gives it its version."""
        return Advert(
            node,
            0,
            name=self.name,
            program_version=self.program_version,
            role=self.role,
            addresses=addresses,
            certificate=certificate,
            memory_bytes=self.memory_bytes,
            models=self.models,
            on_disk=self.on_disk,
            started=started,
            claims=self.claims,
        )
