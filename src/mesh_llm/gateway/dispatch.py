"""Who answers a question: one server after the other is tried until the client has seen a first byte.

Counterparts: candidates.py, which orders them; proxy.py and relay.py, which ask one here and one elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh_llm.core.errors import EngineFailed, MeshError, ModelNotFound, Unavailable
from mesh_llm.core.offers import ModelOffer
from mesh_llm.gateway.affinity import Affinity, check_sessions, conversation_key, session_key
from mesh_llm.gateway.candidates import candidates
from mesh_llm.gateway.cooldown import Cooldowns
from mesh_llm.gateway.directory import Directory, Server
from mesh_llm.gateway.endpoints import Generation
from mesh_llm.gateway.metrics import Way
from mesh_llm.gateway.proxy import Proxy
from mesh_llm.gateway.question import Question
from mesh_llm.gateway.relay import NodeLost, Relay
from mesh_llm.gateway.remote import RemoteServer
from mesh_llm.gateway.reply import Reply
from mesh_llm.gateway.routing import LOADING_RETRY_AFTER_S, can, choose, endpoint_of, require
from mesh_llm.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Errand:
    question: Question
    reply: Reply
    model: str
    conversation: bytes | None


class Dispatch:
    def __init__(
        self,
        directory: Directory,
        proxy: Proxy,
        relay: Relay | None,
        clock: Clock,
        fetching: Callable[[], Sequence[str]],
    ) -> None:
        """`fetching`: what this node will serve and has not got yet, as a person named it."""
        self._directory = directory
        self._fetching = fetching
        self._proxy = proxy
        self._relay = relay
        self._clock = clock
        self._affinity = Affinity()
        self._cooldowns = Cooldowns()
        self.leaving = False
        """Whether others are to answer where they can."""

    async def answer(self, question: Question, reply: Reply, *, only_here: bool = False) -> None:
        """Raises MeshError where nobody could answer and the client has seen nothing."""
        if isinstance(question.route, Generation):
            check_sessions(question.fields)
        capability = question.route.capability
        chosen = self._choose(question.model, capability, only_here=only_here)
        question.record.model = chosen.name
        servers = self._directory.servers(chosen.name, self._clock.monotonic(), only_here=only_here)
        able = [server for server in servers if can(server.place.served.offer, capability)]
        if not able:
            require(chosen, capability)
        conversation = _conversation(able, chosen.name, question)
        failures: list[MeshError] = []
        for server in self._in_order(able, chosen.name, conversation):
            try:
                await self._try(server, Errand(question, reply, chosen.name, conversation))
            except (Unavailable, EngineFailed, ModelNotFound) as failure:
                failures.append(failure)
            else:
                return
        raise _told(failures) if failures else _why_not(able, chosen)

    def _choose(self, requested: str | None, capability: str | None, *, only_here: bool) -> ModelOffer:
        try:
            return choose(self._directory.standings(only_here=only_here), requested, capability)
        except ModelNotFound:
            fetching = ", ".join(self._fetching())
            if not fetching:
                raise
            raise Unavailable(
                f"This node is still fetching {fetching}. Try again in a moment.",
                retry_after_s=LOADING_RETRY_AFTER_S,
            ) from None

    def _in_order(self, able: Sequence[Server], model: str, conversation: bytes | None) -> list[Server]:
        by_where = {server.place.where: server for server in able}
        now, sticks = self._clock.monotonic(), _differ(able)
        ordered = candidates(
            [server.place for server in able],
            favourite=self._affinity.favourite(conversation, now, sticks=sticks),
            cooling={where for where in by_where if self._cooldowns.is_cooling(where, model, now)},
            leaving=self.leaving,
            conversation=conversation or b"",
            sticks=sticks,
        )
        return [by_where[place.where] for place in ordered]

    async def _try(self, server: Server, errand: Errand) -> None:
        where, model = server.place.where, errand.model
        try:
            await self._ask(server, errand)
        except (Unavailable, EngineFailed, ModelNotFound) as failure:
            now = self._clock.monotonic()
            if isinstance(failure, EngineFailed | NodeLost):
                self._cooldowns.failed(where, model, now)
            else:
                self._cooldowns.refused(where, model, now)
            raise
        finally:
            if errand.reply.begun:
                self._affinity.remember(errand.conversation, where, self._clock.monotonic())
        if errand.question.record.status >= 500:  # told to the client as an event
            self._cooldowns.failed(where, model, self._clock.monotonic())
        else:
            self._cooldowns.succeeded(where, model)

    async def _ask(self, server: Server, errand: Errand) -> None:
        record = errand.question.record
        if isinstance(server.target, RemoteServer):
            assert self._relay is not None, "servers elsewhere come from a mesh"
            record.way = Way.RELAYED
            await self._relay.ask(server.target, errand.question, errand.reply)
        else:
            await self._proxy.ask(server.target, errand.question, errand.reply)


def _conversation(able: Sequence[Server], model: str, question: Question) -> bytes | None:
    """None where there is nothing to choose or nothing to continue. Who answers with a cut is remembered also
    while nobody else does: who comes next may have another."""
    if not isinstance(question.route, Generation):
        return None
    if any(_choice(server) for server in able):
        return session_key(model, question.fields)
    return conversation_key(model, question.fields) if len(able) > 1 else None


def _differ(able: Sequence[Server]) -> bool:
    """Whether it matters who answers: some have all experts of a mixture, or other ones than the rest."""
    return len({_choice(server) for server in able}) > 1


def _choice(server: Server) -> str:
    """Which experts answer there; empty for all."""
    cut = server.place.served.offer.cut
    return (cut.choice or "unknown") if cut is not None and cut.is_approximate else ""


def _told(failures: Sequence[MeshError]) -> MeshError:
    """The last one, but rather one that a second try may cure."""
    return next((one for one in reversed(failures) if isinstance(one, Unavailable)), failures[-1])


def _why_not(able: Sequence[Server], chosen: ModelOffer) -> MeshError:
    """Of a model that is ready nowhere."""
    for server in able:
        if not isinstance(server.target, RemoteServer):
            try:
                endpoint_of(server.target.model, server.target.condition)
            except MeshError as reason:
                return reason
    return Unavailable(
        f"{chosen.name} is not ready yet on any node. Try again in a moment.",
        retry_after_s=LOADING_RETRY_AFTER_S,
    )
