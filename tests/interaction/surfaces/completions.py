"""Cells of `/v1/completions`, through the `openai` package."""

import json
from typing import Any

from tests.interaction.nodes import MODEL
from tests.interaction.surfaces.cells import BAD, Cell, bad, table_of
from tests.interaction.surfaces.chat import COLOUR
from tests.interaction.surfaces.placements import CONTEXT, Clients

PROMPT = "The capital of France is"

CELLS: list[Cell] = []
cell = table_of(CELLS, "completions")


def request(fields: Any) -> Any:
    """Nothing cached, and no further than the model is sure of its answer: see `chat`."""
    more = {"cache_prompt": False} | fields.get("extra_body", {})
    return (
        {"model": MODEL, "prompt": PROMPT, "max_tokens": 5, "temperature": 0} | fields | {"extra_body": more}
    )


async def ask(clients: Clients, **fields: Any) -> Any:
    given = request(fields)
    answer = await clients.ai.completions.create(**given)
    return answer.model_dump(mode="json", exclude_unset=True)


async def stream(clients: Clients, **fields: Any) -> Any:
    given = request(fields)
    chunks = await clients.ai.completions.create(**given, stream=True)
    told: dict[str, Any] = {"fields": set(), "texts": {}, "ends": {}, "usage": []}
    async for piece in chunks:
        chunk = piece.model_dump(mode="json", exclude_unset=True)
        told["fields"] |= {*chunk}
        told["usage"] += [chunk["usage"]] if chunk.get("usage") else []
        for choice in chunk["choices"]:
            place = str(choice["index"])
            told["texts"][place] = told["texts"].get(place, "") + choice["text"]
            told["ends"][place] = choice["finish_reason"] or told["ends"].get(place)
    return told | {"fields": sorted(told["fields"])}


def text(answer: Any) -> str:
    return answer["choices"][0]["text"]


@cell("plain")
async def _(clients: Clients) -> Any:
    answer = await ask(clients)
    assert "Paris" in text(answer) and answer["usage"]["completion_tokens"] == 5
    return answer


@cell("stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients)
    assert "Paris" in told["texts"]["0"]
    return told


@cell("stream with usage")
async def _(clients: Clients) -> Any:
    told = await stream(clients, stream_options={"include_usage": True})
    assert told["usage"]
    return told


@cell("stop")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, stop=["Paris"])
    assert "Paris" not in text(answer) and answer["choices"][0]["finish_reason"] == "stop"
    return answer


@cell("seed")
async def _(clients: Clients) -> Any:
    return await ask(clients, temperature=1.5, seed=11)


@cell("logprobs")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, logprobs=2, max_tokens=3)
    scores = answer["choices"][0]["logprobs"]
    assert "".join(scores["tokens"]) == text(answer)
    assert all(len(rivals) == 2 for rivals in scores["top_logprobs"])
    scores["top_logprobs"] = [
        list(max(rivals.items(), key=lambda rival: rival[1])) for rivals in scores["top_logprobs"]
    ]
    return answer


@cell("n")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, n=2, max_tokens=3, extra_body={"ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == 6
    return answer


@cell("several prompts")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, prompt=["1, 2, 3, 4,", "The capital of Germany is"], max_tokens=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    return answer


@cell("several prompts in a stream")
async def _(clients: Clients) -> Any:
    told = await stream(clients, prompt=["1, 2, 3, 4,", "The capital of Germany is"], max_tokens=3)
    assert sorted(told["texts"]) == ["0", "1"]
    return told


@cell("tokens as prompt")
async def _(clients: Clients) -> Any:
    return await ask(clients, prompt=[504, 3575, 282, 4649, 314])


@cell("echo")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, echo=True)
    assert text(answer).startswith(PROMPT)
    return answer


@cell("json_schema")
async def _(clients: Clients) -> Any:
    asked = "Two colours as JSON:\n[" + 3 * '{\n  "colour": "green"\n}, '
    answer = await ask(clients, prompt=asked, max_tokens=40, extra_body={"json_schema": COLOUR})
    assert json.loads(text(answer))["colour"] in ("red", "green")
    return answer


@cell("grammar")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, extra_body={"grammar": 'root ::= " Rome" | " Oslo"'})
    assert text(answer) in (" Rome", " Oslo")
    return answer


@cell("logit_bias")
async def _(clients: Clients) -> Any:
    answer = await ask(clients, extra_body={"logit_bias": {" Paris": -100}}, max_tokens=3)
    assert "Paris" not in text(answer)
    return answer


@cell("penalties")
async def _(clients: Clients) -> Any:
    return await ask(clients, presence_penalty=1.0, frequency_penalty=0.3, max_tokens=4)


@cell("no prompt", refused=bad("invalid_type", "prompt"))
async def _(clients: Clients) -> Any:
    return await ask(clients, prompt=None)


@cell("beyond the context", refused=bad("context_length_exceeded"))
async def _(clients: Clients) -> Any:
    return await ask(clients, prompt="hello world " * CONTEXT)


@cell("unknown token", refused=BAD)
async def _(clients: Clients) -> Any:
    return await ask(clients, prompt=[999_999])


@cell("suffix", refused=bad("unsupported_parameter", "suffix"))
async def _(clients: Clients) -> Any:
    return await ask(clients, suffix="!")


@cell("best_of", refused=bad("unsupported_parameter", "best_of"))
async def _(clients: Clients) -> Any:
    return await ask(clients, best_of=3)


@cell("max_tokens in words", refused=bad("invalid_type", "max_tokens"))
async def _(clients: Clients) -> Any:
    return await ask(clients, max_tokens="two")
