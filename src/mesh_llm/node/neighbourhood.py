"""The mesh as the gateway and the console ask for it: who serves what, tunnels, and who is there."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from mesh_llm.console.snapshot import PeerStatus
from mesh_llm.core.ids import NodeId
from mesh_llm.gateway.remote import RemoteServer, TunnelStream
from mesh_llm.mesh.service import Mesh


class Neighbourhood:
    """`gateway.remote.Mesh` over the real one."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def servers(self) -> Sequence[RemoteServer]:
        return [
            RemoteServer(neighbour.advert.node, neighbour.advert.name, served, neighbour.busy)
            for neighbour in self._mesh.neighbours()
            for served in neighbour.advert.models
        ]

    def tunnel(self, node: NodeId) -> AbstractAsyncContextManager[TunnelStream]:
        return self._mesh.tunnel(node)

    def doubt(self, node: NodeId) -> None:
        self._mesh.doubt(node)

    def peers(self) -> tuple[PeerStatus, ...]:
        return tuple(
            PeerStatus(
                id=neighbour.advert.node,
                name=neighbour.advert.name,
                is_client=neighbour.advert.role == "client",
                health=neighbour.member.health.name.lower(),
                version=neighbour.advert.program_version,
                memory_bytes=neighbour.advert.memory_bytes,
                served=neighbour.advert.models,
                busy=neighbour.busy,
                round_trip_s=neighbour.round_trip_s,
                path="direct" if neighbour.connected else None,
            )
            for neighbour in self._mesh.neighbours()
        )
