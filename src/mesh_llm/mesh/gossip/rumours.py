"""News on its way: what this node has to pass on, and how often it still will.

A rumour told 3 log2(n) times by everyone who hears it reaches all of n nodes, lost datagrams included.
"""

from dataclasses import dataclass, field
from math import ceil, log2

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.news import News
from mesh_llm.mesh.gossip.wire import NEWS_ROOM_BYTES, bytes_of

TELLINGS_OF_LOG = 3


def tellings(nodes: int) -> int:
    """How often a rumour is told by each of so many nodes."""
    return TELLINGS_OF_LOG * ceil(log2(nodes + 1))


@dataclass(slots=True)
class _Rumour:
    news: News
    told: int = 0


@dataclass(slots=True)
class Rumours:
    """One for each node at most: newer news of a node takes the place of older."""

    _queue: dict[NodeId, _Rumour] = field(default_factory=dict[NodeId, _Rumour])

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, news: News) -> None:
        self._queue.pop(news.node, None)
        self._queue[news.node] = _Rumour(news)

    def drop(self, node: NodeId) -> None:
        self._queue.pop(node, None)

    def take(self, nodes: int, room_bytes: int = NEWS_ROOM_BYTES) -> tuple[News, ...]:
        """As many as fit, least told first; counted as told. `nodes`: of the mesh."""
        taken: list[News] = []
        for rumour in sorted(self._queue.values(), key=lambda rumour: rumour.told):
            room_bytes -= bytes_of(rumour.news)
            if room_bytes < 0:
                break
            taken.append(rumour.news)
            rumour.told += 1
            if rumour.told >= tellings(nodes):
                del self._queue[rumour.news.node]
        return tuple(taken)
