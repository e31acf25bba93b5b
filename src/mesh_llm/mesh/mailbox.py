"""Things that have arrived, for whoever comes to take them; once closed, whoever waits is told why."""

from collections import deque
from typing import Generic, TypeVar

from mesh_llm.mesh.transport import Unreachable
from mesh_llm.runtime.bell import Bell

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._closed: str | None = None
        self._arrived = Bell()

    @property
    def full(self) -> bool:
        return len(self._items) >= self._capacity

    def put(self, item: Item) -> Item | None:
        """Returns the oldest item where there is no room for both."""
        self._items.append(item)
        self._arrived.ring()
        return self._items.popleft() if len(self._items) > self._capacity else None

    async def take(self) -> Item:
        """Raises Unreachable once closed. A cancelled take loses nothing."""
        while True:
            if self._closed is not None:
                raise Unreachable(self._closed)
            if self._items:
                return self._items.popleft()
            await self._arrived.wait_for_ring()

    def close(self, reason: str) -> list[Item]:
        """Returns what nobody has taken."""
        self._closed = self._closed or reason
        left = list(self._items)
        self._items.clear()
        self._arrived.ring()
        return left
