"""What the gateway counts: for Prometheus at `/metrics`, and as one frozen record for the console."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from mesh_llm.gateway.exchange import Usage

LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds. Whole answers on a CPU take minutes, first tokens of long prompts tens of seconds."""


class Way(StrEnum):
    """How a question was answered, seen from this node."""

    HERE = "here"
    RELAYED = "relayed"
    """By another node."""
    SERVED = "served"
    """Here, for a client of another node."""


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    name: str
    in_flight: int
    queued: int
    requests: int
    """Answered since the start, whatever the outcome."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    in_flight: int
    queued: int
    requests: int
    models: tuple[ModelStatistics, ...]


@dataclass(slots=True)
class RequestRecord:
    """One request as it is being answered."""

    endpoint: str
    started: float
    model: str = ""
    status: int = 0
    first_token: float | None = None
    way: Way = Way.HERE
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Totals:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


Traffic = Callable[[], Mapping[str, tuple[int, int]]]
"""Bytes sent to other nodes and received from them, by what their streams are for."""


class _MeshBytes(Collector):
    """Counted elsewhere, read when somebody asks."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "mesh_llm_mesh_bytes",
            "In streams between this node and others; datagrams of gossip apart",
            labels=("kind", "direction"),
        )
        for kind, (sent, received) in self._traffic().items():
            family.add_metric((kind, "sent"), sent)
            family.add_metric((kind, "received"), received)
        yield family


class Metrics:
    def __init__(self, traffic: Traffic = dict) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_MeshBytes(traffic))
        registry = self._registry
        self._requests = Counter(
            "mesh_llm_requests", "Requests answered", ["model", "endpoint", "status"], registry=registry
        )
        self._ways = Counter(
            "mesh_llm_answers",
            "Answers of models: here, relayed to another node, served to another node's client",
            ["model", "way"],
            registry=registry,
        )
        self._prompt = Counter("mesh_llm_prompt_tokens", "Prompt tokens", ["model"], registry=registry)
        self._completion = Counter(
            "mesh_llm_completion_tokens", "Tokens generated", ["model"], registry=registry
        )
        self._latency = Histogram(
            "mesh_llm_request_seconds",
            "From the request to the end of its answer",
            ["model", "endpoint"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "mesh_llm_first_token_seconds",
            "From the request to the first bytes of its answer, time in the queue included",
            ["model", "endpoint"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge("mesh_llm_requests_in_flight", "Being answered", ["model"], registry=registry)
        self._queued = Gauge("mesh_llm_requests_queued", "Waiting for a place", ["model"], registry=registry)
        self.totals: defaultdict[str, Totals] = defaultdict(Totals)
        self.requests = 0

    def record(self, request: RequestRecord, now: float) -> None:
        """Takes down a request that has been answered."""
        self.requests += 1
        self._requests.labels(request.model, request.endpoint, str(request.status)).inc()
        if not request.model:
            return
        self._ways.labels(request.model, request.way).inc()
        totals = self.totals[request.model]
        totals.requests += 1
        totals.prompt_tokens += request.usage.prompt_tokens
        totals.completion_tokens += request.usage.completion_tokens
        self._prompt.labels(request.model).inc(request.usage.prompt_tokens)
        self._completion.labels(request.model).inc(request.usage.completion_tokens)
        self._latency.labels(request.model, request.endpoint).observe(now - request.started)
        if request.first_token is not None:
            self._first_token.labels(request.model, request.endpoint).observe(
                request.first_token - request.started
            )

    def exposition(self, statistics: GatewayStatistics) -> bytes:
        """Prometheus' text format."""
        self._in_flight.clear()
        self._queued.clear()
        for model in statistics.models:
            self._in_flight.labels(model.name).set(model.in_flight)
            self._queued.labels(model.name).set(model.queued)
        return generate_latest(self._registry)
