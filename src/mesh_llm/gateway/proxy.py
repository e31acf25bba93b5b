"""The life of one request up to its answer: read, routed, queued, asked. The rest is delivery.py.

A client that leaves cancels this code where it stands, and that closes the connection to the engine.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from aiohttp import web

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.serving import Endpoint
from mesh_llm.gateway.anthropic import messages
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.delivery import STALL_SECONDS_MAX, Delivery, explained
from mesh_llm.gateway.endpoints import Forwarding, Generation, Situation
from mesh_llm.gateway.errors import read_engine_error
from mesh_llm.gateway.exchange import Identify
from mesh_llm.gateway.json_values import Json, dump, parse_object, text
from mesh_llm.gateway.metrics import RequestRecord
from mesh_llm.gateway.queue import Line
from mesh_llm.gateway.routing import choose, endpoint_of, require
from mesh_llm.gateway.templates import Templates
from mesh_llm.gateway.translation import read_counts
from mesh_llm.gateway.upstream import Upstream, UpstreamAnswer, UpstreamLost
from mesh_llm.runtime.clock import Clock

HEAD_BYTES = 1024
"""Of an embeddings answer: its `model` and `usage` stand before the numbers."""

MODEL_FIELD = re.compile(rb'"model":"(?:[^"\\]|\\.)*"')


class Proxy:
    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        upstream_of: Callable[[Backend], Upstream],
        clock: Clock,
        identify: Identify,
        on_change: Callable[[], None],
        stall_seconds_max: float = STALL_SECONDS_MAX,
    ) -> None:
        self._backends = backends
        self._upstream_of = upstream_of
        self._clock = clock
        self._identify = identify
        self._stall_seconds_max = stall_seconds_max
        self._templates = Templates()
        self.lines: defaultdict[str, Line] = defaultdict(lambda: Line(on_change))

    async def generate(
        self, request: web.Request, record: RequestRecord, how: Generation
    ) -> web.StreamResponse:
        body = await read_json(request)
        backend = self._choose(body, how.capability, record)
        upstream = self._upstream_of(backend)
        try:
            exchange = how.prepare(body, await self._situation(backend, upstream))
            record.usage = exchange.usage
            async with self.lines[backend.model.name].place(backend.model.slots, exchange.generations):
                endpoint = endpoint_of(backend.model, backend.condition)
                async with upstream.send(endpoint, exchange.path, dump(exchange.body)) as answer:
                    await _expect_success(answer)
                    delivery = Delivery(
                        request, record, exchange, backend, self._clock, self._stall_seconds_max
                    )
                    return await delivery.deliver(answer)
        except UpstreamLost as lost:
            raise await explained(backend, lost) from lost

    async def forward(self, request: web.Request, record: RequestRecord, how: Forwarding) -> web.Response:
        body = await read_json(request)
        backend = self._choose(body, how.capability, record)
        prepared = dump(how.prepare(body, backend.model))
        if how.queued:
            async with self.lines[backend.model.name].place(backend.model.slots):
                answer = await self._ask(backend, how.engine_path, prepared)
        else:
            answer = await self._ask(backend, how.engine_path, prepared)
        head = answer[:HEAD_BYTES]
        read_counts(head, record.usage)
        if how.queued:
            answer = with_model_name(head, backend.model.name) + answer[HEAD_BYTES:]
        return web.Response(body=answer, content_type="application/json")

    async def count_tokens(self, request: web.Request, record: RequestRecord) -> web.Response:
        """Anthropic's: how long the prompt would be, tools described where the template cannot."""
        body = await read_json(request)
        backend = self._choose(body, "chat", record)
        try:
            situation = await self._situation(backend, self._upstream_of(backend))
        except UpstreamLost as lost:
            raise await explained(backend, lost) from lost
        prepared = messages.prepare_count(body, situation.model, situation.template, situation.identify)
        answer = parse_object(await self._ask(backend, messages.COUNT_PATH, dump(prepared)))
        return web.json_response({"input_tokens": answer.get("input_tokens")})

    def _choose(self, body: Json, capability: str | None, record: RequestRecord) -> Backend:
        """Refuses at once what could not be answered now: nobody queues for a model that is down."""
        backend = choose(self._backends(), text(body, "model"), capability)
        record.model = backend.model.name
        require(backend.model, capability)
        endpoint_of(backend.model, backend.condition)
        return backend

    async def _situation(self, backend: Backend, upstream: Upstream) -> Situation:
        endpoint = endpoint_of(backend.model, backend.condition)
        template = await self._templates.abilities(backend.model.name, endpoint, upstream)
        return Situation(backend.model, template, self._identify, int(self._clock.epoch()))

    async def _ask(self, backend: Backend, path: str, body: bytes) -> bytes:
        endpoint: Endpoint = endpoint_of(backend.model, backend.condition)
        try:
            async with self._upstream_of(backend).send(endpoint, path, body) as answer:
                await _expect_success(answer)
                return await answer.whole()
        except UpstreamLost as lost:
            raise await explained(backend, lost) from lost


def with_model_name(head: bytes, name: str) -> bytes:
    """The first bytes of an answer, with the model's name as it is served here."""
    told = b'"model":' + dump(name)
    return MODEL_FIELD.sub(lambda _: told, head, count=1)


async def _expect_success(answer: UpstreamAnswer) -> None:
    if answer.status != 200:
        raise read_engine_error(answer.status, await answer.whole())


async def read_json(request: web.Request) -> Json:
    """The body, which is never held beyond its bound."""
    if (request.content_length or 0) > REQUEST_BODY_BYTES_MAX:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > REQUEST_BODY_BYTES_MAX:
            raise _too_large()
        parts.append(chunk)
    return parse_object(b"".join(parts))


def _too_large() -> RequestRefused:
    return RequestRefused(
        f"The body is larger than {human_bytes(REQUEST_BODY_BYTES_MAX)}. Send less, or smaller images.",
        http_status=413,
        code="body_too_large",
    )
