"""The gateway against the bare engine: `make bench`, or `python -m bench.gateway --rounds 15`.

Speed: one engine is asked directly and through a gateway before it, in turns. Start, memory: a whole node
against a bare engine of the same settings. What counts is the ratio of medians; absolute speeds are the
machine's.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.load import Refused, Target, ask, burst
from mesh_llm.core.progress import ignore
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.engine.whole.placement import engine_settings
from mesh_llm.engine.whole.settings import EngineSettings
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces
from mesh_llm.planner.capacity import memory_for_models
from mesh_llm.planner.fit import Wish, fit
from mesh_llm.runtime import hardware
from mesh_llm.runtime.children import Child
from mesh_llm.runtime.tasks import beside

HOME = Path(os.environ.get("MESH_LLM_HOME", "~/.mesh-llm")).expanduser()
TOKENS_OF_STREAMS = {1: 96, 4: 48, 16: 32}
"""Tokens of each answer, by how many are asked for at once: bursts of a few seconds each."""
SLOTS = 16
TOKENS = 32
FIRST_TOKEN_PAIRS = 150
START_S_MAX = 60.0
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    bare: float
    node: float
    value: float
    goal: str
    unit: str

    def __str__(self) -> str:
        return (
            f"| {self.what} | {self.bare:.4g} | {self.node:.4g} | {self.value:.3f}{self.unit} | {self.goal} |"
        )


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--rounds", type=int, default=15, help="of each candidate at each load (default 15)")
    arguments = parser.parse_args()
    settings = await settings_of(arguments.model)
    rows = await compare_answers(settings, arguments.rounds)
    rows.append(await measure_memory(arguments.model))
    rows.append(await compare_starts(settings, arguments.model, arguments.rounds))
    rows.append(await compare_busy(settings, arguments.rounds))
    rows.append(await compare_two_engines(settings, arguments.rounds))
    print("| | bare or quiet | node or busy | ratio or difference | goal |\n|---|---|---|---|---|")
    print("\n".join(map(str, rows)))
    return 0


async def settings_of(name: str) -> EngineSettings:
    """What the node will choose for itself."""
    model = await obtain(name, ModelPlaces.from_environment(os.environ, HOME), ignore)
    machine = hardware.measure(())
    fitted = fit(model.facts, memory_for_models(machine, None), Wish(slots=SLOTS))
    return engine_settings(
        model, fitted, machine, (), api_key=f"{random.SystemRandom().getrandbits(128):032x}"
    )


@asynccontextmanager
async def bare_engine(settings: EngineSettings) -> AsyncGenerator[Target]:
    async with LlamaServer.start(settings, os.environ, lambda _: None) as server:
        endpoint = await server.wait_until_ready()
        yield Target("bare", endpoint.url, endpoint.api_key, settings.name)


@asynccontextmanager
async def node(model: str) -> AsyncGenerator[tuple[Target, psutil.Process]]:
    """A node as a user starts it for the first time, on free ports."""
    argv = [sys.executable, "-m", "mesh_llm", "--model", model, "--port", "0", "--console", "0"]
    argv += ["--parallel", str(SLOTS), "--log-format", "json"]
    with tempfile.TemporaryDirectory() as home:
        child = await Child.spawn("node", argv, os.environ | {"MESH_LLM_HOME": home}, b"")
        async with beside(stderr=child.collect_tail()):
            try:
                port = await port_of(child)
                yield Target("node", f"http://127.0.0.1:{port}", "", model), psutil.Process(child.pid)
            finally:
                psutil.Process(child.pid).terminate()
                await child.wait()
                await child.stop()


async def port_of(child: Child) -> int:
    """From the line in which the node says where it answers."""
    while True:
        found = re.search(r'"api_port": (\d+)', "\n".join(child.tail))
        if found:
            return int(found[1])
        await asyncio.sleep(POLL_S)


async def wait_for_answer(target: Target) -> None:
    """Returns with its first token; asks again and again until there is one."""
    async with asyncio.timeout(START_S_MAX):
        while True:
            try:
                await ask(target, 0, 1)
            except (OSError, Refused):
                await asyncio.sleep(POLL_S)
            else:
                return


@asynccontextmanager
async def front(settings: EngineSettings, bare: Target) -> AsyncGenerator[Target]:
    """The gateway in a process of its own, before the engine that `bare` asks directly."""
    line = json.dumps(asdict(settings) | {"url": bare.url, "api_key": bare.api_key}).encode()
    child = await Child.spawn("front", [sys.executable, "-m", "bench.front"], os.environ, line)
    try:
        async with beside(stderr=child.collect_tail()):
            async for port in child.lines():
                yield Target("gateway", f"http://127.0.0.1:{port}", "", bare.model)
                break
    finally:
        await child.stop()


async def compare_answers(settings: EngineSettings, rounds: int) -> list[Row]:
    async with bare_engine(settings) as bare, front(settings, bare) as through:
        for target in (bare, through):
            await wait_for_answer(target)
            await burst(target, 4, TOKENS, 0)
        rows = [await compare_speed(bare, through, streams, rounds) for streams in TOKENS_OF_STREAMS]
        return [*rows, await compare_first_tokens(bare, through)]


async def measure_memory(model: str) -> Row:
    """Of a node that has answered: its own process, without the engine."""
    async with node(model) as (target, process):
        await wait_for_answer(target)
        await burst(target, SLOTS, TOKENS, 0)
        memory = process.memory_info().rss / 1e6
        return Row("memory of the node's own process, MB", 0, memory, memory, "<= 120", " MB")


async def compare_speed(
    bare: Target, through: Target, streams: int, rounds: int, goal: str = ">= 0.97"
) -> Row:
    speeds: dict[str, list[float]] = {bare.name: [], through.name: []}
    for number in range(rounds):
        for target in (bare, through) if number % 2 else (through, bare):
            result = await burst(target, streams, TOKENS_OF_STREAMS[streams], number)
            speeds[target.name].append(result.tokens_per_second)
    direct, via = (statistics.median(speeds[target.name]) for target in (bare, through))
    return Row(f"tokens/s, {streams} at once", direct, via, via / direct, goal, " x")


async def compare_first_tokens(bare: Target, through: Target, goal: str = "<= 3 more") -> Row:
    """One stream, one token, in pairs: the same prompt, a moment apart."""
    times: dict[str, list[float]] = {bare.name: [], through.name: []}
    for number in range(FIRST_TOKEN_PAIRS):
        for target in (bare, through) if number % 2 else (through, bare):
            times[target.name].append((await ask(target, number, 1)).first_token_s * 1000)
    pairs = zip(times[through.name], times[bare.name], strict=True)
    added = statistics.median(via - direct for via, direct in pairs)
    direct, via = (statistics.median(times[target.name]) for target in (bare, through))
    return Row("time to first token, ms", direct, via, added, goal, " ms")


async def compare_starts(settings: EngineSettings, model: str, rounds: int) -> Row:
    """From starting the process to the first token of its first answer, weights on disk."""
    times: dict[str, list[float]] = {"bare": [], "node": []}
    for number in range(rounds + 1):
        bare_s, node_s = await time_bare_start(settings), await time_node_start(model)
        if number:  # the first pair warms the disk's cache
            times["bare"].append(bare_s)
            times["node"].append(node_s)
    direct, via = (statistics.median(times[name]) for name in ("bare", "node"))
    return Row("start to first token, s", direct, via, via / direct, "<= 1.5", " x")


async def compare_busy(settings: EngineSettings, rounds: int) -> Row:
    """One stream while another program keeps one core busy, against a quiet machine."""
    quiet: list[float] = []
    busy: list[float] = []
    async with bare_engine(settings) as target:
        await burst(target, 1, TOKENS, 0)
        for number in range(rounds):
            quiet.append((await burst(target, 1, TOKENS, number)).tokens_per_second)
            async with busy_core():
                busy.append((await burst(target, 1, TOKENS, number)).tokens_per_second)
    return slowdown("tokens/s beside one busy core", quiet, busy, ">= 0.5")


@asynccontextmanager
async def busy_core() -> AsyncGenerator[None]:
    child = await Child.spawn("busy", [sys.executable, "-c", "while True: pass"], os.environ, b"")
    try:
        yield
    finally:
        await child.stop()


async def compare_two_engines(settings: EngineSettings, rounds: int) -> Row:
    """Two models that answer at once, both together, against one that has the machine to itself."""
    alone: list[float] = []
    both: list[float] = []
    async with bare_engine(settings) as one, bare_engine(settings) as other:
        for number in range(rounds):
            alone.append((await burst(one, 1, TOKENS, number)).tokens_per_second)
            bursts = await asyncio.gather(burst(one, 1, TOKENS, number), burst(other, 1, TOKENS, number))
            both.append(sum(each.tokens_per_second for each in bursts))
    return slowdown("tokens/s, two models at once, together", alone, both, ">= 0.5")


def slowdown(what: str, before: list[float], after: list[float], goal: str) -> Row:
    quiet, slow = statistics.median(before), statistics.median(after)
    return Row(what, quiet, slow, slow / quiet, goal, " x")


async def time_bare_start(settings: EngineSettings) -> float:
    started = time.perf_counter()
    async with bare_engine(settings) as target:
        await wait_for_answer(target)
        return time.perf_counter() - started


async def time_node_start(model: str) -> float:
    started = time.perf_counter()
    async with node(model) as (target, _):
        await wait_for_answer(target)
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
