"""A mesh of deciding machines: what `service.py` does with sockets and clocks is done here with a heap.

Everything that is sent is encoded and decoded, so that sizes count and the codec is part of each scenario.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.advert import DOMAIN, Advert, SignedAdvert
from mesh_llm.mesh.gossip.adverts import (
    AdvertChanged,
    AdvertEvent,
    Adverts,
    Announced,
    AnnounceOwn,
    Fetch,
    FetchEnded,
    Forgotten,
    OwnChanged,
    Received,
)
from mesh_llm.mesh.gossip.exchange import AdvertsWanted, Frame, View
from mesh_llm.mesh.gossip.leaving import signed_leave
from mesh_llm.mesh.gossip.membership import Membership
from mesh_llm.mesh.gossip.membership_events import (
    AdvertHeld,
    Effect,
    Event,
    Introduced,
    Leaving,
    Member,
    MemberChanged,
    MemberForgotten,
    MessageReceived,
    SendMessage,
    Started,
    StartTimer,
    Synchronise,
    TimerFired,
    ViewReceived,
    WantAdvert,
)
from mesh_llm.mesh.gossip.messages import Message
from mesh_llm.mesh.gossip.news import Health, News
from mesh_llm.mesh.transport import Addresses, PeerError
from tests.simulation.world import NetworkConditions, World

HELD_BACK_MAX = 200
"""Datagrams that wait for a process that stands still; the transport drops the rest."""


@cache
def key_of(name: str) -> NodeKey:
    return NodeKey.draw(Random(name))


def an_advert(name: str, model: str) -> Advert:
    """As large as a real one: a chain of two vouchers, a model, three addresses."""
    offer = ModelOffer(f"{model}-Instruct-GGUF", ("auto", model), 5_000_000_000, 8192, 131072, 8_000_000_000)
    return Advert(
        key_of(name).node,
        0,
        name=name,
        program_version="0.1.0",
        addresses=Addresses(("192.168.1.5:51234", "[2001:db8::5]:51234"), "https://relay.example.org/"),
        certificate=b"c" * 350,
        memory_bytes=24_000_000_000,
        models=(ServedOffer(offer, True, 42.5),),
        on_disk=(f"{model}-Instruct-GGUF", "SmolLM2-135M-Instruct"),
        started=1_795_000_000,
    )


class SimulatedNode:
    """One life of a node. Its clock is off and runs at a rate of its own."""

    def __init__(self, mesh: "SimulatedMesh", name: str) -> None:
        chance = Random(mesh.world.chance.getrandbits(64))
        self.name = name
        self.key = key_of(name)
        self.mesh = mesh
        self.membership = Membership(self.key.node, chance)
        self.adverts = Adverts(self.key.node, chance, lambda body: self.key.sign(DOMAIN, body))
        self.runs = True
        self.paused = False
        self._held_back: list[Callable[[], None]] = []
        self._clock_offset = mesh.world.chance.uniform(0, 1e6)
        self._clock_rate = mesh.world.chance.uniform(0.99, 1.01)
        self._incarnations: dict[NodeId, int] = {}

    @property
    def id(self) -> NodeId:
        return self.key.node

    @property
    def now(self) -> float:
        return self._clock_offset + self._clock_rate * self.mesh.world.now

    # -- events in ----------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        if not self.runs:
            return
        if self.paused:
            self._hold_back(event)
            return
        before = self.membership.incarnation
        for effect in self.membership.handle(event, self.now):
            self._perform(effect)
        self.mesh.check(self.membership.incarnation >= before, f"{self.name}: incarnation went back")

    def take_advert(self, event: AdvertEvent) -> None:
        if not self.runs:
            return
        try:
            effects = self.adverts.handle(event, self.now)
        except PeerError as error:
            self.mesh.world.note(f"{self.name} refuses: {error}")
            return
        for effect in effects:
            match effect:
                case Fetch(nodes, peer):
                    self._fetch(nodes, peer)
                case AdvertChanged(advert):
                    self.take(AdvertHeld(advert.node, advert.version))
                case AnnounceOwn(node, version):
                    self.take(AdvertHeld(node, version))
            self.mesh.world.changed = True

    def resume(self) -> None:
        """Overdue timers come first: the worst order for those who have answered meanwhile."""
        self.paused = False
        waiting, self._held_back = self._held_back, []
        for event in waiting:
            event()

    def _hold_back(self, event: Event) -> None:
        again = lambda: self.take(event)  # noqa: E731
        if isinstance(event, TimerFired):
            self._held_back.insert(0, again)
        elif len(self._held_back) < HELD_BACK_MAX:
            self._held_back.append(again)

    # -- effects out --------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendMessage(to, message):
                self.mesh.send(self, to, message)
            case StartTimer(after, timer):
                self.mesh.world.after(after / self._clock_rate, lambda: self.take(TimerFired(timer)))
            case MemberChanged(member):
                known = self._incarnations.get(member.node, 0)
                self.mesh.check(member.incarnation >= known, f"{self.name}: {member} is older than {known}")
                self._incarnations[member.node] = member.incarnation
                self.mesh.believes(self, member)
            case MemberForgotten(node):
                self._incarnations.pop(node, None)
                self.take_advert(Forgotten(node))
            case Synchronise(peer):
                self._synchronise(peer)
            case WantAdvert(node, version, peer):
                self.take_advert(Announced(node, version, peer))

    def _synchronise(self, peer: NodeId) -> None:
        view = View(self.membership.view())

        def answer(other: "SimulatedNode", frame: Frame) -> list[Frame]:
            assert isinstance(frame, View)
            reply = View(other.membership.answer_to(frame.members))
            other.take(ViewReceived(self.id, frame.members))
            return [reply]

        def hear(frame: Frame) -> None:
            assert isinstance(frame, View)
            self.take(ViewReceived(peer, frame.members))

        self.mesh.ask(self, peer, view, answer, hear, lambda: None)

    def _fetch(self, nodes: tuple[NodeId, ...], peer: NodeId) -> None:
        def answer(other: "SimulatedNode", frame: Frame) -> list[Frame]:
            assert isinstance(frame, AdvertsWanted)
            return list(other.adverts.answer_to(frame.nodes))

        def hear(frame: Frame) -> None:
            assert isinstance(frame, SignedAdvert)
            self.take_advert(Received(frame, peer))

        end = lambda: self.take_advert(FetchEnded(peer))  # noqa: E731
        self.mesh.ask(self, peer, AdvertsWanted(nodes), answer, hear, end)


class SimulatedMesh:
    def __init__(self, seed: int, conditions: NetworkConditions | None = None) -> None:
        self.world = World(seed, conditions or NetworkConditions())
        self.nodes: dict[str, SimulatedNode] = {}
        self.names: dict[NodeId, str] = {}
        self.sent = Counter[str]()
        """Messages and bytes that went out, all nodes together."""
        self.news_waiting_max = 0
        self._left: set[tuple[NodeId, int]] = set()
        """Who has signed a leave, of which incarnation."""

    # -- what a test does to it ---------------------------------------------------------------------------

    def boot(self, name: str, *seeds: str) -> SimulatedNode:
        node = self.nodes[name] = SimulatedNode(self, name)
        self.names[node.id] = name
        self.world.note(f"{name} starts")
        self.world.changed = True
        node.take(Started())
        node.take_advert(OwnChanged(an_advert(name, "Llama-3.1-8B")))
        self.introduce(name, *seeds)
        return node

    def introduce(self, name: str, *others: str) -> None:
        self.nodes[name].take(Introduced(tuple(key_of(other).node for other in others)))

    def crash(self, name: str) -> None:
        self.world.note(f"{name} crashes")
        self.nodes.pop(name).runs = False
        self.world.changed = True

    def pause(self, name: str, seconds: float) -> None:
        node = self.nodes[name]
        self.world.note(f"{name} stands still for {seconds:.1f} s")
        node.paused = True

        def resume() -> None:
            self.world.note(f"{name} goes on")
            self.world.disturb()
            self.world.changed = True
            node.resume()

        self.world.after(seconds, resume)

    def leave(self, name: str) -> None:
        node = self.nodes[name]
        self.world.note(f"{name} leaves")
        self._left.add((node.id, node.membership.incarnation))
        node.take(Leaving(signed_leave(node.key, node.membership.incarnation)))

    def change(self, name: str, model: str) -> None:
        self.nodes[name].take_advert(OwnChanged(an_advert(name, model)))

    def hear(self, name: str, sender: str, message: Message) -> None:
        """Whatever a member may send."""
        self.send(self.nodes[sender], key_of(name).node, message)

    # -- what a test asks of it ---------------------------------------------------------------------------

    def sees(self, observer: str, name: str) -> Health | None:
        member = self.nodes[observer].membership.member(key_of(name).node)
        return None if member is None else member.health

    def agrees(self) -> bool:
        """Everyone sees exactly those that run, and holds the newest advert of each."""
        running = {node.id: node for node in self.nodes.values()}
        for node in self.nodes.values():
            if set(node.membership.living()) != set(running) - {node.id}:
                return False
            if any(node.adverts.get(other) != running[other].adverts.get(other) for other in running):
                return False
        return len({node.membership.digest for node in self.nodes.values()}) == 1

    def all_miss(self, name: str) -> bool:
        """Nobody counts it among the living."""
        gone = key_of(name).node
        return all(gone not in node.membership.living() for node in self.nodes.values())

    def news_of_all(self, health: Health, incarnation: int = 0, signature: bytes = b"") -> tuple[News, ...]:
        return tuple(
            News(key_of(name).node, incarnation, health, 0, signature) for name in sorted(self.nodes)
        )

    # -- what nodes do to one another ---------------------------------------------------------------------

    def send(self, sender: SimulatedNode, to: NodeId, message: Message) -> None:
        data = wire.encode(message)
        self._count(type(message).__name__, data)
        received = wire.decode(data)
        assert received == message, f"{message} became {received}"
        self.news_waiting_max = max(self.news_waiting_max, sender.membership.news_waiting)
        name = self.names.get(to)
        if name is not None:
            event = MessageReceived(sender.id, message)
            self.world.datagram(sender.name, name, lambda: self._deliver(name, event))

    def ask(
        self,
        asker: SimulatedNode,
        peer: NodeId,
        question: Frame,
        answer: Callable[[SimulatedNode, Frame], list[Frame]],
        hear: Callable[[Frame], None],
        end: Callable[[], None],
    ) -> None:
        """One exchange on a stream of its own."""
        name = self.names.get(peer, "")

        def asked() -> None:
            other = self.nodes.get(name)
            if other is None or other.paused:
                self.world.after(4.0, end)
                return
            frames = [self._carried(frame) for frame in answer(other, self._carried(question))]
            self.world.stream(name, asker.name, lambda: answered(frames), end)

        def answered(frames: list[Frame]) -> None:
            for frame in frames:
                hear(frame)
            end()

        self.world.stream(asker.name, name, asked, end)

    def _deliver(self, name: str, event: Event) -> None:
        node = self.nodes.get(name)
        if node is not None:
            node.take(event)

    def _carried(self, frame: Frame) -> Frame:
        data = exchange.encode(frame)
        self._count(type(frame).__name__, data)
        received = exchange.decode(data)
        assert not isinstance(received, wire.Unknown)
        return received

    def _count(self, kind: str, data: bytes) -> None:
        self.sent["messages"] += 1
        self.sent["bytes"] += len(data)
        self.sent[kind] += len(data)

    # -- what must hold at every moment -------------------------------------------------------------------

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.world.fail(what)

    def believes(self, observer: SimulatedNode, member: Member) -> None:
        name, health = self.names[member.node], member.health
        self.world.note(f"{observer.name} sees {name} {health.name}")
        self.world.changed = True
        self.check(member.node != observer.id, "a node lists itself")
        subject = self.nodes.get(name)
        if self.world.is_calm() and not health.living and subject is not None and not subject.paused:
            # It may be back already while its leave is still on the way.
            left = health is Health.LEFT and (member.node, member.incarnation) in self._left
            self.check(left, f"{name} lives, and {observer.name} takes it for {health.name}")


def mesh_of(count: int, seed: int, **conditions: float) -> SimulatedMesh:
    """Booted within a second, each introduced to one before it."""
    mesh = SimulatedMesh(seed, NetworkConditions(**conditions))
    mesh.boot("n0")
    for place in range(1, count):
        mesh.world.run_for(mesh.world.chance.uniform(0, 2 / count))
        mesh.boot(f"n{place}", f"n{mesh.world.chance.randrange(place)}")
    return mesh


def settled_mesh_of(count: int, seed: int, **conditions: float) -> SimulatedMesh:
    mesh = mesh_of(count, seed, **conditions)
    mesh.world.run_until(mesh.agrees, within=60)
    return mesh
