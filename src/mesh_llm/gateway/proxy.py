"""One question to one of this node's own backends: prepared, queued, asked. The rest is delivery.py.

A client that leaves cancels this code where it stands, and that closes the connection to the engine.
"""

import re
from collections.abc import Callable

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.anthropic import messages
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.delivery import Delivery, explained
from mesh_llm.gateway.endpoints import Counting, Forwarding, Generation, Situation
from mesh_llm.gateway.errors import read_engine_error
from mesh_llm.gateway.exchange import Exchange, Identify
from mesh_llm.gateway.json_values import dump, parse_object
from mesh_llm.gateway.metrics import RequestRecord
from mesh_llm.gateway.openai import passing
from mesh_llm.gateway.question import Question
from mesh_llm.gateway.queue import Lines
from mesh_llm.gateway.reply import CLIENT_LEFT, Reply, WholeAnswer
from mesh_llm.gateway.routing import endpoint_of
from mesh_llm.gateway.speeds import Speeds
from mesh_llm.gateway.templates import Templates
from mesh_llm.gateway.translation import TAIL_BYTES, read_counts
from mesh_llm.gateway.upstream import Upstream, UpstreamAnswer, UpstreamLost
from mesh_llm.runtime.clock import Clock

HEAD_BYTES = 1024
"""Of an embeddings answer: its `model` and `usage` stand before the numbers."""

MODEL_FIELD = re.compile(rb'"model":"(?:[^"\\]|\\.)*"')


class Proxy:
    def __init__(
        self, upstream_of: Callable[[Backend], Upstream], lines: Lines, clock: Clock, identify: Identify
    ) -> None:
        self._upstream_of = upstream_of
        self._lines = lines
        self._clock = clock
        self._identify = identify
        self._templates = Templates()
        self.speeds = Speeds()

    async def ask(self, backend: Backend, question: Question, reply: Reply) -> None:
        """Raises MeshError where the client has seen nothing yet; Unavailable and EngineFailed where somebody
        else may still answer."""
        try:
            match question.route:
                case Generation() as how:
                    await self._generate(backend, question, how, reply)
                case Forwarding() as how:
                    await self._forward(backend, question, how, reply)
                case Counting():
                    await self._count_tokens(backend, question, reply)
        except UpstreamLost as lost:
            raise await explained(backend, lost) from lost

    async def _generate(self, backend: Backend, question: Question, how: Generation, reply: Reply) -> None:
        upstream, record = self._upstream_of(backend), question.record
        exchange = how.prepare(question.fields, await self._situation(backend, upstream))
        record.usage = exchange.usage
        async with self._lines.of(backend).place(backend.model.slots, exchange.generations):
            endpoint = endpoint_of(backend.model, backend.condition)
            async with upstream.send(endpoint, exchange.path, dump(exchange.body)) as answer:
                await _expect_success(answer)
                if exchange.untouched and not exchange.stream:
                    await _send(reply, record, await answer.whole())
                    return
                await Delivery(reply, record, exchange, backend, self._clock).deliver(answer)
        self._note_speed(backend.model.name, record, exchange)

    def _note_speed(self, model: str, record: RequestRecord, exchange: Exchange) -> None:
        if record.first_token is not None:
            seconds = self._clock.monotonic() - record.first_token
            self.speeds.note(model, exchange.usage.completion_tokens // exchange.generations, seconds)

    async def _forward(self, backend: Backend, question: Question, how: Forwarding, reply: Reply) -> None:
        openai = endpoint_of(backend.model, backend.condition).dialect == "openai"
        if openai and how.only_llama:
            raise _not_offered(backend, question.path)
        prepare = passing.named if openai else how.prepare
        prepared = dump(prepare(question.fields, backend.model))
        if how.queued:
            async with self._lines.of(backend).place(backend.model.slots):
                answer = await self._whole_answer(backend, how.engine_path, prepared)
        else:
            answer = await self._whole_answer(backend, how.engine_path, prepared)
        if how.queued and not openai:
            answer = with_model_name(answer[:HEAD_BYTES], backend.model.name) + answer[HEAD_BYTES:]
        await _send(reply, question.record, answer)

    async def _count_tokens(self, backend: Backend, question: Question, reply: Reply) -> None:
        """How long the prompt would be, tools described where the template cannot."""
        situation = await self._situation(backend, self._upstream_of(backend))
        if situation.dialect == "openai":
            raise _not_offered(backend, question.path)
        prepared = messages.prepare_count(
            question.fields, situation.model, situation.template, situation.identify
        )
        answer = parse_object(await self._whole_answer(backend, messages.COUNT_PATH, dump(prepared)))
        await reply.send(WholeAnswer(dump({"input_tokens": answer.get("input_tokens")})))

    async def _situation(self, backend: Backend, upstream: Upstream) -> Situation:
        endpoint = endpoint_of(backend.model, backend.condition)
        template = await self._templates.abilities(endpoint, upstream)
        now = int(self._clock.epoch())
        return Situation(backend.model, template, self._identify, now, endpoint.dialect)

    async def _whole_answer(self, backend: Backend, path: str, body: bytes) -> bytes:
        endpoint = endpoint_of(backend.model, backend.condition)
        async with self._upstream_of(backend).send(endpoint, path, body) as answer:
            await _expect_success(answer)
            return await answer.whole()


async def _send(reply: Reply, record: RequestRecord, answer: bytes) -> None:
    read_counts(answer[:HEAD_BYTES] + answer[-TAIL_BYTES:], record.usage)
    try:
        await reply.send(WholeAnswer(answer))
    except ConnectionResetError:
        record.status = CLIENT_LEFT


def with_model_name(head: bytes, name: str) -> bytes:
    """The first bytes of an answer, with the model's name as it is served here."""
    told = b'"model":' + dump(name)
    return MODEL_FIELD.sub(lambda _: told, head, count=1)


def _not_offered(backend: Backend, path: str) -> RequestRefused:
    return RequestRefused(
        f"{backend.model.name} runs on a server that does not offer {path}. Name another model.",
        code="unsupported_model",
        parameter="model",
    )


async def _expect_success(answer: UpstreamAnswer) -> None:
    if answer.status != 200:
        raise read_engine_error(answer.status, await answer.whole())
