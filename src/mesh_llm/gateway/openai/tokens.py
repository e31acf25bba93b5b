"""`/tokenize`, `/detokenize` and `/apply-template`: llama-server's own, checked for what it chokes on."""

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.json_values import Json, as_list, objects_at, refuse, text


def prepare_tokenize(body: Json, model: ServedModel) -> Json:
    if text(body, "content") is None:
        refuse("content", "a string")
    return body


def prepare_detokenize(body: Json, model: ServedModel) -> Json:
    tokens = as_list(body.get("tokens"))
    if tokens is None:
        refuse("tokens", "a list of token numbers")
    for position, token in enumerate(tokens):
        if not isinstance(token, int) or isinstance(token, bool):
            refuse(f"tokens[{position}]", "a whole number")
        if not 0 <= token < model.facts.vocabulary:
            raise RequestRefused(
                f"Token {token} does not exist: {model.name} knows {model.facts.vocabulary} tokens.",
                code="invalid_value",
                parameter=f"tokens[{position}]",
            )
    return body


def prepare_template(body: Json, model: ServedModel) -> Json:
    objects_at(body, "messages")
    return body
