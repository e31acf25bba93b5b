"""A question to another node's gateway, and its answer on the way to a client. Counterpart: tunnel_server.py.

The question goes as it came. Of the answer nothing is parsed but its end; a stream breaks off between two
events. No clock limits the silence of a node that lives, as a long prompt is silent for minutes: the mesh
notices the dead.
"""

import contextlib
import json

from mesh_llm.core.errors import EngineFailed, MeshError, ModelNotFound, Unavailable
from mesh_llm.gateway.endpoints import Generation, Heard
from mesh_llm.gateway.exchange import Usage
from mesh_llm.gateway.flights import Flights
from mesh_llm.gateway.json_values import as_object
from mesh_llm.gateway.question import Question
from mesh_llm.gateway.remote import Mesh, RemoteServer, TunnelStream
from mesh_llm.gateway.reply import CLIENT_LEFT, EVENTS, Reply, WholeAnswer
from mesh_llm.gateway.translation import TAIL_BYTES, Untouched, read_counts
from mesh_llm.gateway.tunnel import AnswerHead, QuestionHead, decode_answer, encode, frames_of
from mesh_llm.gateway.upstream import ANSWER_BYTES_MAX
from mesh_llm.mesh.transport import PeerError, Refused, Unreachable
from mesh_llm.runtime.clock import Clock

HEAD_BYTES = 1024
"""Of a whole answer: embeddings count their tokens before the numbers."""

START_BYTES_MAX = 64 * 1024
"""Of a stream's first frame: what breaks it off may have to name what began it."""

RETRY_AFTER_S = 2
"""Where a node was lost: by then the mesh knows, and another may answer."""


class NodeLost(Unavailable):
    """The node could not be reached, or broke off."""


class Relay:
    def __init__(self, mesh: Mesh, flights: Flights, clock: Clock) -> None:
        self._mesh = mesh
        self._flights = flights
        self._clock = clock

    async def ask(self, server: RemoteServer, question: Question, reply: Reply) -> None:
        """Raises NodeLost, Unavailable, EngineFailed or ModelNotFound where the client has seen nothing and
        another server may answer. What breaks off later ends with an error event."""
        self._flights.took_off(server.node)
        passage = Passage(server, question, reply, self._clock)
        try:
            async with self._mesh.tunnel(server.node) as stream:
                await send_question(stream, question, server.served.offer.name)
                head = decode_answer(await stream.receive())
                self._flights.heard(server.node, head.busy, self._clock.monotonic())
                await passage.pass_on(stream, head)
                with contextlib.suppress(Unreachable):
                    await stream.finish()
        except (Unreachable, PeerError, Refused) as broken:
            self._mesh.doubt(server.node)
            await passage.break_off(broken)
        except ConnectionResetError:
            question.record.status = CLIENT_LEFT
        finally:
            self._flights.landed(server.node)


async def send_question(stream: TunnelStream, question: Question, model: str) -> None:
    """This side stays open until the answer is there: a stream that breaks tells the node to stop."""
    await stream.send(encode(QuestionHead(path=question.path, model=model, size=len(question.body))))
    for frame in frames_of(question.body):
        await stream.send(frame)


class Passage:
    """One answer on its way."""

    def __init__(self, server: RemoteServer, question: Question, reply: Reply, clock: Clock) -> None:
        self._server = server
        self._question = question
        self._record = question.record
        self._reply = reply
        self._clock = clock
        self._usage = question.record.usage = Usage()
        self._events = Untouched(self._usage)
        self._start = b""

    async def pass_on(self, stream: TunnelStream, head: AnswerHead) -> None:
        if head.status == 200 and head.content_type.startswith(EVENTS):
            await self._pass_events(stream)
        else:
            await self._pass_whole(stream, head)

    async def _pass_events(self, stream: TunnelStream) -> None:
        while (frame := await stream.receive()) is not None:
            if not self._start:
                self._start = frame[:START_BYTES_MAX]
                self._record.first_token = self._clock.monotonic()
            events = self._events.feed(frame)
            if events:
                await self._reply.write(events)
        if not self._start:
            raise Unreachable("its answer is empty")
        last = self._events.finish()
        if self._events.told is not None:
            self._record.status = self._events.told.http_status
        if last:
            await self._reply.write(last)

    async def _pass_whole(self, stream: TunnelStream, head: AnswerHead) -> None:
        body = await _collect(stream)
        if head.status >= 500 or head.status == 404:
            raise self._refusal(head, body)
        self._record.first_token = self._clock.monotonic()
        read_counts(body[:HEAD_BYTES] + body[-TAIL_BYTES:], self._usage)
        await self._reply.send(WholeAnswer(body, head.status, head.content_type, head.retry_after))

    def _refusal(self, head: AnswerHead, body: bytes) -> MeshError:
        """What another server may do better: it has no room, its engine died, or it has the model no more."""
        told = f"{self._server.node_name or 'another node'}: {_message_in(body)}"
        if head.status == 404:
            return ModelNotFound(told)
        if head.status == 503:
            return Unavailable(told, retry_after_s=head.retry_after or RETRY_AFTER_S)
        return EngineFailed(told)

    async def break_off(self, broken: Exception) -> None:
        """Raises NodeLost where the client has seen nothing."""
        model = self._server.served.offer.name
        lost = NodeLost(
            f"{self._server.node_name or 'The node'}, which serves {model}, was lost: {broken}. Try again.",
            retry_after_s=RETRY_AFTER_S,
        )
        route = self._question.route
        if not self._reply.begun or not isinstance(route, Generation):
            raise lost from broken
        self._record.status = lost.http_status
        try:
            await self._reply.write(route.break_off(Heard(self._start, self._events.tail), lost))
        except ConnectionResetError:
            self._record.status = CLIENT_LEFT


async def _collect(stream: TunnelStream) -> bytes:
    parts: list[bytes] = []
    size = 0
    while (frame := await stream.receive()) is not None:
        size += len(frame)
        if size > ANSWER_BYTES_MAX:
            raise PeerError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        parts.append(frame)
    return b"".join(parts)


def _message_in(body: bytes) -> str:
    """Of an error in any dialect."""
    try:
        error = as_object((as_object(json.loads(body)) or {}).get("error")) or {}
    except (ValueError, RecursionError):
        return "no reason given"
    return str(error.get("message") or "no reason given")[:1000]
