"""What this node has under way at other nodes, and how busy they said they were just now. Pure."""

from collections import Counter

from mesh_llm.core.ids import NodeId
from mesh_llm.gateway.remote import RemoteServer

FRESH_S = 2.0
"""An answer tells the node's load of that moment; the mesh's pings tell it every few seconds."""

HEARD_MAX = 1024
"""Nodes; more than a mesh is made for."""


class Flights:
    def __init__(self) -> None:
        self._under_way: Counter[NodeId] = Counter()
        self._heard: dict[NodeId, tuple[int, float]] = {}

    def took_off(self, node: NodeId) -> None:
        self._under_way[node] += 1

    def landed(self, node: NodeId) -> None:
        self._under_way[node] -= 1
        if not self._under_way[node]:
            del self._under_way[node]

    def heard(self, node: NodeId, busy: int, now: float) -> None:
        """It said so with an answer; what it has from here is known better here."""
        self._heard.pop(node, None)
        self._heard[node] = (max(0, busy - self._under_way[node]), now)
        if len(self._heard) > HEARD_MAX:
            del self._heard[next(iter(self._heard))]

    def busy(self, server: RemoteServer, now: float) -> int:
        """What it has of others and of this node; of what it told the mesh only the sum is known."""
        own = self._under_way[server.node]
        others, when = self._heard.get(server.node, (0, float("-inf")))
        return others + own if now - when <= FRESH_S else max(server.busy, own)
