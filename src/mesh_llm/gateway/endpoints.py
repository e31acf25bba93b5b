"""Which routes generate, which merely forward, and who prepares their requests."""

from collections.abc import Callable
from dataclasses import dataclass

from mesh_llm.core.errors import MeshError
from mesh_llm.core.serving import Dialect, ServedModel
from mesh_llm.gateway.anthropic import messages
from mesh_llm.gateway.errors import anthropic_shape, openai_shape
from mesh_llm.gateway.exchange import Exchange, Identify, TemplateAbilities
from mesh_llm.gateway.json_values import Json
from mesh_llm.gateway.openai import chat, completions, embeddings, passing, responses, tokens
from mesh_llm.gateway.openai.responses_answer import broken_off
from mesh_llm.gateway.sse import encode


@dataclass(frozen=True, slots=True)
class Situation:
    """What preparing a request may depend on besides its body."""

    model: ServedModel
    template: TemplateAbilities
    identify: Identify
    now: int
    """Seconds since the epoch."""
    dialect: Dialect = "llama"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client has been sent of a stream: its first bytes and its last."""

    start: bytes
    end: bytes


@dataclass(frozen=True, slots=True)
class Generation:
    """A route that makes the engine generate."""

    capability: str
    prepare: Callable[[Json, Situation], Exchange]
    break_off: Callable[[Heard, MeshError], bytes]
    """The last event of a stream that passed unread and broke off, in the dialect's own form."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A route whose answer passes as the engine gives it."""

    engine_path: str
    capability: str | None
    prepare: Callable[[Json, ServedModel], Json]
    queued: bool
    """Whether it takes one of the engine's slots."""
    only_llama: bool = False
    """Whether only llama-server has it."""


@dataclass(frozen=True, slots=True)
class Counting:
    """Anthropic's question how many tokens a request would have to read."""

    capability: str = "chat"


Route = Generation | Forwarding | Counting


def _chat(body: Json, at: Situation) -> Exchange:
    if at.dialect == "openai":
        return passing.exchange(chat.PATH, body, at.model)
    return chat.exchange(body, at.model, at.template, at.identify)


def _completions(body: Json, at: Situation) -> Exchange:
    if at.dialect == "openai":
        return passing.exchange(completions.PATH, body, at.model)
    return completions.exchange(body, at.model)


def _responses(body: Json, at: Situation) -> Exchange:
    return _translated(responses.exchange(body, at.model, at.template, at.identify, at.now), at)


def _messages(body: Json, at: Situation) -> Exchange:
    return _translated(messages.exchange(body, at.model, at.template, at.identify), at)


def _translated(exchange: Exchange, at: Situation) -> Exchange:
    return passing.without_llama_fields(exchange) if at.dialect == "openai" else exchange


def _break_off_chat(_: Heard, error: MeshError) -> bytes:
    return encode(openai_shape(error))


def _break_off_message(_: Heard, error: MeshError) -> bytes:
    return encode(anthropic_shape(error), "error")


def _break_off_response(heard: Heard, error: MeshError) -> bytes:
    return broken_off(heard.start, heard.end, error)


GENERATIONS = {
    "/v1/chat/completions": Generation("chat", _chat, _break_off_chat),
    "/v1/completions": Generation("completions", _completions, _break_off_chat),
    "/v1/responses": Generation("chat", _responses, _break_off_response),
    "/v1/messages": Generation("chat", _messages, _break_off_message),
}

FORWARDINGS = {
    "/v1/embeddings": Forwarding("/v1/embeddings", "embeddings", embeddings.prepare_embeddings, queued=True),
    "/v1/rerank": Forwarding("/v1/rerank", "rerank", embeddings.prepare_rerank, queued=True),
    "/tokenize": Forwarding("/tokenize", None, tokens.prepare_tokenize, queued=False, only_llama=True),
    "/detokenize": Forwarding("/detokenize", None, tokens.prepare_detokenize, queued=False, only_llama=True),
    "/apply-template": Forwarding(
        "/apply-template", "chat", tokens.prepare_template, queued=False, only_llama=True
    ),
}

OTHER_NAMES = {"/rerank": "/v1/rerank", "/v1/reranking": "/v1/rerank", "/reranking": "/v1/rerank"}

ROUTES: dict[str, Route] = {
    **GENERATIONS,
    **FORWARDINGS,
    **{other: FORWARDINGS[path] for other, path in OTHER_NAMES.items()},
    "/v1/messages/count_tokens": Counting(),
}
"""Everything that is answered by a model, here or on another node."""
