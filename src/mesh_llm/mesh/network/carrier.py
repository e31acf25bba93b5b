"""What a network gives for one connection: pipes, datagrams, and whether anything is heard at all.

`iroh_transport.py` and `memory_carrier.py` have one each; `connection.py` makes the mesh's connections of
it.
"""

from typing import Protocol

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.streams import Pipe


class Carrier(Protocol):
    @property
    def peer(self) -> NodeId:
        """Verified."""
        ...

    @property
    def packets_received(self) -> int:
        """Of any kind, acknowledgements too: while it grows, the peer lives."""
        ...

    @property
    def is_relayed(self) -> bool:
        """Whether packets take the way over a relay now."""
        ...

    async def open_pipe(self) -> Pipe:
        """Waits while the peer allows no more. Raises Unreachable."""
        ...

    async def accept_pipe(self) -> Pipe:
        """Raises Unreachable once the connection has ended."""
        ...

    def allow_pipes(self, count: int) -> None:
        """How many of the peer's may be open at once."""
        ...

    def send_datagram(self, data: bytes) -> None:
        """It may get lost; an acknowledgement comes back where it does not."""
        ...

    async def receive_datagram(self) -> bytes:
        """Raises Unreachable once the connection has ended."""
        ...

    async def wait_ended(self) -> str:
        """Returns why, whoever ended it."""
        ...

    async def close(self, reason: str) -> None:
        """Returns when the peer has what was finished and may have heard the reason; at most a second."""
        ...
