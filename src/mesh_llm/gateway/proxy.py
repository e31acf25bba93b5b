"""The life of one request: read, routed, queued, asked, translated, sent.

Until the first byte of the answer every failure is an error with a status; after it, an event in the stream.
A client that leaves cancels this code where it stands, and that closes the connection to the engine.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import aclosing

from aiohttp import web

from mesh_llm.core.errors import EngineFailed, MeshError, RequestRefused
from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.serving import Endpoint
from mesh_llm.gateway.anthropic import messages
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.endpoints import Forwarding, Generation, Situation
from mesh_llm.gateway.errors import read_engine_error
from mesh_llm.gateway.exchange import Exchange, Identify
from mesh_llm.gateway.json_values import Json, dump, parse_object, text
from mesh_llm.gateway.metrics import RequestRecord
from mesh_llm.gateway.queue import Line
from mesh_llm.gateway.routing import choose, endpoint_of
from mesh_llm.gateway.templates import Templates
from mesh_llm.gateway.translation import Mended, Untouched, read_counts
from mesh_llm.gateway.upstream import Upstream, UpstreamAnswer, UpstreamLost
from mesh_llm.runtime.clock import Clock

CLIENT_LEFT = 499
"""As nginx counts it."""

HEAD_BYTES = 1024
"""Of an embeddings answer: its `usage` stands before the numbers."""

EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Proxy:
    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        upstream_of: Callable[[Backend], Upstream],
        clock: Clock,
        identify: Identify,
        on_change: Callable[[], None],
    ) -> None:
        self._backends = backends
        self._upstream_of = upstream_of
        self._clock = clock
        self._identify = identify
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
            async with self.lines[backend.model.name].place(backend.model.slots):
                endpoint = endpoint_of(backend.model, backend.condition)
                async with upstream.send(endpoint, exchange.path, dump(exchange.body)) as answer:
                    await _expect_success(answer)
                    return await _Delivery(request, record, exchange, backend, self._clock).deliver(answer)
        except UpstreamLost as lost:
            raise await _explained(backend, lost) from lost

    async def forward(self, request: web.Request, record: RequestRecord, how: Forwarding) -> web.Response:
        body = await read_json(request)
        backend = self._choose(body, how.capability, record)
        prepared = dump(how.prepare(body, backend.model))
        if how.queued:
            async with self.lines[backend.model.name].place(backend.model.slots):
                answer = await self._ask(backend, how.engine_path, prepared)
        else:
            answer = await self._ask(backend, how.engine_path, prepared)
        read_counts(answer[:HEAD_BYTES], record.usage)
        return web.Response(body=answer, content_type="application/json")

    async def count_tokens(self, request: web.Request, record: RequestRecord) -> web.Response:
        """Anthropic's: how long the prompt would be, tools described where the template cannot."""
        body = await read_json(request)
        backend = self._choose(body, "chat", record)
        try:
            situation = await self._situation(backend, self._upstream_of(backend))
        except UpstreamLost as lost:
            raise await _explained(backend, lost) from lost
        prepared = messages.prepare_count(body, situation.model, situation.template, situation.identify)
        answer = parse_object(await self._ask(backend, messages.COUNT_PATH, dump(prepared)))
        return web.json_response({"input_tokens": answer.get("input_tokens")})

    def _choose(self, body: Json, capability: str | None, record: RequestRecord) -> Backend:
        """Refuses at once what could not be answered now: nobody queues for a model that is down."""
        backend = choose(self._backends(), text(body, "model"), capability)
        record.model = backend.model.name
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
            raise await _explained(backend, lost) from lost


class _Delivery:
    """The answer of an engine on its way to one client."""

    def __init__(
        self, request: web.Request, record: RequestRecord, exchange: Exchange, backend: Backend, clock: Clock
    ) -> None:
        self._request = request
        self._record = record
        self._exchange = exchange
        self._backend = backend
        self._clock = clock
        self._translation = Untouched(exchange) if exchange.untouched else Mended(exchange)
        self._response: web.StreamResponse | None = None

    async def deliver(self, answer: UpstreamAnswer) -> web.StreamResponse:
        try:
            await self._pass_on(answer)
        except (MeshError, UpstreamLost) as broken:
            if self._response is None:
                raise
            await self._break_off(self._response, broken)
        except ConnectionResetError:
            if self._response is None:
                raise
            self._record.status = CLIENT_LEFT
        if self._response is None:
            return web.json_response(body=dump(self._exchange.writer.answer()))
        return self._response

    async def _pass_on(self, answer: UpstreamAnswer) -> None:
        translation = self._translation
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                if self._record.first_token is None:
                    await self._begin()
                out = translation.feed(chunk)
                if out and self._response is not None:
                    await self._response.write(out)
        if not translation.ended:
            raise UpstreamLost("its answer has no end")
        last = translation.finish()
        if translation.told is not None:
            self._record.status = translation.told.http_status
        if last and self._response is not None:
            await self._response.write(last)

    async def _begin(self) -> None:
        self._record.first_token = self._clock.monotonic()
        if self._exchange.stream:
            self._response = web.StreamResponse(headers=EVENT_STREAM)
            await self._response.prepare(self._request)

    async def _break_off(self, response: web.StreamResponse, broken: MeshError | UpstreamLost) -> None:
        error = broken if isinstance(broken, MeshError) else await _explained(self._backend, broken)
        self._record.status = error.http_status
        await response.write(self._exchange.writer.failure(error))


async def _explained(backend: Backend, lost: UpstreamLost) -> EngineFailed:
    reason = await backend.explain_failure() or str(lost) or "it gave no reason"
    return EngineFailed(f"The engine of {backend.model.name} broke off: {reason}")


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
