"""A request through the mesh (client node, tunnel, serving node) against the same engine asked directly.

`python -m bench.mesh` prints the mesh table of docs/benchmarks.md. The nodes are `mesh-llm` commands in
processes of their own; the serving one takes the engine as its `--endpoint`, so that both ways end in the
same engine process. As root it also asks over a link with 40 ms of round trip (`delayed_link.py`).
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import psutil

from bench.delayed_link import can_delay, delayed_link, in_far
from bench.gateway import (
    SLOTS,
    TOKENS,
    TOKENS_OF_STREAMS,
    Row,
    bare_engine,
    compare_first_tokens,
    compare_speed,
    settings_of,
    wait_for_answer,
)
from bench.load import Target, ask, burst
from mesh_llm.runtime.children import Child
from mesh_llm.runtime.tasks import beside

SPEED_GOAL = ">= 0.95"
FIRST_TOKEN_GOAL = "<= 8 more"
ROUND_TRIP_S = 0.040
FAR_PAIRS = 30
FAR_TOKENS = 64
POLL_S = 0.02
START_S_MAX = 60.0


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=15, help="of each candidate at each load (default 15)")
    arguments = parser.parse_args()
    settings = await settings_of(arguments.model)
    async with bare_engine(settings) as bare:
        await wait_for_answer(bare)
        rows = await compare_hop(bare, arguments.rounds)
        if can_delay():
            rows += await compare_far(bare)
        else:
            print("no root or no /dev/net/tun: the delayed link is left out", file=sys.stderr)
    print("| | direct | through the mesh | ratio or difference | goal |\n|---|---|---|---|---|")
    print("\n".join(map(str, rows)))
    return 0


@asynccontextmanager
async def node(*flags: str, prefix: tuple[str, ...] = (), **more: str) -> AsyncGenerator[Child]:
    """A node with a home of its own, on free ports."""
    with tempfile.TemporaryDirectory() as home:
        environment: Mapping[str, str] = os.environ | {"MESH_LLM_HOME": home} | more
        ports = ("--port", "0", "--console", "0", "--log-format", "json")
        argv = [*prefix, sys.executable, "-m", "mesh_llm", *ports, *flags]
        child = await Child.spawn("node", argv, environment, b"")
        async with beside(stderr=child.collect_tail()):
            try:
                yield child
            finally:
                psutil.Process(child.pid).terminate()
                await child.wait()
                await child.stop()


async def said(child: Child, pattern: str) -> str:
    """What the node's log says where `pattern` has its group."""
    async with asyncio.timeout(START_S_MAX):
        while True:
            found = re.search(pattern, "\n".join(child.tail))
            if found:
                return found[1]
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def serving_node(bare: Target) -> AsyncGenerator[str]:
    """A node before the engine; its invite token."""
    flags = ("--endpoint", bare.url, "--mesh-relay", "none", "--parallel", str(SLOTS))
    async with node(*flags, MESH_LLM_ENDPOINT_KEY=bare.api_key) as child:
        yield await said(child, r'"invite": "([^"]+)"')


@asynccontextmanager
async def client_node(token: str, model: str, prefix: tuple[str, ...] = ()) -> AsyncGenerator[Target]:
    async with node("--client", "--join", token, "--mesh-relay", "none", prefix=prefix) as child:
        port = await said(child, r'"api_port": (\d+)')
        yield Target("mesh", f"http://127.0.0.1:{port}", "", model)


async def compare_hop(bare: Target, rounds: int) -> list[Row]:
    async with serving_node(bare) as token, client_node(token, bare.model) as through:
        for target in (bare, through):
            await wait_for_answer(target)
            await burst(target, 4, TOKENS, 0)
        rows = [
            await compare_speed(bare, through, streams, rounds, SPEED_GOAL) for streams in TOKENS_OF_STREAMS
        ]
        return [*rows, await compare_first_tokens(bare, through, FIRST_TOKEN_GOAL)]


async def compare_far(bare: Target) -> list[Row]:
    """The client behind a delay, asked there, since its API is on loopback; in turns with the engine here."""
    direct: list[tuple[float, float]] = []
    far: list[tuple[float, float]] = []
    async with (
        delayed_link(ROUND_TRIP_S / 2),
        serving_node(bare) as token,
        client_node(token, bare.model, tuple(in_far())) as through,
        asker_in_far(through) as ask_there,
    ):
        for number in range(FAR_PAIRS):
            far.append(await ask_there(number))
            direct.append(await timed(bare, number))
    firsts = [statistics.median(first for first, _ in answers) * 1000 for answers in (direct, far)]
    added = statistics.median(there - here for (there, _), (here, _) in zip(far, direct, strict=True)) * 1000
    speeds = [statistics.median(speed for _, speed in answers) for answers in (direct, far)]
    return [
        Row("40 ms away: time to first token, ms", *firsts, added, "<= 80 more", " ms"),
        Row("40 ms away: tokens/s of one stream", *speeds, speeds[1] / speeds[0], ">= 0.97", " x"),
    ]


@asynccontextmanager
async def asker_in_far(target: Target) -> AsyncGenerator[Callable[[int], Awaitable[tuple[float, float]]]]:
    argv = in_far(sys.executable, "-m", "bench.mesh_asker", target.url, target.model)
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*argv, **pipes)

    async def ask_there(number: int) -> tuple[float, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"%d\n" % number)
        first, speed = json.loads(await process.stdout.readline())
        return first, speed

    try:
        yield ask_there
    finally:
        process.kill()
        await process.wait()


async def timed(target: Target, number: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second after it."""
    answer = await ask(target, number, FAR_TOKENS)
    return answer.first_token_s, (answer.tokens - 1) / (answer.seconds - answer.first_token_s)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
