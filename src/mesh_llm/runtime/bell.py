"""Something has changed: rung by who changes it, waited for by who shows it."""

import asyncio


class Bell:
    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait now. Whoever comes later waits for the next."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait_for_ring(self) -> None:
        await self._rung.wait()
