"""A node in a process of its own that trusts everybody and echoes every stream: `far_node_child.py KEY PORT`.

It prints its address, and ends with its standard input.
"""

import asyncio
import sys

from mesh_llm.mesh.iroh_transport import IrohTransport
from mesh_llm.mesh.transport import NoRelays
from mesh_llm.runtime import lifeline
from mesh_llm.runtime.clock import Clock
from tests.mesh.transport_contract import echo_everything


async def live(key: bytes, port: int) -> None:
    async with (
        IrohTransport.open(key, bind_port=port, relays=NoRelays(), clock=Clock()) as transport,
        asyncio.TaskGroup() as tasks,
    ):
        sys.stdout.write(f"{transport.addresses.direct[0]}\n")
        sys.stdout.flush()
        await echo_everything(transport, tasks)


if __name__ == "__main__":
    lifeline.hold()
    asyncio.run(live(bytes.fromhex(sys.argv[1]), int(sys.argv[2])))
