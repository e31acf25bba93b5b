"""`/v1/embeddings` and `/v1/rerank`: checked so that nothing is ignored; answers pass as they are."""

from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.json_values import Json, as_list, refuse, text, whole_number
from mesh_llm.gateway.openai.fields import without_engine_controls


def prepare_embeddings(body: Json, model: ServedModel) -> Json:
    given: Any = body.get("input")
    if not isinstance(given, str) and not as_list(given):
        refuse("input", "a string, or a list of at least one string or token number")
    if body.get("encoding_format") not in (None, "float", "base64"):
        refuse("encoding_format", '"float" or "base64"')
    dimensions = whole_number(body, "dimensions", least=1)
    if dimensions not in (None, model.facts.embedding_length):
        raise RequestRefused(
            f"{model.name} gives embeddings of {model.facts.embedding_length} dimensions only. "
            "Leave `dimensions` out.",
            code="unsupported_parameter",
            parameter="dimensions",
        )
    prepared = {name: value for name, value in without_engine_controls(body).items() if name != "dimensions"}
    return prepared | {"model": model.name}


def prepare_rerank(body: Json, model: ServedModel) -> Json:
    if not text(body, "query"):
        refuse("query", "a string")
    if not as_list(body.get("documents")):
        refuse("documents", "a list of at least one document")
    whole_number(body, "top_n", least=1)
    return without_engine_controls(body) | {"model": model.name}
