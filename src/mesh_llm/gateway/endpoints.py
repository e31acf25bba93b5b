"""Which routes generate, which merely forward, and who prepares their requests."""

from collections.abc import Callable
from dataclasses import dataclass

from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.anthropic import messages
from mesh_llm.gateway.exchange import Exchange, Identify, TemplateAbilities
from mesh_llm.gateway.json_values import Json
from mesh_llm.gateway.openai import chat, completions, embeddings, responses, tokens


@dataclass(frozen=True, slots=True)
class Situation:
    """What preparing a request may depend on besides its body."""

    model: ServedModel
    template: TemplateAbilities
    identify: Identify
    now: int
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A route that makes the engine generate."""

    capability: str
    prepare: Callable[[Json, Situation], Exchange]


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A route whose answer passes as the engine gives it."""

    engine_path: str
    capability: str | None
    prepare: Callable[[Json, ServedModel], Json]
    queued: bool
    """Whether it takes one of the engine's slots."""


GENERATIONS = {
    "/v1/chat/completions": Generation(
        "chat", lambda body, at: chat.exchange(body, at.model, at.template, at.identify)
    ),
    "/v1/completions": Generation("completions", lambda body, at: completions.exchange(body, at.model)),
    "/v1/responses": Generation(
        "chat", lambda body, at: responses.exchange(body, at.model, at.template, at.identify, at.now)
    ),
    "/v1/messages": Generation(
        "chat", lambda body, at: messages.exchange(body, at.model, at.template, at.identify)
    ),
}

FORWARDINGS = {
    "/v1/embeddings": Forwarding("/v1/embeddings", "embeddings", embeddings.prepare_embeddings, queued=True),
    "/v1/rerank": Forwarding("/v1/rerank", "rerank", embeddings.prepare_rerank, queued=True),
    "/tokenize": Forwarding("/tokenize", None, tokens.prepare_tokenize, queued=False),
    "/detokenize": Forwarding("/detokenize", None, tokens.prepare_detokenize, queued=False),
    "/apply-template": Forwarding("/apply-template", "chat", tokens.prepare_template, queued=False),
}
