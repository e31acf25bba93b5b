"""Things that have arrived, for whoever comes to take them; once closed and empty, it tells them why."""

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

    def put(self, item: Item) -> Item | None:
        """Returns the oldest item where there is no room for both."""
        self._items.append(item)
        self._arrived.ring()
        return self._items.popleft() if len(self._items) > self._capacity else None

    async def take(self) -> Item:
        """Raises Unreachable once closed and empty. A cancelled take loses nothing."""
        while not self._items:
            if self._closed is not None:
                raise Unreachable(self._closed)
            await self._arrived.wait_for_ring()
        return self._items.popleft()

    def close(self, reason: str) -> None:
        """What has arrived may still be taken."""
        self._closed = self._closed or reason
        self._arrived.ring()

    def empty(self) -> list[Item]:
        """Take all there is."""
        items = list(self._items)
        self._items.clear()
        return items
