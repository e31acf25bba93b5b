"""A request as it was read: whole, before it is decided who answers it."""

from dataclasses import dataclass

from aiohttp import web

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.core.quantities import human_bytes
from mesh_llm.gateway.endpoints import Route
from mesh_llm.gateway.json_values import Json, parse_object, text
from mesh_llm.gateway.metrics import RequestRecord


@dataclass(frozen=True, slots=True)
class Question:
    path: str
    route: Route
    body: bytes
    """As it came: another node gets it untouched."""
    fields: Json
    """The body, parsed."""
    model: str | None
    """The name asked for."""
    record: RequestRecord


def question_of(
    path: str, route: Route, body: bytes, record: RequestRecord, model: str | None = None
) -> Question:
    """`model` overrules the body. Raises RequestRefused for a body that is no JSON object."""
    fields = parse_object(body)
    return Question(path, route, body, fields, model or text(fields, "model"), record)


async def read_body(request: web.Request) -> bytes:
    """Never held beyond its bound."""
    if (request.content_length or 0) > REQUEST_BODY_BYTES_MAX:
        raise too_large()
    parts: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > REQUEST_BODY_BYTES_MAX:
            raise too_large()
        parts.append(chunk)
    return b"".join(parts)


def too_large() -> RequestRefused:
    return RequestRefused(
        f"The body is larger than {human_bytes(REQUEST_BODY_BYTES_MAX)}. Send less, or smaller images.",
        http_status=413,
        code="body_too_large",
    )
