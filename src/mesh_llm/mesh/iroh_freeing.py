"""When iroh 1.2.0's objects are freed, mended: between two steps of the event loop, not in the midst of one.

iroh wakes Python while it holds a lock of the connection. If Python's garbage collector happens to free one
of iroh's objects just then, that waits for the same lock: for ever, and the whole node with it (seen after
some hundreds of connections). `iroh_transport.py` hands over iroh's names: nothing here imports iroh.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Free = Callable[[Any], None]


class LateFreeing:
    def __init__(self) -> None:
        self._waiting: deque[tuple[Free, Any]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_due = False

    def mend(self, names: Mapping[str, Any]) -> None:
        """Of every class among them that frees something. Once in a process."""
        for kind in set(filter(lambda each: isinstance(each, type), names.values())):
            if "__del__" in vars(kind):
                kind.__del__ = self._late(kind.__del__)

    def use_this_loop(self) -> None:
        """From now on the running loop frees, as long as it lives."""
        self._loop = asyncio.get_running_loop()
        self._free()

    def _late(self, free: Free) -> Free:
        def wait(dead: Any) -> None:
            """May run anywhere, in any thread: takes no lock, calls nothing of iroh's."""
            self._waiting.append((free, dead))
            if self._loop and not self._is_due:
                self._is_due = True
                with suppress(RuntimeError):  # it is closed: the next one will do it
                    self._loop.call_soon_threadsafe(self._free)

        return wait

    def _free(self) -> None:
        self._is_due = False
        while self._waiting:
            free, dead = self._waiting.popleft()
            free(dead)
