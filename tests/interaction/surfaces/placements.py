"""One model in three places: whole on the node that is asked, whole on another node, and in two stages."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import anthropic
import openai

from tests.interaction.nodes import MODEL, Node, started
from tests.interaction.test_mesh import NO_RELAY, wait_until_listed

Placement = Literal["whole", "routed", "split"]
PLACEMENTS: tuple[Placement, ...] = ("whole", "routed", "split")

CONTEXT = 2048
SLOTS = 2
SERVING = ("--model", MODEL, "--ctx-size", str(CONTEXT), "--parallel", str(SLOTS))
IN_STAGES = ("--stages", "2", "--activations", "f32")
"""Hidden states travel as they are, so that every answer must be the whole model's."""


@contextlib.asynccontextmanager
async def three_placements(store: Path, homes: Path) -> AsyncGenerator[dict[Placement, str]]:
    """URLs of two meshes: of a server and a client, and of a leader and a holder of a stage."""
    async with contextlib.AsyncExitStack() as stack:

        async def node(name: str, *flags: str) -> Node:
            return await stack.enter_async_context(started(store, homes / name, *flags, *NO_RELAY))

        whole = await node("whole", *SERVING)
        routed = await node("routed", "--client", "--join", await whole.invite())
        leader = await node("leader", *SERVING, *IN_STAGES)
        await node("holder", "--join", await leader.invite())
        nodes: dict[Placement, Node] = {"whole": whole, "routed": routed, "split": leader}
        for each in nodes.values():
            await wait_until_listed(each, MODEL)
        yield {placement: await each.url() for placement, each in nodes.items()}


@dataclass(frozen=True)
class Clients:
    """Of one node: the stock ones, and a plain one for what no SDK sends."""

    url: str
    ai: openai.AsyncOpenAI
    claude: anthropic.AsyncAnthropic
    http: aiohttp.ClientSession


@contextlib.asynccontextmanager
async def clients_of(url: str) -> AsyncGenerator[Clients]:
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as ai,
        anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as claude,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http,
    ):
        yield Clients(url, ai, claude, http)
