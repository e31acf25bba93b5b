"""The API's front door: routes, who may enter, and how a refusal looks."""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST

from mesh_llm.core.errors import MeshError, RequestRefused, Unavailable
from mesh_llm.core.loopback import is_loopback_origin
from mesh_llm.core.offers import ServedOffer
from mesh_llm.core.serving import Loading, Ready, Restarting
from mesh_llm.gateway import access
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.delivery import CLIENT_LEFT, STALL_SECONDS_MAX
from mesh_llm.gateway.endpoints import FORWARDINGS, GENERATIONS, Forwarding, Generation
from mesh_llm.gateway.errors import anthropic_shape, openai_shape
from mesh_llm.gateway.json_values import dump
from mesh_llm.gateway.metrics import GatewayStatistics, Metrics, ModelStatistics, RequestRecord
from mesh_llm.gateway.offers import offer_of
from mesh_llm.gateway.openai import models
from mesh_llm.gateway.proxy import Proxy
from mesh_llm.gateway.remote import Mesh, TunnelStream
from mesh_llm.gateway.routing import AUTOMATIC, choose
from mesh_llm.gateway.upstream import HttpUpstream, Upstream
from mesh_llm.mesh.transport import PeerError
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.web import serve

OPEN_PATHS = frozenset({"/health", "/v1/health"})
"""Answered without a key: load balancers and container runtimes have none."""

PREFLIGHT_SECONDS = "600"
ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
RECORD = web.RequestKey("record", RequestRecord)


def _nobody() -> None:
    """Called on a change that nobody watches."""


