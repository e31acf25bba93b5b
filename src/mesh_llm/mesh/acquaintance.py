"""A connection to a peer that has shown that it is a member: how it is used, and how well the peer behaves.

`peers.py` holds them; a peer may have several for a while, where both sides dialled at once.
"""

from math import inf

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import Connection

ERRORS_MAX = 8
"""Breaks of the protocol in a row, with less than ERRORS_APART_S between them. More is no accident."""

ERRORS_APART_S = 60.0


class Acquaintance:
    def __init__(self, connection: Connection, now: float) -> None:
        self.connection = connection
        self._used = now
        self._streams = 0
        self._errors = 0
        self._erred = -inf

    @property
    def peer(self) -> NodeId:
        return self.connection.peer

    def use(self, now: float) -> None:
        """Something was sent or received."""
        self._used = now

    def stream_begins(self) -> None:
        self._streams += 1

    def stream_ends(self, now: float) -> None:
        self._streams -= 1
        self._used = now

    def unused_s(self, now: float) -> float:
        return 0.0 if self._streams else now - self._used

    def err(self, now: float) -> int:
        """The peer broke the protocol. Returns for which time in a row."""
        self._errors = self._errors + 1 if now - self._erred <= ERRORS_APART_S else 1
        self._erred = now
        return self._errors
