"""Questions that come through tunnels: answered by this node's own backends, as if a client had asked here.

Counterpart: relay.py. The mesh has verified who asks: no key is wanted. Nothing goes on to a third node, so
no question can run in circles.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from mesh_llm.core.errors import MeshError, RequestRefused, Unavailable
from mesh_llm.core.ids import NodeId
from mesh_llm.gateway.endpoints import ROUTES
from mesh_llm.gateway.metrics import RequestRecord, Way
from mesh_llm.gateway.question import Question, question_of, too_large
from mesh_llm.gateway.remote import TunnelStream
from mesh_llm.gateway.reply import CLIENT_LEFT, EVENTS, Reply, WholeAnswer, refusal
from mesh_llm.gateway.stall import StallWatch
from mesh_llm.gateway.tunnel import (
    AnswerHead,
    BodyReader,
    QuestionHead,
    decode_question,
    encode,
    fits,
    frames_of,
)
from mesh_llm.mesh.transport import PeerError, Unreachable
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import beside

QUESTIONS_OF_PEER_MAX = 256
"""At once: four times what waits before one model here."""

RETRY_AFTER_S = 5

END_SECONDS_MAX = 5.0
"""From our end of an answer to the asker's: a round trip, as a rule."""


class Answer(Protocol):
    async def __call__(self, question: Question, reply: Reply) -> None: ...


class TunnelReply:
    """To a gateway on another node."""

    def __init__(self, stream: TunnelStream, busy: Callable[[], int]) -> None:
        self._stream = stream
        self._busy = busy
        self.begun = False
        self.stall = StallWatch()

    async def write(self, events: bytes) -> None:
        if not self.begun:
            await self._begin(AnswerHead(status=200, content_type=EVENTS, busy=self._busy()))
        await self._send(events)

    async def send(self, answer: WholeAnswer) -> None:
        await self._begin(
            AnswerHead(
                status=answer.status,
                content_type=answer.content_type,
                retry_after=answer.retry_after_s,
                busy=self._busy(),
            )
        )
        await self._send(answer.body)

    async def _begin(self, head: AnswerHead) -> None:
        self.begun = True
        await self._send(encode(head))

    async def _send(self, data: bytes) -> None:
        for frame in frames_of(data):
            self.stall.begins()
            try:
                await self._stream.send(frame)
            except Unreachable as left:
                raise ConnectionResetError(str(left)) from left
            self.stall.ends()


class TunnelServer:
    def __init__(
        self,
        answer: Answer,
        observed: Callable[[RequestRecord], AbstractContextManager[None]],
        busy: Callable[[], int],
        clock: Clock,
        stall_seconds_max: float,
    ) -> None:
        self._answer = answer
        self._observed = observed
        self._busy = busy
        self._clock = clock
        self._stall_seconds_max = stall_seconds_max
        self._under_way: Counter[NodeId] = Counter()
        self.leaving = False

    async def answer(self, stream: TunnelStream) -> None:
        """Returns when the question is answered or its asker has left. Raises PeerError."""
        self._under_way[stream.peer] += 1
        try:
            await self._serve(stream)
        except (Unreachable, ConnectionResetError):
            return
        finally:
            self._under_way[stream.peer] -= 1
            if not self._under_way[stream.peer]:
                del self._under_way[stream.peer]

    async def _serve(self, stream: TunnelStream) -> None:
        head = decode_question(await stream.receive())
        endpoint = head.path if head.path in ROUTES else "other"
        record = RequestRecord(endpoint, self._clock.monotonic(), way=Way.SERVED)
        with self._observed(record):
            reply = TunnelReply(stream, self._busy)
            try:
                self._admit(head, stream.peer)
                body = await self._body(stream, head.size)
                await self._respond(stream, head, body, reply, record)
                record.status = record.status or 200
            except MeshError as error:
                record.status = error.http_status
                await reply.send(refusal(error, head.path))
            except (Unreachable, ConnectionResetError):
                record.status = CLIENT_LEFT
                raise
            except PeerError:
                record.status = 400
                raise
            await stream.finish()
        await _hear_the_end(stream)

    def _admit(self, head: QuestionHead, peer: NodeId) -> None:
        if head.path not in ROUTES:
            raise RequestRefused(f"There is nothing at {head.path}.", http_status=404, code="not_found")
        if not fits(head.size):
            raise too_large()
        if self.leaving:
            raise Unavailable("This node is leaving the mesh. Ask another one.", retry_after_s=RETRY_AFTER_S)
        if self._under_way[peer] > QUESTIONS_OF_PEER_MAX:
            raise Unavailable(
                f"{QUESTIONS_OF_PEER_MAX} questions of this node are being answered already.",
                retry_after_s=RETRY_AFTER_S,
            )

    async def _body(self, stream: TunnelStream, size: int) -> bytes:
        reader = BodyReader(size)
        while not reader.complete:
            reader.take(await stream.receive())
        return reader.body()

    async def _respond(
        self, stream: TunnelStream, head: QuestionHead, body: bytes, reply: TunnelReply, record: RequestRecord
    ) -> None:
        question = question_of(head.path, ROUTES[head.path], body, record, head.model)
        with _one_departure():
            async with beside(
                departure=_watch_for_departure(stream), stall=reply.stall.watch(self._stall_seconds_max)
            ):
                await self._answer(question, reply)


@contextmanager
def _one_departure() -> Generator[None]:
    """Who watches the stream and who sends on it see its end in the same moment: that is one departure."""
    try:
        yield
    except BaseExceptionGroup as group:
        departures, others = group.split((Unreachable, ConnectionResetError))
        if departures is None or others is not None:
            raise
        raise Unreachable("the asker has left") from group


async def _hear_the_end(stream: TunnelStream) -> None:
    """The asker ends its side when it has the whole answer: then the stream is over for both alike."""
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS_MAX):
            await stream.receive()


async def _watch_for_departure(stream: TunnelStream) -> None:
    """Raises Unreachable where the asker leaves. One that has ended its side still waits for the answer."""
    if await stream.receive() is not None:
        raise PeerError("a body longer than announced")
