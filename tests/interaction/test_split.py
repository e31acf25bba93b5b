"""A model over several nodes: real processes, real stages, the answers of the whole model."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.engine.head.heads import client, whole_engine
from tests.interaction.nodes import MODEL, Node, chat_until_ready, ended, get, started
from tests.interaction.test_mesh import NO_RELAY, OTHER_MODEL, listed, wait_until_listed
from tests.models.hub_server import HubServer

pytestmark = pytest.mark.real

PROMPTS = int(os.environ.get("MESH_LLM_PROMPTS", "2"))
"""Of each model and split; `make check-all` takes 20."""

KILLS = int(os.environ.get("MESH_LLM_KILLS", "2"))
"""Of stages, one after the other; `make check-all` takes 200."""

TOKENS = 200 if "MESH_LLM_PROMPTS" in os.environ else 60
"""Of each answer."""

BACK_SECONDS_MAX = 15.0
"""In which a split model answers again that has lost a stage."""

SILENCE_SECONDS_MAX = 10.0
"""In which the mesh knows that a node is dead."""

SMALL = ("--ctx-size", "2048", "--parallel", "2")
STAGE = "mesh_llm.engine.stage.child"
WHOLE = "mesh_llm.engine.whole.child"


@asynccontextmanager
async def split_over(
    store: Path, homes: Path, stages: int, *flags: str, model: str = MODEL, spare: int = 0
) -> AsyncGenerator[list[Node]]:
    """The leader first, then the others; `spare` nodes more than stages."""
    async with AsyncExitStack() as stack:
        leading = ("--model", model, "--stages", str(stages), "--activations", "f32", *SMALL, *flags)
        nodes = [await stack.enter_async_context(started(store, homes / "leader", *leading, *NO_RELAY))]
        join = ("--join", await nodes[0].invite(), *NO_RELAY)
        for number in range(1, stages + spare):
            nodes.append(await stack.enter_async_context(started(store, homes / f"n{number}", *join)))
        yield nodes


async def completed(url: str, prompt: str) -> str:
    body = {"model": "auto", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "cache_prompt": False}
    async with aiohttp.ClientSession() as client, client.post(f"{url}/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["choices"][0]["text"]


def prompt(number: int) -> str:
    return f"{number} mesh networks pool the spare memory of {number + 2} machines. In the morning, the"


async def texts_of_whole(store: Path, model: str) -> list[str]:
    """Of a llama-server that only generates, as a head does: one that also embeds computes the last layer for
    all rows of a prompt, and many rows round otherwise than one."""
    async with whole_engine(store / f"{model}.gguf", threads=2) as engine, client(engine) as whole:
        return [
            await whole.text(prompt(number), temperature=0, max_tokens=TOKENS, cache_prompt=False)
            for number in range(PROMPTS)
        ]


@pytest.mark.parametrize(("model", "stages"), [(MODEL, 2), (MODEL, 3), (OTHER_MODEL, 3)])
async def test_the_answers_of_stages_are_those_of_the_whole_model(
    store: Path, tmp_path: Path, model: str, stages: int
):
    expected = await texts_of_whole(store, model)
    async with split_over(store, tmp_path, stages, model=model) as nodes:
        await wait_until_listed(nodes[0], model)
        for number, text in enumerate(expected):
            assert await completed(await nodes[0].url(), prompt(number)) == text
        await wait_until_listed(nodes[-1], model)
        assert await completed(await nodes[-1].url(), prompt(0)) == expected[0]
        assert [stage["is_head"] for stage in await stages_shown(nodes[0])] == [False] * (stages - 1) + [True]


async def stages_shown(node: Node) -> list[dict[str, Any]]:
    status = await get(f"{await node.console_url()}/api/status")
    return next(model["stages"] for model in status["mesh_models"] if model["stages"])


def stage_processes(node: Node) -> list[psutil.Process]:
    return [process for process in node.descendants() if STAGE in process.cmdline() and process.children()]


async def test_killing_a_stage_ends_its_requests_honestly_and_a_new_plan_follows(store: Path, tmp_path: Path):
    async with split_over(store, tmp_path, 2) as (leader, other):
        await wait_until_listed(leader, MODEL)
        held: list[tuple[int, int]] = []
        for _ in range(KILLS):
            await kill_during_an_answer(leader, other)
            held.append((resources(leader), resources(other)))
        assert all(now <= first + LEAK for first, now in zip(held[0], held[-1], strict=True)), held


LEAK = 12
"""Files, threads and processes that come and go; one that stays behind with each of 200 kills is more."""


async def kill_during_an_answer(leader: Node, other: Node) -> None:
    url = await leader.url()
    begun = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(broken_off(url, begun))
        await begun.wait()
        (stage,) = stage_processes(other)
        stage.send_signal(signal.SIGKILL)
    assert "stage" in answer.result() or "ring" in answer.result()
    async with asyncio.timeout(BACK_SECONDS_MAX):
        await chat_until_ready(url, model=MODEL)
    (again,) = stage_processes(other)
    assert again.pid != stage.pid


def resources(node: Node) -> int:
    """Open files, threads and processes of a node and its children."""
    family = [psutil.Process(node.pid), *node.descendants()]
    assert all(process.status() != psutil.STATUS_ZOMBIE for process in family)
    return sum(process.num_fds() + process.num_threads() + 1 for process in family)


async def broken_off(url: str, begun: asyncio.Event) -> str:
    """What a client is told whose answer breaks off."""
    body = {"prompt": prompt(0), "max_tokens": 1500, "ignore_eos": True, "stream": True}
    async with aiohttp.ClientSession() as client, client.post(f"{url}/v1/completions", json=body) as answer:
        async for line in answer.content:
            begun.set()
            if line.startswith(b"data: {") and "error" in (chunk := json.loads(line[6:])):
                return chunk["error"]["message"]
    raise AssertionError("it ended without a word")


async def test_when_a_node_dies_another_takes_its_layers(store: Path, tmp_path: Path):
    async with split_over(store, tmp_path, 2, spare=1) as nodes:
        await wait_until_listed(nodes[0], MODEL)
        (holder,) = [node for node in nodes[1:] if stage_processes(node)]
        holder.process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(SILENCE_SECONDS_MAX + BACK_SECONDS_MAX):
            await chat_until_ready(await nodes[0].url(), model=MODEL)
        assert all(stage["name"] != holder.pid for stage in await stages_shown(nodes[0]))
        (taker,) = [node for node in nodes[1:] if node is not holder]
        assert stage_processes(taker)


async def test_a_model_that_fits_no_node_says_what_is_missing_and_starts_when_it_is_there(
    store: Path, tmp_path: Path
):
    little = ("--model", MODEL, *SMALL, "--max-vram", "0.17", *NO_RELAY)
    async with started(store, tmp_path / "one", *little) as one:
        await one.wait_for_message("missing")
        status = (await listed(one))[MODEL]
        assert status["status"] == "waiting"
        join = ("--join", await one.invite(), "--max-vram", "0.17", *NO_RELAY)
        async with started(store, tmp_path / "two", *join):
            await chat_until_ready(await one.url(), model=MODEL)
            shown = await stages_shown(one)
            assert len(shown) == 2 and shown[-1]["is_head"]


async def test_a_node_that_can_hold_all_of_it_runs_it_whole_for_the_mesh(store: Path, tmp_path: Path):
    little = ("--model", MODEL, *SMALL, "--max-vram", "0.17", *NO_RELAY)
    async with started(store, tmp_path / "one", *little) as one:
        join = ("--join", await one.invite(), "--max-vram", "0.6", *NO_RELAY)
        async with started(store, tmp_path / "two", *join) as two:
            await wait_until_listed(one, MODEL)
            await chat_until_ready(await one.url(), model=MODEL)
            assert any(WHOLE in process.cmdline() for process in two.descendants())
            assert not one.descendants() and not stage_processes(two)
            status, _, err = await ended(store, tmp_path / "one", "drop", MODEL)
            assert status == 0, err
            await wait_until_listed(one)


async def test_a_model_at_the_hub_is_fetched_whole_by_nobody(store: Path, tmp_path: Path):
    file = store / f"{MODEL}.gguf"
    async with HubServer() as hub, AsyncExitStack() as stack:
        hub.files[f"org/repo/{file.name}"] = file.read_bytes()

        async def node(name: str, *flags: str) -> Node:
            home = tmp_path / name
            begun = started(home / "models", home, *flags, *NO_RELAY, HF_ENDPOINT=hub.url)
            return await stack.enter_async_context(begun)

        leading = ("--model", f"org/repo/{file.name}", "--stages", "3", "--activations", "f32", *SMALL)
        leader = await node("leader", *leading)
        for name in ("one", "two"):
            await node(name, "--join", await leader.invite())
        await wait_until_listed(leader, MODEL)
        await chat_until_ready(await leader.url(), model=MODEL)
        assert len(await stages_shown(leader)) == 3
        assert hub.bytes_sent <= 1.1 * file.stat().st_size
        sizes = gguf_sizes(tmp_path)
        assert len(sizes) == 3 and max(sizes) < file.stat().st_size


def gguf_sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.gguf")]


async def test_a_dropped_model_gives_back_what_other_nodes_lent_it(store: Path, tmp_path: Path):
    async with split_over(store, tmp_path, 2) as (leader, other):
        await wait_until_listed(leader, MODEL)
        status, _, err = await ended(store, tmp_path / "leader", "drop", MODEL)
        assert status == 0, err
        await wait_until_listed(leader)
        async with asyncio.timeout(BACK_SECONDS_MAX):
            while stage_processes(other):  # noqa: ASYNC110 - a process of another node
                await asyncio.sleep(0.05)


async def test_an_architecture_that_is_not_known_is_not_split(store: Path, tmp_path: Path):
    other = tmp_path / "strange.gguf"
    other.write_bytes((store / f"{MODEL}.gguf").read_bytes().replace(b"llama", b"llamb"))
    status, _, err = await ended(store, tmp_path / "home", "--model", str(other), "--split", *NO_RELAY)
    assert status == 2 and "llamb" in err and "cut" in err
