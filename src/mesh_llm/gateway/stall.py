"""Notices a receiver that takes nothing, with one timer for a whole stream instead of one for each write."""

import asyncio


class StallWatch:
    def __init__(self) -> None:
        self._writes = 0
        self._is_writing = False

    def begins(self) -> None:
        """A write that may have to wait."""
        self._writes += 1
        self._is_writing = True

    def ends(self) -> None:
        self._is_writing = False

    async def watch(self, seconds_max: float) -> None:
        """Raises ConnectionResetError when one write has taken between `seconds_max` and twice as long."""
        seen = -1
        while True:
            await asyncio.sleep(seconds_max)
            if self._is_writing and self._writes == seen:
                raise ConnectionResetError("the receiver takes nothing")
            seen = self._writes
