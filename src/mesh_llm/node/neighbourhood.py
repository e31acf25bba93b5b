"""The mesh as the gateway and the console ask for it: who serves what, tunnels, and who is there."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from mesh_llm.console.snapshot import PeerStatus
from mesh_llm.core.ids import NodeId
from mesh_llm.gateway.remote import RemoteServer, TunnelStream
from mesh_llm.mesh.neighbour import Neighbour, Reach
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import Kind


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

    def traffic(self) -> Mapping[str, tuple[int, int]]:
        counted = self._mesh.traffic
        return {kind.name.lower(): (counted.sent[kind], counted.received[kind]) for kind in Kind}

    def peers(self) -> tuple[PeerStatus, ...]:
        return tuple(map(self._peer, self._mesh.neighbours()))

    def _peer(self, neighbour: Neighbour) -> PeerStatus:
        advert = neighbour.advert
        reach = self._mesh.reach_of(advert.node)
        return PeerStatus(
            id=advert.node,
            name=advert.name,
            is_client=advert.role == "client",
            health=neighbour.member.health.name.lower(),
            version=advert.program_version,
            memory_bytes=advert.memory_bytes,
            served=advert.models,
            busy=neighbour.busy,
            round_trip_s=reach.round_trip_s if reach else None,
            path=_path(reach),
        )


def _path(reach: Reach | None) -> Literal["direct", "relay"] | None:
    if reach is None:
        return None
    return "relay" if reach.is_relayed else "direct"
