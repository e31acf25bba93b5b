"""The door of this node: tokens for those who shall come, and answers for those who have come with one.

Who may be in is decided in `admission/admission.py`; its counterpart at the newcomer's is `entering.py`.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random

from mesh_llm.core.errors import MeshError
from mesh_llm.core.ids import short
from mesh_llm.mesh.admission import joining
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.invites import Door
from mesh_llm.mesh.admission.joining import Admitted
from mesh_llm.mesh.gossip import exchange
from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.gossip.probes import some
from mesh_llm.mesh.gossiping import Gossiping
from mesh_llm.mesh.transport import Stream, Transport
from mesh_llm.runtime.clock import Clock

logger = logging.getLogger(__name__)

INTRODUCED_MAX = 16
"""Members of which a newcomer is told. One that lives will do."""


class Doorkeeping:
    def __init__(
        self,
        admission: Admission,
        gossiping: Gossiping,
        transport: Transport,
        clock: Clock,
        chance: Random,
        those_who_stay: Callable[[], list[Advert]],
        write_now: Callable[[], None],
    ) -> None:
        """`those_who_stay`: members that others may be sent to. `write_now` keeps the ledger, or raises
        DiskFull."""
        self._admission = admission
        self._gossiping = gossiping
        self._transport = transport
        self._clock = clock
        self._chance = chance
        self._those_who_stay = those_who_stay
        self._write_now = write_now

    def invite(self, ttl_s: int, *, once: bool) -> str:
        """A new token. Raises RequestRefused, DiskFull."""
        doors = [Door(advert.node, advert.addresses) for advert in self._those_who_stay()]
        here = Door(self._admission.me, self._transport.addresses)
        token = self._admission.invite(
            [here, *doors], self._clock.epoch(), self._chance, ttl_s=ttl_s, once=once
        )
        self._write_now()
        return token

    async def admit(self, stream: Stream) -> None:
        """Answers a stranger's JOIN. Raises PeerError, Unreachable."""
        request = await stream.receive()
        join = joining.decode_request(request or b"")
        answer = self._admission.answer(join, stream.peer, self._clock.epoch())
        if isinstance(answer, Admitted):
            try:
                self._write_now()  # before it goes out: a single-use invite is spent now
            except MeshError as error:
                logger.error("%s cannot join: %s", short(stream.peer), error)
                await stream.refuse("This door cannot write down who joins. Try another.")
                return
            answer = replace(answer, adverts=self._introductions())
            logger.info("%s has joined the mesh", short(stream.peer))
        await stream.send(joining.encode_answer(answer))
        await stream.finish()

    def _introductions(self) -> tuple[bytes, ...]:
        """The adverts of this node and of some others."""
        others = [advert.node for advert in self._those_who_stay()]
        told = (self._admission.me, *some(self._chance, others, INTRODUCED_MAX - 1))
        return tuple(exchange.encode(signed) for signed in self._gossiping.adverts.answer_to(told))
