"""The API's front door: routes, who may enter, and how a refusal looks."""

import asyncio
import functools
import random
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST

from mesh_llm.core.errors import MeshError, RequestRefused
from mesh_llm.core.loopback import is_loopback_origin
from mesh_llm.core.offers import ServedOffer
from mesh_llm.gateway import access
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.directory import Directory
from mesh_llm.gateway.dispatch import Dispatch
from mesh_llm.gateway.endpoints import ROUTES, Route
from mesh_llm.gateway.flights import Flights
from mesh_llm.gateway.metrics import GatewayStatistics, Metrics, ModelStatistics, RequestRecord
from mesh_llm.gateway.openai import models
from mesh_llm.gateway.proxy import Proxy
from mesh_llm.gateway.question import question_of, read_body
from mesh_llm.gateway.queue import Lines
from mesh_llm.gateway.relay import Relay
from mesh_llm.gateway.remote import Mesh, TunnelStream
from mesh_llm.gateway.reply import CLIENT_LEFT, STALL_SECONDS_MAX, HttpReply, http_response, refusal
from mesh_llm.gateway.routing import Readiness, choose
from mesh_llm.gateway.tunnel_server import TunnelServer
from mesh_llm.gateway.under_way import UnderWay
from mesh_llm.gateway.upstream import HttpUpstream, Upstream
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
        fetching: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`backends` is asked anew for each request; `on_change` is called when `statistics` change.

        `upstream_of` tells how to reach a backend that does not answer HTTP at its endpoint's URL. `mesh`
        says who else serves models; without one this node is alone. `fetching`: what will be served here, but
        is not on disk yet.
        """
        self._backends = backends
        self._api_key = api_key
        self._clock = clock
        self._on_change = on_change
        self._stall_seconds_max = stall_seconds_max
        self._http = HttpUpstream()
        self._metrics = Metrics(mesh.traffic if mesh is not None else dict)
        self._under_way = UnderWay()
        self._lines = Lines(backends, on_change)

        def identify(prefix: str) -> str:
            return prefix + "".join(chance.choices(ID_ALPHABET, k=24))

        flights = Flights()
        proxy = Proxy(upstream_of or (lambda _: self._http), self._lines, clock, identify)
        relay = Relay(mesh, flights, clock) if mesh is not None else None
        self._directory = Directory(backends, mesh, self._lines, proxy.speeds, flights)
        self._fetching = fetching
        self._dispatch = Dispatch(self._directory, proxy, relay, clock, fetching)
        self._tunnels = TunnelServer(
            functools.partial(self._dispatch.answer, only_here=True),
            self._answering,
            self.busy,
            clock,
            stall_seconds_max,
        )

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        await serve(self.application(), listener)

    async def answer(self, stream: TunnelStream) -> None:
        """Answer one question of another node's gateway, by this node's own backends; `run` must be running.

        The stream remains the caller's to close. Returns also where the asker left. Raises PeerError where
        it broke the protocol.
        """
        await self._tunnels.answer(stream)

    def offers(self) -> tuple[ServedOffer, ...]:
        """What this node's own backends serve, for its advert; none is ready while it drains."""
        ready = not self._dispatch.leaving
        return tuple(replace(one, ready=one.ready and ready) for one in self._directory.offers())

    def busy(self) -> int:
        """Requests that this node's own backends are answering or have waiting."""
        return sum(self._lines.of(backend).busy for backend in self._backends())

    def busy_with(self, model: str) -> int:
        """Requests that this node is answering with one model, or has waiting for it."""
        return sum(line.busy for line in self._lines.before(model))

    def drain(self) -> None:
        """From now on other nodes are sent elsewhere, and own clients too where somebody else can answer."""
        self._dispatch.leaving = True
        self._tunnels.leaving = True

    async def wait_idle(self) -> None:
        """Returns when no model is answering anybody."""
        await self._under_way.wait_for_none()

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
        lines, totals = self._lines.before(name), self._metrics.totals[name]
        return ModelStatistics(
            name=name,
            in_flight=sum(line.in_flight for line in lines),
            queued=sum(line.queued for line in lines),
            requests=totals.requests,
            prompt_tokens=totals.prompt_tokens,
            completion_tokens=totals.completion_tokens,
        )

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._observe, self._guard])
        application.on_response_prepare.append(_allow_local_pages)
        application.cleanup_ctx.append(self._connections)
        route = application.router
        for path, asked in ROUTES.items():
            route.add_post(path, self._asking(path, asked))
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

    def _asking(self, path: str, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            question = question_of(path, route, await read_body(request), request[RECORD])
            reply = HttpReply(request, self._stall_seconds_max)
            with self._under_way.one_more():
                await self._dispatch.answer(question, reply)
            return reply.response or web.Response(status=CLIENT_LEFT)

        return handle

    @contextmanager
    def _answering(self, record: RequestRecord) -> Generator[None]:
        """Counts a question of another node."""
        try:
            with self._under_way.one_more():
                yield
        finally:
            self._metrics.record(record, self._clock.monotonic())
            self._on_change()

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(models.listing(self._directory.rows(self._clock.monotonic())))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        chosen = choose(self._directory.standings(), request.match_info["id"])
        rows = self._directory.rows(self._clock.monotonic())
        return web.json_response(
            models.describe([row for row in rows if row.served.offer.name == chosen.name])
        )

    async def _health(self, _: web.Request) -> web.StreamResponse:
        known = [standing.readiness for standing in self._directory.standings()]
        coming = Readiness.COMING in known or bool(self._fetching())
        if coming and Readiness.READY not in known:
            return web.json_response({"status": "loading"}, status=503, headers={"Retry-After": "2"})
        well = Readiness.READY in known or not known
        return web.json_response({"status": "ok" if well else "failed"})

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
            return http_response(refusal(error, request.path))
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
