"""The answer of an engine on its way to one client: sent as it comes, or folded and sent whole.

Until the first byte every failure is an error with a status; after it, an event that ends the stream.
"""

from contextlib import aclosing

from mesh_llm.core.errors import EngineFailed, MeshError
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.exchange import Exchange
from mesh_llm.gateway.json_values import dump
from mesh_llm.gateway.metrics import RequestRecord
from mesh_llm.gateway.reply import CLIENT_LEFT, Reply, WholeAnswer
from mesh_llm.gateway.translation import Mended, Untouched
from mesh_llm.gateway.upstream import UpstreamAnswer, UpstreamLost
from mesh_llm.runtime.clock import Clock


class Delivery:
    def __init__(
        self, reply: Reply, record: RequestRecord, exchange: Exchange, backend: Backend, clock: Clock
    ) -> None:
        self._reply = reply
        self._record = record
        self._exchange = exchange
        self._backend = backend
        self._clock = clock
        self._translation = Untouched(exchange.usage) if exchange.untouched else Mended(exchange)
        record.first_token = None

    async def deliver(self, answer: UpstreamAnswer) -> None:
        """Raises MeshError or UpstreamLost where the client has seen nothing yet."""
        try:
            await self._deliver(answer)
            if not self._exchange.stream:
                await self._reply.send(WholeAnswer(dump(self._exchange.writer.answer())))
        except ConnectionResetError:
            self._record.status = CLIENT_LEFT

    async def _deliver(self, answer: UpstreamAnswer) -> None:
        try:
            await self._pass_on(answer)
        except (MeshError, UpstreamLost) as broken:
            if not self._reply.begun:
                raise
            error = broken if isinstance(broken, MeshError) else await explained(self._backend, broken)
            self._record.status = error.http_status
            await self._reply.write(self._exchange.writer.failure(error))

    async def _pass_on(self, answer: UpstreamAnswer) -> None:
        translation = self._translation
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                if self._record.first_token is None:
                    self._record.first_token = self._clock.monotonic()
                await self._send(translation.feed(chunk))
        if not translation.ended:
            raise UpstreamLost("its answer has no end")
        last = translation.finish()
        if translation.told is not None:
            self._record.status = translation.told.http_status
        await self._send(last)

    async def _send(self, out: bytes) -> None:
        if out and self._exchange.stream:
            await self._reply.write(out)


async def explained(backend: Backend, lost: UpstreamLost) -> EngineFailed:
    reason = await backend.explain_failure() or str(lost) or "it gave no reason"
    return EngineFailed(f"The engine of {backend.model.name} broke off: {reason}")
