"""The GPU table of docs/benchmarks.md: `python -m bench.gpu MODEL.gguf BUILD`, with the build of `build.sh`.

One card whole (llama-bench, and a head that holds all layers), two cards in one process, two stages over a
ring with a delay, llama.cpp's RPC with the same delay. Needs two cards for what needs two.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.load import ask, burst
from bench.split.candidates import Candidate, Load, model_at, split
from bench.split.links import Delay, relayed
from mesh_llm.models.places import ModelPlaces

LOAD = Load(context=16_384, slots=8, batch=512, threads=8, gpu_layers=-1, cards=True)
ROUND_TRIPS_MS = (0, 10, 20, 40)
STREAMS = (1, 2, 4, 8)
TOKENS = 96
RPC_TOKENS = 48
WARM_UP_TOKENS = 8
LISTEN_S_MAX = 30.0


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("build", type=Path, help="folder that build.sh has filled")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    path, binaries = arguments.model.resolve(), arguments.build.resolve() / "bin"
    os.environ["MESH_LLM_LIBLLAMA"] = str(binaries / "libllama.so")
    model = model_at(path)
    places = ModelPlaces(path.parent, path.parent, path.parent / "none")
    print("| arm | round trip | streams | tokens/s together |\n|---|---|---|---|")
    show("llama-bench, one card", 0, 1, await llama_bench(binaries, path, "0"))
    show("llama-bench, two cards in one process", 0, 1, await llama_bench(binaries, path, "0,1"))
    async with split(model, places, 1, LOAD) as alone:
        await measure("head that holds all layers, one card", alone, (0,), arguments.rounds)
    async with split(model, places, 2, LOAD) as two:
        await measure("two stages, a card each", two, ROUND_TRIPS_MS, arguments.rounds)
    await measure_rpc(binaries, path)
    return 0


async def measure(name: str, candidate: Candidate, round_trips: Sequence[int], rounds: int) -> None:
    await ask(candidate.target, 0, WARM_UP_TOKENS)
    for round_trip in round_trips:
        candidate.delay.seconds = round_trip / 2000
        for streams in STREAMS:
            speeds = [await speed(candidate, streams, number) for number in range(rounds)]
            show(name, round_trip, streams, statistics.median(speeds))


async def speed(candidate: Candidate, streams: int, number: int) -> float:
    """Of one stream without the time to its first token."""
    if streams > 1:
        return (await burst(candidate.target, streams, TOKENS, number)).tokens_per_second
    answer = await ask(candidate.target, number, TOKENS)
    return (answer.tokens - 1) / (answer.seconds - answer.first_token_s)


async def measure_rpc(binaries: Path, model: Path) -> None:
    """Half of the layers on a server with the second card."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(rpc_server(binaries))
        delay = Delay()
        behind = await stack.enter_async_context(relayed(port, delay))
        for round_trip in ROUND_TRIPS_MS:
            delay.seconds = round_trip / 2000
            flags = ("--rpc", f"127.0.0.1:{behind}", "-ts", "50/50")
            show("RPC, half on each card", round_trip, 1, await llama_bench(binaries, model, "0", *flags))


@asynccontextmanager
async def rpc_server(binaries: Path) -> AsyncGenerator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [str(binaries / "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port)]
    server = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, "CUDA_VISIBLE_DEVICES": "1"}, stdout=PIPE
    )
    try:
        await listening(port)
        yield port
    finally:
        server.kill()
        await server.wait()


async def listening(port: int) -> None:
    async with asyncio.timeout(LISTEN_S_MAX):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


async def llama_bench(binaries: Path, model: Path, cards: str, *flags: str) -> float:
    """Tokens a second of one stream, as llama.cpp measures itself."""
    words = ("-m", str(model), "-ngl", "99", "-p", "0", "-n", str(RPC_TOKENS), "-r", "2", "-o", "json")
    bench = await asyncio.create_subprocess_exec(
        str(binaries / "llama-bench"),
        *words,
        *flags,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": cards},
        stdout=PIPE,
    )
    out, _ = await bench.communicate()
    return float(json.loads(out)[0]["avg_ts"])


def show(arm: str, round_trip: int, streams: int, speed: float) -> None:
    print(f"| {arm} | {round_trip} ms | {streams} | {speed:.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