class Gateway:
    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        *,
        api_key: str | None,
        clock: Clock,
        chance: random.Random,
        on_change: Callable[[], None] = _nobody,
        upstream_of: Callable[[Backend], Upstream] | None = None,
        stall_seconds_max: float = STALL_SECONDS_MAX,
        mesh: Mesh | None = None,
    ) -> None:
        """`backends` is asked anew for each request; `on_change` is called when `statistics` change.

        `upstream_of` tells how to reach a backend that does not answer HTTP at its endpoint's URL. `mesh`
        says who else serves models; without one this node is alone.
        """
        self._mesh = mesh
        self._draining = False
        self._backends = backends
        self._api_key = api_key
        self._clock = clock
        self._on_change = on_change
        self._http = HttpUpstream()
        self._metrics = Metrics()

        def identify(prefix: str) -> str:
            return prefix + "".join(chance.choices(ID_ALPHABET, k=24))

        self._proxy = Proxy(
            backends, upstream_of or (lambda _: self._http), clock, identify, on_change, stall_seconds_max
        )

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        await serve(self.application(), listener)

    async def answer(self, stream: TunnelStream) -> None:
        """Answer one request of another node's gateway, by this node's own backends; `run` must be running.

        The stream remains the caller's to close. Returns also where the requester left. Raises PeerError
        where it broke the protocol.
        """
        raise PeerError("tunnels are not answered yet")

    def offers(self) -> tuple[ServedOffer, ...]:
        """What this node's own backends serve, for its advert."""
        return tuple(
            ServedOffer(offer_of(backend.model), isinstance(backend.condition, Ready) and not self._draining)
            for backend in self._backends()
        )

    def busy(self) -> int:
        """Requests that this node's own backends are answering or have waiting."""
        statistics = self.statistics()
        return statistics.in_flight + statistics.queued

    def drain(self) -> None:
        """From now on other nodes are sent elsewhere, and own clients where somebody else can answer them."""
        self._draining = True

    async def wait_idle(self) -> None:
        """Returns when no request is being answered, whoever asked."""

    def statistics(self) -> GatewayStatistics:
        names = sorted({backend.model.name for backend in self._backends()} | set(self._metrics.totals))
        rows = tuple(self._model_statistics(name) for name in names)
        return GatewayStatistics(
            in_flight=sum(row.in_flight for row in rows),
            queued=sum(row.queued for row in rows),
            requests=self._metrics.requests,
            models=rows,
        )

    def _model_statistics(self, name: str) -> ModelStatistics:
        line, totals = self._proxy.lines[name], self._metrics.totals[name]
        return ModelStatistics(
            name=name,
            in_flight=line.in_flight,
            queued=line.queued,
            requests=totals.requests,
            prompt_tokens=totals.prompt_tokens,
            completion_tokens=totals.completion_tokens,
        )

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._observe, self._guard])
        application.on_response_prepare.append(_allow_local_pages)
        application.cleanup_ctx.append(self._connections)
        route = application.router
        for path, generation in GENERATIONS.items():
            route.add_post(path, self._generating(generation))
        for path, forwarding in FORWARDINGS.items():
            route.add_post(path, self._forwarding(forwarding))
        for path in ("/rerank", "/v1/reranking", "/reranking"):
            route.add_post(path, self._forwarding(FORWARDINGS["/v1/rerank"]))
        route.add_post("/v1/messages/count_tokens", self._count_tokens)
        for path in ("/v1/models", "/models"):
            route.add_get(path, self._models)
        route.add_get("/v1/models/{id:.+}", self._model)
        for path in ("/health", "/v1/health"):
            route.add_get(path, self._health)
        route.add_get("/metrics", self._exposition)
        return application

    async def _connections(self, _: web.Application) -> AsyncGenerator[None]:
        await self._http.open()
        yield
        await self._http.close()

    def _generating(self, how: Generation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._proxy.generate(request, request[RECORD], how)

        return handle

    def _forwarding(self, how: Forwarding) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._proxy.forward(request, request[RECORD], how)

        return handle

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        return await self._proxy.count_tokens(request, request[RECORD])

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(models.listing(self._backends()))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        return web.json_response(
            models.describe(choose(self._backends(), None if name == AUTOMATIC else name))
        )

    async def _health(self, _: web.Request) -> web.StreamResponse:
        conditions = [backend.condition for backend in self._backends()]
        ready = any(isinstance(condition, Ready) for condition in conditions)
        coming = any(isinstance(condition, Loading | Restarting) for condition in conditions)
        if coming and not ready:
            return web.json_response({"status": "loading"}, status=503, headers={"Retry-After": "2"})
        return web.json_response({"status": "ok" if ready or not conditions else "failed"})

    async def _exposition(self, _: web.Request) -> web.StreamResponse:
        body = self._metrics.exposition(self.statistics())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts every request and gives every refusal its shape."""
        record = RequestRecord(_endpoint_of(request), self._clock.monotonic())
        request[RECORD] = record
        try:
            response = await handler(request)
            record.status = record.status or response.status
            return response
        except MeshError as error:
            record.status = error.http_status
            return _as_response(error, request.path)
        except asyncio.CancelledError:
            record.status = CLIENT_LEFT
            raise
        finally:
            self._metrics.record(record, self._clock.monotonic())
            self._on_change()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        asks_first = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        access.check(
            request.headers,
            api_key=self._api_key,
            needs_key=not asks_first and request.path not in OPEN_PATHS,
            local_address=_local_address(request),
        )
        if asks_first:
            return _preflight(request)
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as refused:
            allowed = ", ".join(sorted(refused.allowed_methods))
            raise RequestRefused(
                f"{request.path} does not take {request.method}. Use {allowed}.",
                http_status=405,
                code="method_not_allowed",
            ) from None
        except web.HTTPNotFound:
            raise RequestRefused(
                f"There is nothing at {request.path}. Try /v1/models or /v1/chat/completions.",
                http_status=404,
                code="not_found",
            ) from None


def _local_address(request: web.Request) -> str | None:
    address: Any = request.get_extra_info("sockname")
    return str(address[0]) if address else None


def _endpoint_of(request: web.Request) -> str:
    """The route, not the path: strangers must not be able to invent label values."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"


def _as_response(error: MeshError, path: str) -> web.Response:
    shape = anthropic_shape(error) if path.startswith("/v1/messages") else openai_shape(error)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else {}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        body=dump(shape), status=error.http_status, content_type="application/json", headers=headers
    )


def _preflight(request: web.Request) -> web.Response:
    """A browser asks before it sends a page's request; only pages on localhost get this far."""
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", "*"),
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
    }
    return web.Response(status=204, headers=headers)


async def _allow_local_pages(request: web.Request, response: web.StreamResponse) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and is_loopback_origin(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
