"""What the gateway asks of the mesh: who else serves which model, and a stream to their gateways."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ServedOffer


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """One model on another node, as this node knows it now."""

    node: NodeId
    node_name: str
    """For people."""
    served: ServedOffer
    busy: int
    """Requests that the node is answering or has waiting, as it said last."""


class TunnelStream(Protocol):
    """Frames to another node's gateway and back (`mesh/transport.py`'s Stream is one)."""

    @property
    def peer(self) -> NodeId: ...

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes | None: ...

    async def finish(self) -> None: ...

    async def close(self) -> None: ...


class Mesh(Protocol):
    def servers(self) -> Sequence[RemoteServer]:
        """Every model of every other living member."""
        ...

    def tunnel(self, node: NodeId) -> AbstractAsyncContextManager[TunnelStream]:
        """A stream that the node's gateway answers. Raises Unreachable, and Refused where the node does not
        take this one for a member (both `mesh.transport`)."""
        ...

    def traffic(self) -> Mapping[str, tuple[int, int]]:
        """Bytes sent to and received from other nodes on streams since the start, by what the streams are
        for."""
        ...

    def doubt(self, node: NodeId) -> None:
        """A request to the node failed: look whether it still lives."""
        ...
