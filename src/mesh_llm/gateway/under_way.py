"""How many questions are being answered, for whoever waits for none."""

from collections.abc import Generator
from contextlib import contextmanager

from mesh_llm.runtime.bell import Bell


class UnderWay:
    def __init__(self) -> None:
        self._count = 0
        self._last_ended = Bell()

    @contextmanager
    def one_more(self) -> Generator[None]:
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._last_ended.ring()

    async def wait_for_none(self) -> None:
        while self._count:
            await self._last_ended.wait_for_ring()
