"""The gateway alone, in a process of its own, before an engine that somebody else runs.

`python -m bench.front` reads one line of JSON (url, api_key, model), prints its port and serves until its
standard input ends. So the same engine process can be asked directly and through the gateway: two engine
processes of the same settings differ by several percent.
"""

import asyncio
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh_llm.core.serving import Endpoint, Ready, ServedModel
from mesh_llm.gateway.app import Gateway
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.listening import LOOPBACK, port_of, reserve
from mesh_llm.runtime.tasks import beside


@dataclass(frozen=True, slots=True)
class FixedBackend:
    model: ServedModel
    condition: Ready

    async def explain_failure(self) -> str:
        return "it is not ours to watch"


def served_model(given: dict[str, Any]) -> ServedModel:
    path = Path(given["model_path"])
    return ServedModel(
        name=given["name"],
        aliases=(),
        facts=read_file_facts([path]),
        bytes=path.stat().st_size,
        context_length=given["context_length"],
        kv_type=given["kv_type"],
        slots=given["slots"],
        vision=False,
        created=0,
    )


async def main() -> None:
    given = json.loads(sys.stdin.readline())
    backend = FixedBackend(served_model(given), Ready(Endpoint(given["url"], given["api_key"])))
    gateway = Gateway(lambda: [backend], api_key=None, clock=Clock(), chance=random.SystemRandom())
    listener = reserve(LOOPBACK, 0, "--port")
    async with beside(gateway=gateway.run(listener)):
        print(port_of(listener), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
