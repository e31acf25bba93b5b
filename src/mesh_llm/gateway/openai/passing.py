"""Requests to servers that speak OpenAI's API themselves: passed with as little change as possible.

They judge their fields, count their usage and mend their defects; only the model's name is set, since the
client may have written it in another case, or not at all.
"""

from dataclasses import replace

from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.exchange import Exchange
from mesh_llm.gateway.json_values import Json, flag
from mesh_llm.gateway.openai.chat_answer import ChatStream

LLAMA_FIELDS = ("return_progress", "verbose", "thinking_budget_tokens")
"""What our translations into chat completions add for llama-server; strict servers refuse unknown fields."""


def exchange(path: str, body: Json, model: ServedModel) -> Exchange:
    """The answer passes as it comes, streamed or whole."""
    return Exchange(path, named(body, model), ChatStream(model.name), (), flag(body, "stream"))


def named(body: Json, model: ServedModel) -> Json:
    return body | {"model": model.name}


def without_llama_fields(translated: Exchange) -> Exchange:
    body = {name: value for name, value in translated.body.items() if name not in LLAMA_FIELDS}
    return replace(translated, body=body)
