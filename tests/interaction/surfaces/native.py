"""Cells of what no SDK asks: tokens, templates, figures, health. And of embeddings and ranks."""

import re
from typing import Any

from tests.interaction.nodes import MODEL
from tests.interaction.surfaces.cells import Cell, bad, table_of
from tests.interaction.surfaces.chat import CALLED, HI, SAID, TOOLS
from tests.interaction.surfaces.outcomes import get_text, post
from tests.interaction.surfaces.placements import Clients

TEXTS = ("Hello, world", "日本語 👩‍👩‍👧", "<|im_start|>user", "")

CELLS: list[Cell] = []
tokenize = table_of(CELLS, "tokenize")
detokenize = table_of(CELLS, "detokenize")
template = table_of(CELLS, "apply-template")
figures = table_of(CELLS, "metrics")
health = table_of(CELLS, "health")
models = table_of(CELLS, "models")
embeddings = table_of(CELLS, "embeddings")
rerank = table_of(CELLS, "rerank")


@tokenize("plain")
async def _(clients: Clients) -> Any:
    return [await post(clients, "/tokenize", {"content": text}) for text in TEXTS]


@tokenize("pieces and specials")
async def _(clients: Clients) -> Any:
    more = {"with_pieces": True, "add_special": True, "parse_special": False}
    return [await post(clients, "/tokenize", {"content": text} | more) for text in TEXTS]


@tokenize("no text", refused=bad("invalid_type", "content"))
async def _(clients: Clients) -> Any:
    return await post(clients, "/tokenize", {"content": 5})


@detokenize("plain")
async def _(clients: Clients) -> Any:
    return await post(clients, "/detokenize", {"tokens": [504, 3575, 282, 4649]})


@detokenize("unknown token", refused=bad("invalid_value", "tokens[0]"))
async def _(clients: Clients) -> Any:
    return await post(clients, "/detokenize", {"tokens": [999_999]})


@template("plain")
async def _(clients: Clients) -> Any:
    answer = await post(clients, "/apply-template", {"messages": HI})
    assert SAID in answer["prompt"]
    return answer


@template("prefill")
async def _(clients: Clients) -> Any:
    messages = [*HI, {"role": "assistant", "content": "Well,"}]
    return await post(clients, "/apply-template", {"messages": messages})


@template("without a turn to answer")
async def _(clients: Clients) -> Any:
    return await post(clients, "/apply-template", {"messages": HI, "add_generation_prompt": False})


@template("tools")
async def _(clients: Clients) -> Any:
    return await post(clients, "/apply-template", {"messages": CALLED, "tools": TOOLS})


@template("no messages", refused=bad())
async def _(clients: Clients) -> Any:
    return await post(clients, "/apply-template", {})


@figures("plain")
async def _(clients: Clients) -> Any:
    """Of this node: what it has answered, and for which models."""
    await post(clients, "/v1/completions", {"prompt": "x", "max_tokens": 1})
    text = await get_text(clients, "/metrics")
    assert re.search(rf'mesh_llm_completion_tokens_total{{model="{MODEL}"}} [1-9]', text)
    return sorted(set(re.findall(r"^# TYPE (mesh_llm_\w+)", text, re.MULTILINE)))


@health("plain")
async def _(clients: Clients) -> Any:
    return [await get_text(clients, path) for path in ("/health", "/v1/health")]


@models("plain")
async def _(clients: Clients) -> Any:
    (model,) = [model async for model in clients.ai.models.list()]
    told = model.model_dump(mode="json")
    assert set(told["capabilities"]) >= {"chat", "completions"}
    ours = (
        "id",
        "object",
        "owned_by",
        "context_length",
        "size",
        "parameters",
        "architecture",
        "status",
        "slots",
    )
    return {name: told[name] for name in ours if name != "id"} | {"name": told["id"]}


NO_EMBEDDINGS = bad("unsupported_model", "model")


@embeddings("plain", refused_split=NO_EMBEDDINGS)
async def _(clients: Clients) -> Any:
    answer = await clients.ai.embeddings.create(model=MODEL, input=["cat"], encoding_format="float")
    return {"length": len(answer.data[0].embedding), "usage": answer.usage.model_dump(mode="json")}


@rerank("plain", refused=bad("unsupported_model", "model"))
async def _(clients: Clients) -> Any:
    return await post(clients, "/v1/rerank", {"query": "x", "documents": ["y"]})
