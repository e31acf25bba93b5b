"""A stream on which two members exchange something and are done: bounded in time, and allowed to fail."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.peers import Peers
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Stream, Unreachable

EXCHANGE_SECONDS_MAX = 15.0
"""For a stream that carries views, adverts or notices: a connection may have to be dialled for it."""

NOT_TODAY = (Unreachable, Refused, PeerError, TimeoutError)
"""How an exchange fails: the machines mend it by asking again, or asking others."""


@asynccontextmanager
async def exchange_with(peer: NodeId, kind: Kind, peers: Peers) -> AsyncGenerator[Stream]:
    """Raises what NOT_TODAY lists."""
    async with asyncio.timeout(EXCHANGE_SECONDS_MAX), peers.stream(peer, kind) as stream:
        yield stream
