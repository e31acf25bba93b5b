"""Asks a node from where it is reachable: `python -m bench.mesh_asker URL MODEL COUNT` prints its timings.

In a process of its own because the far end of a delayed link has a loopback of its own.
"""

import asyncio
import json
import sys

from bench.gateway import wait_for_answer
from bench.load import Target
from bench.mesh import timed


async def main(url: str, model: str, count: int) -> None:
    target = Target("far", url, "", model)
    await wait_for_answer(target)
    print(json.dumps([await timed(target, number) for number in range(count)]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
