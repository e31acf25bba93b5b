"""Another member as a snapshot shows it: one model that answers, one that does not yet."""

from mesh_llm.console.snapshot import PeerStatus
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ModelOffer, ServedOffer

PEER = PeerStatus(
    id=NodeId("b" * 64),
    name="studio",
    is_client=False,
    health="alive",
    version="1.2.3",
    memory_bytes=24_000_000_000,
    served=(
        ServedOffer(ModelOffer("Qwen3-8B", bytes=5_000_000_000), ready=True, tokens_per_second=41.26),
        ServedOffer(ModelOffer("Seer", capabilities=("chat", "vision")), ready=False),
    ),
    busy=3,
    round_trip_s=0.01234,
    path="direct",
)
