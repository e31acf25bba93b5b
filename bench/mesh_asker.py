"""Asks a node from where it is reachable: `python -m bench.mesh_asker URL MODEL`, one answer for each line of
its standard input, whose timings it prints.

In a process of its own because the far end of a delayed link has a loopback of its own.
"""

import asyncio
import json
import sys

from bench.gateway import wait_for_answer
from bench.load import Target
from bench.mesh import timed


async def main(url: str, model: str) -> None:
    target = Target("far", url, "", model)
    await wait_for_answer(target)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await timed(target, int(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
